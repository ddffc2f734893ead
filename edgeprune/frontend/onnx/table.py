"""The table of ONNX operators: one function each, and what a function is called with.

    @operator("Relu")
    def relu(call): return call.tensor(0).relu()

Operands are tensors, numbers that are known before the network runs, or both. Numbers come from stored
constants and from shapes; those from shapes may hold symbols, since a free batch has no number.
Guarantee: a function that asks for numbers which depend on data raises, with the node's name.
Elsewhere: the functions (files by family), arithmetic on shapes (shape_arithmetic), who calls them (module).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from edgeprune.errors import ModelError

Numbers = np.ndarray[Any, Any]
MICROSOFT = "com.microsoft"


@dataclass(frozen=True)
class Operand:
    """A value of the file: a tensor, or numbers that are known early, or both."""

    stored: torch.Tensor | None
    numbers: Numbers | None = None

    def tensor(self) -> torch.Tensor:
        """The value as a tensor; sizes become one."""
        if self.stored is not None:
            return self.stored
        assert self.numbers is not None
        return as_tensor(self.numbers)


@dataclass(frozen=True)
class Step:
    """One node of the file.

    Attributes:
        name: the node's name, or `op_type_number` where the file gives none.
        version: of the operator set that the node belongs to.
        attributes: plain values; graphs as `Program`.
        inputs: names of values; empty for an input that is left out.
    """

    name: str
    op_type: str
    domain: str
    version: int
    attributes: dict[str, Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def label(self) -> str:
        """`Conv node '/stem/conv'`."""
        operator_name = f"{self.domain}.{self.op_type}" if self.domain else self.op_type
        return f"{operator_name} node {self.name!r}"


@dataclass(frozen=True)
class Program:
    """Nodes in order, with the names of what goes in and out; the body of an If has no inputs."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    steps: tuple[Step, ...]
    constants: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """A step with its operands."""

    step: Step
    operands: tuple[Operand | None, ...]
    run_body: Callable[[Program], list[Operand]] | None = None

    def has(self, index: int) -> bool:
        """Whether an optional input is there."""
        return index < len(self.operands) and self.operands[index] is not None

    def tensor(self, index: int) -> torch.Tensor:
        """An input as a tensor."""
        operand = self.operands[index] if index < len(self.operands) else None
        if operand is None:
            raise ModelError(f"{self.step.label}: its input {index} is missing")
        return operand.tensor()

    def optional(self, index: int) -> torch.Tensor | None:
        """An input as a tensor, None where it is left out."""
        return self.tensor(index) if self.has(index) else None

    def numbers(self, index: int) -> Numbers | None:
        """An input whose numbers must be known early; None where it is left out.

        Raises:
            ModelError: they depend on data.
        """
        if not self.has(index):
            return None
        operand = self.operands[index]
        assert operand is not None
        if operand.numbers is None:
            raise ModelError(
                f"{self.step.label}: its input {self.step.inputs[index]!r} depends on data; it must be a"
                " constant or follow from shapes",
                tip="export the model with fixed sizes, or cut this part off and run it after the network",
            )
        return operand.numbers

    def attr(self, name: str, default: Any = None) -> Any:
        """An attribute."""
        return self.step.attributes.get(name, default)

    def axes(self, index: int) -> list[int] | None:
        """Axes: an input since opset 13 or 18, an attribute before; None where neither is there."""
        numbers = self.numbers(index)
        listed = self.attr("axes") if numbers is None else numbers.reshape(-1).tolist()
        return None if listed is None else [int(axis) for axis in listed]


Function = Callable[[Call], Any]
TABLE: dict[tuple[str, str], Function] = {}


def operator(*names: str, domain: str = "") -> Callable[[Function], Function]:
    """Register a function for operators of a domain.

    Raises:
        ValueError: an operator is registered already.
    """

    def register(function: Function) -> Function:
        for name in names:
            if (domain, name) in TABLE:
                raise ValueError(f"{domain}.{name} is registered twice")
            TABLE[domain, name] = function
        return function

    return register


def refuse(call: Call, finding: str) -> ModelError:
    """The error of a node that uses an operator in a form that has no function here."""
    return ModelError(
        f"{call.step.label}: {finding}, which cannot be imported",
        tip="give the PyTorch model that the file came from, or export it without this form",
    )


def as_tensor(numbers: Numbers) -> torch.Tensor:
    """Known numbers as a tensor; sizes that are symbols stay symbols."""
    if numbers.dtype != object:
        return torch.from_numpy(np.array(numbers))
    flat = numbers.reshape(-1).tolist()
    if all(isinstance(n, int) for n in flat):
        return torch.tensor(flat, dtype=torch.int64).reshape(numbers.shape)
    kind = torch.float32 if any(isinstance(n, float | torch.SymFloat) for n in flat) else torch.int64
    return torch.stack([torch.scalar_tensor(n, dtype=kind) for n in flat]).reshape(numbers.shape)


def sizes(values: Sequence[Any]) -> Numbers:
    """Sizes as numbers, symbols kept."""
    held = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):
        held[i] = value
    return held
