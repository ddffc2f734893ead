"""What `explain` reads out of a run: fates, units and reasons, and nothing that was not recorded."""

from __future__ import annotations

import json

import pytest

from edgeprune.errors import RunError
from edgeprune.report import render_explanation
from edgeprune.report.removed import LOSSLESS, explanation


@pytest.fixture
def run(tmp_path):
    """A run of two layers by l2: one scored channel gone, one gone without a score, one kept, one pinned."""
    chance = {"value": 2.0, "low": 1.5, "high": 2.5}
    scored = {"criterion": "l2", "unit": "1", "estimator": "norm", "samples": 0, "of": 2, "random": chance}
    step = {"round": 2, "goals": {"params": 0.25}, "from": 1}
    record = {
        "schema": 1,
        "channels": {"stem": [0, 1, 2], "head": [-1]},
        "members": {
            "stem.weight": [[0, 1, 2], None],
            "head.weight": [[-1], [0, 1, 2]],
            "stem.bias": [[0, 1, 2]],
        },
        "components": [
            {
                "component": 0,
                "removed": True,
                "group": "stem",
                "score": 1.0,
                "rank": 1,
                "step": step,
                **scored,
            },
            {"component": 1, "removed": True, "group": "stem"},
            {"component": 2, "removed": False, "group": "stem", "score": 3.0, "rank": 2, **scored},
        ],
    }
    (tmp_path / "removed.json").write_text(json.dumps(record))
    (tmp_path / "report.json").write_text(json.dumps({"pinned": [{"channels": 1, "reason": "output 'y'"}]}))
    return tmp_path


def test_a_norm_is_not_called_nats(run):
    """A score without a unit is a plain number, and chance is given in the same one."""
    text = render_explanation(explanation(run, "stem:0"))
    assert "nats" not in text and "1 by l2, 1st lowest of 2" in text
    assert "would have lost 2 (1.5 to 2.5): this channel is clearly cheaper" in text
    assert "step 2, for 25.0% of the dense parameters" in text
    assert "head.weight dim 1[0]" in text and "stem.bias[0]" in text


def test_a_channel_that_went_without_loss_says_so(run):
    """No score was needed, and none is invented."""
    entry = explanation(run, "stem:1")
    assert entry["reason"] == LOSSLESS and "score" not in entry
    assert "none needed" in render_explanation(entry)


def test_a_layer_lists_each_channel_and_a_pinned_one_has_its_reason(run):
    """Before and after count the channels; what is pinned names why."""
    layer = explanation(run, "stem")
    assert (layer["before"], layer["after"]) == (3, 1)
    assert [c["removed"] for c in layer["channels"]] == [True, True, False]
    assert "3 → 1 channels" in render_explanation(layer)
    assert explanation(run, "head:0")["reason"] == "pinned: output 'y'"


def test_a_record_of_another_form_is_refused(run):
    """A file that compress did not write is one error, not a KeyError."""
    (run / "removed.json").write_text('{"channels": {"stem": [0]}}')
    with pytest.raises(RunError, match=r"removed\.json: schema: missing"):
        explanation(run, "stem:0")
