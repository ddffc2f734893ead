"""The exception tree: one class, one exit code and one stable `code` per kind of trouble.

The library raises; only the command line renders. A message is one line that says what was asked and what
was found; `tip` says what to do next. `code` does not change when a message is reworded: scripts and tests
match it. It is the class's own unless a place in the code gives a finer one ("budget.unreachable").
"""

from __future__ import annotations

import re


class EdgepruneError(Exception):
    """Base of every error that a user can cause or mend."""

    exit_code = 1

    def __init__(self, message: str, *, tip: str = "", code: str = "") -> None:
        self.message, self.tip = _one_line(message), _one_line(tip)
        self.code = code or self.default_code()
        super().__init__(f"{self.message}; {self.tip}" if self.tip else self.message)

    @classmethod
    def default_code(cls) -> str:
        """`BudgetError` → `budget`, `UnsafeModelError` → `unsafe-model`."""
        if cls is EdgepruneError:
            return "error"
        return "-".join(re.findall(r"[A-Z][a-z0-9]+", cls.__name__.removesuffix("Error"))).lower()


def _one_line(text: str) -> str:
    """Printable on any terminal: a file name may hold bytes that are no UTF-8."""
    return " ".join(text.split()).encode("utf-8", "backslashreplace").decode("utf-8")


class ModelError(EdgepruneError):
    """A model file is missing, damaged, of the wrong kind, or does not fit its factory."""

    exit_code = 3


class UnsafeModelError(ModelError):
    """Loading the file would run code that it carries."""

    exit_code = 4


class DataError(EdgepruneError):
    """Data or labels that cannot be used."""

    exit_code = 5


class BudgetError(EdgepruneError):
    """A budget that no plan can meet."""

    exit_code = 6


class PinnedError(BudgetError):
    """Nothing at all can be removed from the model."""

    exit_code = 18


class OutputError(EdgepruneError):
    """An output that cannot be written."""

    exit_code = 7


class TargetError(EdgepruneError):
    """An unknown target or a malformed descriptor."""

    exit_code = 8


class TraceError(EdgepruneError):
    """torch.export refused the model, or its graph cannot be used."""

    exit_code = 9


class ParityError(EdgepruneError):
    """An exported file does not compute what its graph computes."""

    exit_code = 10


class BenchError(EdgepruneError):
    """A file that cannot be timed."""

    exit_code = 11


class DeviceError(EdgepruneError):
    """A device that cannot be reached or is not fit to run the file."""

    exit_code = 12


class MaskError(EdgepruneError):
    """A mask that does not fit the model."""

    exit_code = 13


class RunError(EdgepruneError):
    """A run folder that is damaged or belongs to another request."""

    exit_code = 14


class ShipError(EdgepruneError):
    """A bundle that cannot be delivered, or that was tampered with."""

    exit_code = 15


class CriterionError(EdgepruneError):
    """An unknown criterion, or settings that it does not take."""

    exit_code = 16


class ExportError(EdgepruneError):
    """torch.onnx refused the graph, or wrote a file that is not the one asked for."""

    exit_code = 17


class RankError(EdgepruneError):
    """The processes of one run disagree, or one of them is gone."""

    exit_code = 20


class OptionError(EdgepruneError):
    """A setting that is out of its range or none of its values."""

    exit_code = 19
