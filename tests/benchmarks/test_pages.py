"""The tables of the docs: each mark names one, and the bootstrap behind them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.criteria import tables
from benchmarks.pages import fill

ROOT = Path(__file__).parents[2]


def test_every_mark_in_the_docs_names_a_table_and_stands_in_a_file_that_is_filled():
    """A mark that no run fills would keep whatever was typed there."""
    for page in (ROOT / "docs").glob("*.md"):
        names = [found[2].split()[0] for found in fill.MARK.finditer(page.read_text())]
        assert set(names) <= set(fill.TABLES), page.name
        assert not names or f"docs/{page.name}" in fill.DOCS, page.name


def test_a_block_without_results_says_so_and_text_outside_stays():
    """A missing file is no error; an unknown name is."""
    text = "before\n<!-- measured: grid no_such_net none -->\nold\n<!-- end -->\nafter\n"
    made = fill.filled(text)
    assert made == text.replace("old", "Not measured yet.")
    with pytest.raises(KeyError):
        fill.filled("<!-- measured: no_such_table -->\n<!-- end -->")


def cell(right, dense):
    return {"accuracy": 100 * right.mean(), "differs": tables.packed(right ^ dense)}


def test_a_paired_difference_is_the_difference_of_accuracies_within_its_interval():
    """Only shared seeds count; equal cells differ by nothing, with an interval of nothing."""
    rng = np.random.default_rng(1)
    dense, ours, theirs = (rng.random(500) < p for p in (0.9, 0.8, 0.7))
    found = {"settings": {"test_samples": 500}, "dense_right": tables.packed(dense)}
    a, b = {0: cell(ours, dense), 1: cell(ours, dense)}, {1: cell(theirs, dense), 2: cell(theirs, dense)}
    value, low, high, seeds = tables.difference(found, a, b)
    assert seeds == 1 and value == pytest.approx(100 * (ours.mean() - theirs.mean()), abs=1e-4)
    assert low < value < high
    # One seed: the interval is that of a mean of 500 differences, 1.96 sd / sqrt(500) each way.
    expected = 196 * (ours.astype(float) - theirs).std() / np.sqrt(500)
    assert (high - low) / 2 == pytest.approx(expected, rel=0.1)
    assert tables.difference(found, a, a)[:3] == (0.0, 0.0, 0.0)
    assert tables.difference(found, a, {2: a[0]}) is None
