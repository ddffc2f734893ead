"""docs/int8.md says what benchmarks/results/int8.json holds, its warnings and its gaps included."""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/int8.md").read_text(encoding="utf-8")
FOUND = json.loads((ROOT / "benchmarks/results/int8.json").read_text())


def test_every_ratio_of_the_table_is_a_recorded_one():
    """The rows of the document and of the record are the same, network by network and file by file."""
    rows, network = {}, ""
    for line in TEXT.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 7 and cells[1] in ("dense float", "pruned float", "dense int8", "pruned int8"):
            network = cells[0] or network
            rows[network, cells[1]] = cells[4]
    assert rows == {(r["network"], r["file"]): r["time of dense float"] for r in FOUND["rows"]}


def test_a_busy_machine_is_owned_up_to():
    """Each load average that a run warned of stands in the text, and no claim of an idle machine does."""
    warnings = [text for more in FOUND["details"].values() for text in more["warnings"]]
    loads = [m[1] for text in warnings if (m := re.search(r"load average (\S+)", text))]
    if loads:
        assert "nothing else running" not in TEXT
        assert all(load in TEXT for load in loads)


def test_a_trained_network_without_a_row_is_named():
    """Every checkpoint of the examples is in the table or in the sentence that says what is not."""
    trained = {p.stem for p in (ROOT / "examples/checkpoints").glob("*.safetensors")} - {"demo_cnn"}
    without = re.search(r"without a row: (.*?)\n\n", TEXT, re.S)
    named = set(re.findall(r"[a-z]+_[a-z]+", without[1])) if without else set()
    measured = {row["network"] for row in FOUND["rows"]}
    assert trained - measured == named & trained
    assert not named & measured
