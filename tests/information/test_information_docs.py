"""The documentation's code runs as printed."""

from __future__ import annotations

import re
from pathlib import Path


def test_documented_code_runs():
    """Every Python block of docs/information.md runs in order, in one namespace."""
    text = (Path(__file__).parents[2] / "docs" / "information.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.S)
    assert len(blocks) >= 2
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "docs/information.md", "exec"), names)
    assert names["total"].samples == 5000
    assert names["nats"].shape == (64,)
    assert names["q"].shape == (64,)


def test_every_public_name_is_documented():
    """Each function and accumulator of the package is named in docs/information.md."""
    from edgeprune import information

    text = (Path(__file__).parents[2] / "docs" / "information.md").read_text(encoding="utf-8")
    results = {
        "Codes",
        "Consumer",
        "Edges",
        "Elimination",
        "Intervals",
        "Moments",
        "Selection",
        "TableStatistics",
    }
    missing = [
        name
        for name in information.__all__
        if name not in results | {"sketch_rows"} and f"`{name}" not in text
    ]
    assert missing == []
