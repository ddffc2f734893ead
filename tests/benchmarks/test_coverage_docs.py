"""docs/coverage.md holds every row of benchmarks/results/coverage.json and says how old each is."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from benchmarks.coverage import page as coverage_page
from benchmarks.coverage import parts, summary, versions
from benchmarks.coverage.transformers_models import Named
from edgeprune.graph.trace import trace

ROOT = Path(__file__).parents[2]
ROWS = summary.known_rows()
ROW = {
    "components": 4, "channels": 8, "free_share": 0.5, "macs_ratio": 0.5, "params_ratio": 0.6, "passed": True,
    "seconds": {"trace": 1.0}, "parity_max_abs": 1e-7, "spread_ratio": 2e4, "recentred": True,
    "dynamic_batch": True, "code": "now", "commit": "abc",
}  # fmt: skip


def test_the_page_has_every_measured_row_with_its_verdict():
    """A row that is measured again and not written would leave the page behind the JSON."""
    lines = (ROOT / "docs/coverage.md").read_text(encoding="utf-8").splitlines()
    table = {line.split(" | ")[0].removeprefix("| "): line for line in lines if line.startswith("| ")}
    for name, row in ROWS.items():
        assert name in table, name
        assert table[name].split(" | ")[1].startswith("pass") == row["passed"], name


def test_a_row_of_other_code_is_marked_and_named():
    """What an older version passed is no claim about this one."""
    rows = {
        "a": ROW,
        "b": {**ROW, "code": "then"},
        "hf_c": {"passed": False, "reason": "died | x", "code": "now"},
    }
    assert summary.stale(rows, ["a", "b", "hf_c", "d"], "now") == ["b"]
    assert "measured by other code than this, 1" in summary.summary(rows, list(rows), "now")
    page = coverage_page.page(rows, [*rows, "d"], "now")
    assert "2 of 4 rows pass" in page and "2 of 3 were measured by the code that this page" in page
    assert "| a | pass, recentred | 4 | 0.500 |" in page
    (old,) = [line for line in page.splitlines() if line.startswith("| b ")]
    assert old.endswith("○ abc |")
    assert "| hf_c | died / x |" in page and "| d | never measured |" in page


def test_the_share_of_a_detector_weighs_its_parts_by_channels():
    """A box head with nothing free made whole detectors 0.0."""
    rows = [{"free_share": 0.9, "channels": 90}, {"free_share": 0.0, "channels": 10}]
    assert parts.joint_share(rows) == 0.81
    assert parts.joint_share([]) == 0.0


@pytest.mark.parametrize("names", [("a",), ("a", "b")])
def test_a_row_from_transformers_has_a_free_batch(names):
    """Eight samples run through what was traced with two; with a fixed batch no such row can be measured."""

    class Model(nn.Module):
        def forward(self, a, b=None, *, twice):
            return SimpleNamespace(logits=a * 2 if b is None else a + b, twice=twice)

    given = trace(Named(Model(), names, "logits", twice=True).eval(), (torch.randn(2, 3),) * len(names))
    assert all(given.dynamic)


def test_every_room_that_decides_a_row_is_in_the_hash():
    """A room that was renamed would drop out of the hash, and no row would go stale when it changes."""
    files = {path.relative_to(ROOT).as_posix() for path in versions.deciding()}
    for room in versions.ROOMS:
        assert any(name.startswith(f"edgeprune/{room}/") for name in files), room
    assert "benchmarks/coverage/measure.py" in files
