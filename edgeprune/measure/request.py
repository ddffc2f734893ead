"""What to time and how: the settings of a benchmark as one frozen value.

    request = BenchRequest((dense, pruned), seconds=5.0)
    run_bench(request)  board_bench(board, request)  profile_operators(request)  why(request)

Guarantee: `check` refuses what cannot be measured before anything starts.
Elsewhere: carrying it out here (host, operators) or on a board (deploy/remote.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeprune.errors import BenchError
from edgeprune.export.model_files import model_bytes

SLOWEST_S = 120.0  # default limit for loading a file and running it once


@dataclass(frozen=True)
class BenchRequest:
    """ONNX files to time and the settings that apply to all of them.

    models: paths; external data is found beside them.
    threads: intra-op threads, and cores that the process is bound to.
    seconds: time spent on interleaved rounds.
    batch: size of a dynamic leading dimension.
    seed: of random inputs and of the order of turns.
    inputs: npz of recorded inputs, named as the model's or input_0, input_1, ...
    shapes: "NAME=1,3,224,224" for inputs with further free dimensions.
    rate, deadline_ms: also feed inputs at `rate` a second and give the share answered too late.
    probes: fresh processes per file that measure load time, first inference and memory; 0 for none.
    limit_s: seconds that loading a file and running it once may take.
    """

    models: tuple[Path, ...]
    threads: int = 1
    seconds: float = 5.0
    batch: int = 1
    seed: int = 0
    inputs: Path | None = None
    shapes: tuple[str, ...] = ()
    rate: float | None = None
    deadline_ms: float | None = None
    probes: int = 3
    limit_s: float = SLOWEST_S

    def __post_init__(self) -> None:
        object.__setattr__(self, "models", tuple(Path(model) for model in self.models))
        object.__setattr__(self, "shapes", tuple(self.shapes))

    def check(self) -> list[int]:
        """Give the size of each file in bytes, external data included.

        Raises:
            BenchError: no file, a file is missing or damaged, or a setting is out of range.
        """
        if not self.models:
            raise BenchError("no ONNX file to time", tip="give one or more: edgeprune bench A.onnx B.onnx")
        for name, value, least in (
            ("threads", self.threads, 1),
            ("batch", self.batch, 1),
            ("seconds", self.seconds, 0),
            ("limit", self.limit_s, 1),
        ):
            if not least <= value < 1e6:
                raise BenchError(f"--{name} {value}: out of range", tip=f"--{name} is at least {least}")
        if (self.rate is None) != (self.deadline_ms is None):
            raise BenchError("--rate and --deadline-ms belong together", tip="give both or neither")
        if self.rate is not None and not (0 < self.rate <= 1e5 and 0 < (self.deadline_ms or 0) < 1e9):
            raise BenchError(
                f"--rate {self.rate} --deadline-ms {self.deadline_ms}: out of range",
                tip="both are above zero, the rate at most 100000",
            )
        return [model_bytes(path) for path in self.models]

    def runner_flags(self, models: Sequence[str], inputs: str | None) -> list[str]:
        """The runner's arguments, with the names that the files have where it runs."""
        flags = ["--json", f"--threads={self.threads}", f"--seconds={self.seconds}", f"--batch={self.batch}"]
        flags += [f"--seed={self.seed}", f"--probes={self.probes}", f"--limit={self.limit_s}"]
        flags += [f"--shape={shape}" for shape in self.shapes]
        flags += [f"--rate={self.rate}"] if self.rate is not None else []
        flags += [f"--inputs={inputs}"] if inputs is not None else []
        return [*flags, "--", *models]

    @property
    def most_seconds(self) -> float:
        """Wall-clock time after which a run has surely gone wrong.

        A round may take as long as the slowest inference allows and at least ten are made, so this is
        a backstop of the runner's own limit, which stops a file at its first inference.
        """
        first = (self.probes + 2) * self.limit_s * (len(self.models) + 1)
        return 900 + first + 20 * self.seconds * (len(self.models) + 1)
