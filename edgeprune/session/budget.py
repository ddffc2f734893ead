"""A budget in the user's words: shares kept (`0.5`, `3x`), milliseconds, megabytes, points of accuracy."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from edgeprune.errors import BudgetError


@dataclass(frozen=True)
class Budget:
    """What the result must keep to, in any mix. None where nothing was asked.

    max_drop: points (of 100) of the first metric. macs, params: share kept, in (0, 1].
    target_ms: median latency on the target, batch 1. speedup: dense median over shipped, above 1.
    deadline_ms: 99th percentile of the latency. size_mb: the ONNX file, MB (10⁶ bytes).
    """

    max_drop: float | None = None
    macs: float | None = None
    params: float | None = None
    target_ms: float | None = None
    speedup: float | None = None
    deadline_ms: float | None = None
    size_mb: float | None = None

    def __post_init__(self) -> None:
        for name in ("target_ms", "deadline_ms", "size_mb"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise BudgetError(f"{option(name)} {value:g}: not a positive number")
        if self.speedup is not None and not (math.isfinite(self.speedup) and self.speedup >= 1):
            raise BudgetError(
                f"--speedup {self.speedup:g}: not a factor of at least 1", tip="2 asks for half the latency"
            )

    @property
    def sized(self) -> bool:
        """Whether anything besides accuracy was asked for."""
        return any(getattr(self, f.name) is not None for f in fields(self) if f.name != "max_drop")

    @property
    def timed(self) -> bool:
        """Whether a latency was asked for."""
        return any(x is not None for x in (self.target_ms, self.speedup, self.deadline_ms))

    def asked(self) -> str:
        """The budget as the user would type it."""
        order = [f.name for f in fields(self) if f.name != "max_drop"] + ["max_drop"]
        parts = [(option(name), getattr(self, name)) for name in order]
        return " ".join(f"{name} {value:g}" for name, value in parts if value is not None)


def option(name: str) -> str:
    """`target_ms` → `--target-ms`."""
    return "--" + name.replace("_", "-")


def parse_share(text: str, option: str) -> float:
    """`0.5` keeps half, `3x` keeps a third.

    Raises:
        BudgetError: not a share in (0, 1] and not a factor of at least 1.
    """
    plain = text.strip().lower()
    try:
        value = 1.0 / float(plain[:-1]) if plain.endswith("x") else float(plain)
    except (ValueError, ZeroDivisionError):
        value = float("nan")
    if not 0.0 < value <= 1.0:
        raise BudgetError(
            f"{option} {text}: not a share", tip="give the share kept, as 0.5, or a factor, as 3x"
        )
    return value
