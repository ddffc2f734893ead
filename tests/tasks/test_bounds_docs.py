"""docs/bounds.md holds what `make bench-bounds` measured, and the proven bounds cover there."""

from __future__ import annotations

from benchmarks.bounds import page
from benchmarks.recording import known_rows


def test_the_tables_are_those_of_the_result():
    """Filling the marks again changes nothing, and every table is on the page."""
    text = (page.DOCS / "bounds.md").read_text()
    rows = known_rows("bounds")
    assert {m[2] for m in page.MARK.finditer(text)} == set(page.TABLES)
    assert page.MARK.sub(lambda m: m[1] + page.TABLES[m[2]](rows) + m[3], text) == text


def test_every_proven_bound_covers_and_the_check_can_fail():
    """No row lies below nominal by more than its Monte Carlo error allows; one that does is named."""
    rows = known_rows("bounds")
    assert {row["kind"] for row in rows} >= set(page.PROVEN)
    assert page.below_nominal(rows) == []
    bad = {**next(r for r in rows if r["kind"] == "0/1"), "coverage": 0.899}
    assert page.below_nominal([*rows, bad]) == [bad]


def test_the_earlier_bound_did_not_cover():
    """What the exact bound replaced covered 90% in name: 0.20 of the time at 229 samples and 0.1% losses."""
    rows = [r for r in known_rows("bounds") if r["kind"] == "0/1"]
    (row,) = [r for r in rows if (r["samples"], r["discordance"], r["loss"]) == (229, 0.001, 0.001)]
    assert row["coverage_before"] < 0.25 and row["coverage"] > 0.99
