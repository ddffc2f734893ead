"""docs/coverage.md holds every row of benchmarks/results/coverage.json and says how old each is."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import coverage_summary

ROOT = Path(__file__).parents[2]
ROWS = json.loads((ROOT / "benchmarks/results/coverage.json").read_text())["rows"]
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
    assert coverage_summary.stale(rows, ["a", "b", "hf_c", "d"], "now") == ["b"]
    assert "measured by other code than this, 1" in coverage_summary.summary(rows, list(rows), "now")
    page = coverage_summary.page(rows, [*rows, "d"], "now")
    assert "2 of 4 rows pass" in page and "2 of 3 were measured by the code that this page" in page
    assert "| a | pass, recentred | 4 | 0.500 |" in page
    (old,) = [line for line in page.splitlines() if line.startswith("| b ")]
    assert old.endswith("○ abc |")
    assert "| hf_c | died / x |" in page and "| d | never measured |" in page
