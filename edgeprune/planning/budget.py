"""A budget in the user's words: shares kept (`0.5`, `3x`) and points of accuracy."""

from __future__ import annotations

from dataclasses import dataclass

from edgeprune.coupling.components import Couplings
from edgeprune.errors import BudgetError


@dataclass(frozen=True)
class Budget:
    """What the result must keep to. None where nothing was asked.

    max_drop: points (of 100) of the first metric. macs, params: share kept, in (0, 1].
    """

    max_drop: float | None = None
    macs: float | None = None
    params: float | None = None

    def asked(self) -> str:
        """The budget as the user would type it."""
        parts = [("--macs", self.macs), ("--params", self.params), ("--max-drop", self.max_drop)]
        return " ".join(f"{name} {value:g}" for name, value in parts if value is not None)


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


def refuse_impossible(couplings: Couplings, floor: float, asked: float, option: str, what: str) -> None:
    """Raise when even removing everything removable keeps more than `asked`."""
    if floor <= asked:
        return
    reasons = sorted(couplings.pins, key=lambda p: -p.channels)[:3]
    listed = ", ".join(f"{p.reason} {p.channels}" for p in reasons)
    raise BudgetError(
        f"{option} {asked:.3g} keeps {asked:.1%} of the {what}; at least {floor:.1%} has to stay"
        + (f" (pinned: {listed})" if listed else ""),
        tip=f"use {option} {floor + 0.005:.2f} or more, or see `edgeprune inspect` for what is pinned",
    )
