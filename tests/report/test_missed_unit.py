"""A budget that was missed is told in the unit of the output that decides."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from edgeprune.records import Interval
from edgeprune.report.budget_check import missed
from edgeprune.session.budget import Budget


def test_a_missed_loss_has_the_unit_of_the_output_that_decides():
    """The angle lost percent of its error; the task of both outputs as one number is a share."""
    dense: Any = SimpleNamespace(data=SimpleNamespace(unit="points"))
    record = SimpleNamespace(drop=Interval(4.3, 3.0, 5.6, 0.8), unit="percent")
    proof: Any = SimpleNamespace(front=(), bench=SimpleNamespace(ratios=()))
    run: Any = SimpleNamespace(
        options=SimpleNamespace(budget=Budget(max_drop=1.0)), target=SimpleNamespace(measures_target=False)
    )
    final: Any = SimpleNamespace(record=record)
    (line,) = missed(dense, final, proof, run)
    assert "4.30 percent were lost" in line and "up to 5.60" in line
