"""A run that starts with lossless rounds keeps the dense numbers of its channels."""

from __future__ import annotations

import json

import torch
from shop import QUICK


def test_dead_channels_go_first_and_are_explained_as_lossless(shop):
    """Channels 1 and 4 of layer 3 write zeros: they go without a score, others with one."""
    state = shop.state()
    state["3.weight"][[1, 4]] = 0.0
    if "3.bias" in state:
        state["3.bias"][[1, 4]] = 0.0
    torch.save(state, shop.path / "dead.pt")
    options = ("--model", "shopnet:build", "--input-shape", "1,8,8", "--data", "digits.npz")
    shop.finish("compress", "dead.pt", *options, "--macs", "0.5", "--rounds", "1", *QUICK, "-o", "deadrun")
    folder = shop.path / "deadrun"
    layer = json.loads(shop.run("explain", folder, "3", "--json").out)
    fates = {c["channel"]: c for c in layer["channels"]}
    for channel in (1, 4):
        assert fates[channel]["removed"]
        assert "score_nats" not in fates[channel] or fates[channel]["score_nats"] is None
    others = [c for n, c in fates.items() if n not in (1, 4)]
    assert all(c.get("score_nats") is not None for c in others)
    record = json.loads((folder / "report.json").read_text())
    kept = next(row for row in record["layers"] if row["name"] == "3")
    assert kept["after"] == sum(not c["removed"] for c in layer["channels"])
