"""The fuzz benchmark's book-keeping: stretches join without gaps, failures are tried again, runs go on."""

from __future__ import annotations

import json

import pytest
import torch
from blocks import Draw
from blocks_spelled import SpelledImage
from generate import Outcome, check, draw_removal
from torch import nn

from benchmarks.fuzz import networks as fuzz
from edgeprune.coupling.analysis import analyse
from edgeprune.graph.trace import run, trace
from edgeprune.surgery.cut import cut
from edgeprune.surgery.oracle import masked


def stretch(start, networks, **more):
    found = {
        **dict.fromkeys(fuzz.COUNTED, 1), "start": start, "networks": networks, "seconds": 2.0,
        "generator": "g", "torch": "t", "operators": {"aten.linear.default": 3}, "failures": [],
    }  # fmt: skip
    return found | more


def written(folder, *stretches):
    paths = [folder / f"{i}.json" for i in range(len(stretches))]
    for path, found in zip(paths, stretches, strict=True):
        path.write_text(json.dumps(found))
    return paths


def test_stretches_join_in_the_order_of_their_seeds(tmp_path):
    """Counts, operators and failures add up, whatever the order of the files."""
    failure = {"seed": 45, "what": "x"}
    paths = written(tmp_path, stretch(40, 10, failures=[failure]), stretch(0, 40))
    found = fuzz.join(paths, tmp_path / "all.json")
    assert (found["start"], found["networks"], found["removed"], found["seconds"]) == (0, 50, 2, 4.0)
    assert found["operators"] == {"aten.linear.default": 6}
    assert found["failures"] == [failure]
    assert json.loads((tmp_path / "all.json").read_text())["networks"] == 50


@pytest.mark.parametrize("other", [stretch(41, 5), stretch(39, 5), stretch(40, 5, generator="h")])
def test_a_gap_an_overlap_or_another_generator_is_refused(other, tmp_path):
    """Networks are never counted twice, nor counted without having been drawn."""
    with pytest.raises(SystemExit, match="seed"):
        fuzz.join(written(tmp_path, stretch(0, 40), other), None)


def test_a_run_goes_on_where_its_file_ends_and_tries_failures_again(tmp_path, monkeypatch):
    """Seeds that were checked are not checked again, but for the one that failed."""
    asked = []

    def check(seeds, **how):
        asked.append((list(seeds), how))
        return Outcome(networks=len(seeds))

    monkeypatch.setattr(fuzz, "check", check)
    path = tmp_path / "fuzz.json"
    fuzz.fuzz(30, 0, path)
    known = json.loads(path.read_text())
    path.write_text(json.dumps(known | {"failures": [{"seed": 7, "what": "seed 7: x"}]}))
    found = fuzz.fuzz(65, 0, path)
    assert [seeds for seeds, _ in asked] == [
        [*range(20)], [*range(20, 30)], [7], [*range(30, 40)], [*range(40, 60)], [*range(60, 65)]
    ]  # fmt: skip
    assert asked[-1][1] == {"full": False, "other": True}
    assert (found["networks"], found["failures"]) == (65, [])


def test_a_failure_that_went_away_leaves_the_file_even_where_nothing_is_left_to_run(tmp_path, monkeypatch):
    """What failed in a bundle only is tried in its bundle, up to the end of it."""
    asked = []

    def check(seeds, **how):
        asked.append(list(seeds))
        return Outcome(networks=len(seeds))

    monkeypatch.setattr(fuzz, "check", check)
    path = tmp_path / "fuzz.json"
    fuzz.fuzz(40, 0, path)
    failures = [{"seed": 20, "what": "seeds 20..39 together: x"}, {"seed": 5, "what": "seed 5: x"}]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"failures": failures}))
    fuzz.fuzz(40, 0, path)
    assert asked[2:] == [[5], [*range(20, 40)]]
    assert json.loads(path.read_text())["failures"] == []


def test_a_new_generator_keeps_the_record_of_the_one_before(tmp_path, monkeypatch):
    """The old record moves aside, counts for coverage, and is gone on with where its generator returns."""
    monkeypatch.setattr(
        fuzz, "check", lambda seeds, **how: Outcome(networks=len(seeds), operators={"aten.einsum.default": 1})
    )
    path = tmp_path / "fuzz.json"
    monkeypatch.setattr(fuzz, "generator", lambda: "old")
    fuzz.fuzz(60, 0, path)
    monkeypatch.setattr(fuzz, "check", lambda seeds, **how: Outcome(networks=len(seeds)))
    monkeypatch.setattr(fuzz, "generator", lambda: "new")
    found = fuzz.fuzz(40, 0, path)
    assert (found["generator"], found["networks"], found["operators"]) == ("new", 40, {})
    assert [(r["generator"], r["networks"]) for r in found["earlier"]] == [("old", 60)]
    assert found["rules_covered"] == 1
    assert json.loads(path.read_text()) == found
    monkeypatch.setattr(fuzz, "generator", lambda: "old")
    found = fuzz.fuzz(80, 0, path)
    assert (found["networks"], [r["generator"] for r in found["earlier"]]) == (80, ["new"])


def test_what_was_not_covered_has_a_reason():
    """An operator that no trace holds is told from one that was not drawn yet."""
    found = fuzz.coverage({"operators": {"aten.linear.default": 2}, "earlier": []})
    assert found["rules_covered"] == 1
    assert "reshape" in found["rules_not_covered"]["aten.view.default"]
    assert found["rules_not_covered"]["aten.einsum.default"] == "not drawn yet"


def test_operators_that_no_network_had_are_named():
    """A rule without a network is not silently counted as held."""
    seen, unseen = fuzz.covered({"aten.linear.default": 2, "aten.no_such.default": 1})
    assert seen == {"aten.linear.default": 2}
    assert "aten.einsum.default" in unseen
    assert "aten.linear.default" not in unseen


def test_shuffles_that_trial_removals_miss_are_pinned_or_told_apart():
    """A pixel shuffle that another undoes would lose half of each block: the fuzz found it in this bundle."""
    assert not check(range(840, 860), draws=2).failures


def test_steps_that_trial_removals_miss_are_pinned():
    """Every second of six channels: half of the removals leave a slice with a step, and trials meet those."""
    assert not check([4120], draws=8).failures


class Made(nn.Module):
    """One spelling between two layers."""

    def __init__(self, kind):
        super().__init__()
        self.inner, self.head = SpelledImage(Draw(0), 6, 4), nn.Conv2d(6, 2, 1)
        self.inner.kinds = [kind]

    def forward(self, x):
        return self.head(self.inner(x))


@pytest.mark.parametrize("kind", ["copy_empty", "full", "new_full", "new_ones"])
def test_tensors_made_for_a_free_batch_narrow_with_what_they_meet(kind):
    """They stay operators only where the batch is free, which few of the fuzz's networks have."""
    torch.manual_seed(0)
    traced = trace(Made(kind).double().eval(), (torch.randn(2, 6, 4, 4, dtype=torch.float64),))
    couplings = analyse(traced)
    removed = draw_removal(couplings, 1) & couplings.exact
    assert removed.any()
    small = run(cut(traced, couplings, removed).graph, traced.inputs)[0]
    assert torch.allclose(small, masked(traced, couplings, removed)[0], rtol=0, atol=1e-9)
