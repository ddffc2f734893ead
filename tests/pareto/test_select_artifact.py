"""Which file of a front is shipped, and what is said of 8 bits on top of a plan."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from torch import fx, nn

from edgeprune.pareto import front, select_artifact
from edgeprune.pareto.quantized_variants import _widest_first
from edgeprune.records import Interval
from edgeprune.session.budget import Budget
from edgeprune.session.options import Options


def point(name, ratio, drop, *, macs=1.0, int8=False, recovery="fine-tuned"):
    """A point of the front as measured."""
    artifact = SimpleNamespace(path=Path(f"{name}.onnx"), bytes=1000)
    width = Interval(ratio, ratio - 0.01, ratio + 0.01)
    loss = Interval(drop, drop - 0.1, drop + 0.1)
    return front.Candidate(name, artifact, macs, 1, recovery, int8, drop=loss, ratio=width)


def prepared():
    """A dense network of 10 MACs and no parameters."""
    graph = fx.symbolic_trace(nn.Identity())
    return SimpleNamespace(couplings=SimpleNamespace(macs=lambda: 10.0), trace=SimpleNamespace(graph=graph))


OWN = point("shipped", 0.5, 0.2)
EIGHT = point("shipped-int8", 0.3, 0.9, int8=True)
TWICE = Options(budget=Budget(speedup=2.0), int8="on")


def test_eight_bits_are_picked_only_where_faster_and_within_the_budget():
    """auto: clearly faster and the bound on the loss within --max-drop; without a budget never."""
    quick = point("shipped-int8", 0.3, 0.5, int8=True)
    slow, harmful = point("shipped-int8", 0.495, 0.2, int8=True), point("shipped-int8", 0.3, 1.5, int8=True)
    tight = Options(budget=Budget(max_drop=1.0))
    assert select_artifact.preferred_form([OWN, quick], tight) is quick
    assert select_artifact.preferred_form([OWN, slow], tight) is OWN
    assert select_artifact.preferred_form([OWN, harmful], tight) is OWN
    assert select_artifact.preferred_form([OWN, quick], tight, on_target=False) is OWN
    assert select_artifact.preferred_form([OWN, quick], Options(budget=Budget(macs=0.5))) is OWN
    assert (
        select_artifact.preferred_form([OWN, harmful], Options(budget=Budget(macs=0.5), int8="on")) is harmful
    )


def test_a_wider_network_in_8_bits_takes_the_place_of_a_plan_that_went_past_the_goal():
    """It has to meet the goal and to lose less; of several the one that loses least."""
    wide = point("plan-62-int8", 0.48, 0.3, macs=2.0, int8=True)
    wider = point("plan-70-int8", 0.50, 0.1, macs=2.5, int8=True)
    late = point("plan-80-int8", 0.60, 0.0, macs=3.0, int8=True)
    worse = point("round-1-int8", 0.45, 1.2, macs=2.0, int8=True)
    narrow = point("plan-28-int8", 0.2, 0.0, macs=0.5, int8=True)
    every = [OWN, EIGHT, wide, late, worse, narrow, replace(wide, name="plan-62", int8=False)]
    assert select_artifact.wider_int8(prepared(), every, EIGHT, 0.5, TWICE) is wide
    assert select_artifact.wider_int8(prepared(), [*every, wider], EIGHT, 0.5, TWICE) is wider
    assert (
        select_artifact.wider_int8(prepared(), [OWN, EIGHT, late, worse, narrow], EIGHT, 0.5, TWICE) is None
    )


def test_a_plan_that_lands_on_its_goal_or_a_further_budget_keeps_its_place():
    """Nothing is swapped for a float file, without a goal, on the goal, or beyond another budget."""
    wide = point("plan-62-int8", 0.48, 0.3, macs=6.0, int8=True)
    every = [OWN, EIGHT, wide]
    assert select_artifact.wider_int8(prepared(), every, OWN, 0.5, TWICE) is None
    assert select_artifact.wider_int8(prepared(), every, EIGHT, None, TWICE) is None
    assert select_artifact.wider_int8(prepared(), every, EIGHT, 0.3, TWICE) is None
    for further in ({"macs": 0.5}, {"size_mb": 0.0001}, {"max_drop": 0.35}, {"deadline_ms": 5.0}):
        tight = Options(budget=Budget(speedup=2.0, **further), int8="on")
        assert select_artifact.wider_int8(prepared(), every, EIGHT, 0.5, tight) is None
    assert select_artifact.wider_int8(prepared(), every, EIGHT, 0.5, TWICE) is wide


def test_a_gain_beyond_the_float_plan_is_stated():
    """Float and 8 bits both with their speed; the wider network with its loss against the plan's."""
    (said,) = select_artifact.gain_beyond_plan([OWN, EIGHT], EIGHT, TWICE)
    assert said == (
        "--speedup 2 was planned in float; 8 bits are a gain beyond that plan: 2.00 times as fast as"
        " dense in float, 3.33 in 8 bits"
    )
    wide = point("plan-62-int8", 0.48, 0.3, macs=2.0, int8=True, recovery="closed form")
    (said,) = select_artifact.gain_beyond_plan([OWN, EIGHT, wide], wide, TWICE)
    assert (
        "plan-62-int8 is shipped instead, of a wider network (closed form): it meets the goal at 2.08" in said
    )
    assert "+0.30 points on validation, not +0.90" in said
    assert select_artifact.gain_beyond_plan([OWN, EIGHT], OWN, TWICE) == ()
    assert select_artifact.gain_beyond_plan([OWN, EIGHT], EIGHT, Options(budget=Budget(macs=0.5))) == ()
    (said,) = select_artifact.gain_beyond_plan([OWN, EIGHT], EIGHT, TWICE, on_target=False)
    assert "times as fast" not in said


def test_only_equal_recovery_is_held_against_each_other():
    """A closed-form plan that is faster and loses less does not beat a fine-tuned file, nor the reverse."""
    tuned, plan = point("a", 0.5, 0.5), point("b", 0.4, 0.1, recovery="closed form")
    assert not front._dominates(plan, tuned) and not front._dominates(tuned, plan)
    assert front._dominates(point("c", 0.4, 0.1), tuned)


def test_wider_networks_get_their_8_bits_first():
    """The nearest wider one before the others, then the narrower ones."""
    points = [point(n, 0.5, 0.1, macs=m) for n, m in (("own", 5), ("a", 2), ("b", 9), ("c", 6), ("d", 4))]
    assert [p.name for p in _widest_first(points)] == ["c", "b", "d", "a"]


@pytest.fixture(scope="module")
def swapped(stripes, tmp_path_factory):
    """A run that ships the 8-bit form of its widest plan, as if that had met the goal with less loss."""
    import edgeprune

    def widest(prepared, points, chosen, asked, options):
        return max((p for p in points if p.int8 and p.name.startswith("plan-")), key=lambda p: p.macs)

    output = tmp_path_factory.mktemp("swap") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(select_artifact, "wider_int8", widest)
        net, data = stripes
        return edgeprune.compress(
            net, data, macs=0.3, max_drop=90, int8="on", front=2, epochs=0, rounds=1, calibration=64, align=1,
            bench_seconds=0.3, objective="macs", output=output,
        )  # fmt: skip


def test_a_network_shipped_instead_is_the_one_of_every_file_of_the_run(swapped):
    """Widths, MACs, parameters, model.pt2, the recipe and removed.json are of the network in model.onnx."""
    from edgeprune.frontend.load import load_model

    report, folder = swapped.report, swapped.folder
    chosen = next(p for p in report["front"] if p["chosen"])
    assert chosen["name"].startswith("plan-") and chosen["file"] == "model.onnx"
    assert report["macs"]["shipped"] == chosen["macs"] and report["params"]["shipped"] == chosen["params"]
    removed = json.loads((folder / "removed.json").read_text())
    gone = sum(entry["removed"] for entry in removed["components"])
    steps = [entry["step"]["round"] for entry in removed["components"] if entry["removed"]]
    assert gone == sum(x["before"] - x["after"] for x in report["layers"])
    assert set(steps) == {2} and report["rounds"][-1]["round"] == 2
    program = load_model(folder / "model.pt2").program
    shapes = [tuple(t.shape) for name, t in program.state_dict.items() if t.dim() == 4]
    assert [s[0] for s in shapes] == [x["after"] for x in report["layers"] if x["kind"] == "conv"]
    recipe = json.loads((folder / "recipe.json").read_text())
    assert len(recipe["tensors"]) > 0


def test_the_planned_network_stays_a_choice_under_that_name(swapped):
    """Nothing is lost: the plan's float and 8-bit files are in front/, as planned and planned-int8."""
    names = {p["name"]: p for p in swapped.report["front"]}
    assert {"planned", "planned-int8"} <= set(names) and "shipped" not in names
    for point in names.values():
        assert (swapped.folder / point["file"]).stat().st_size == point["file_bytes"]
    chosen = next(p for p in names.values() if p["chosen"])
    assert names[chosen["name"].removesuffix("-int8")]["file"] == "model-float.onnx"
