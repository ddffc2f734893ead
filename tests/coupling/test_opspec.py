"""The table of operators: complete, and in step with what a file may call."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgeprune.coupling import opspec
from edgeprune.coupling.analysis import analyse
from edgeprune.coupling.operators import TABLE, OpSpec, spec_of
from edgeprune.coupling.rules import unknown
from edgeprune.errors import TraceError
from edgeprune.graph.trace import trace
from edgeprune.simplify.flow import FOLLOW
from edgeprune.surgery.cut import cut

aten = torch.ops.aten


def cut_one(traced):
    couplings = analyse(traced)
    return cut(traced, couplings, np.arange(couplings.count) == 0)


def net():
    return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 1)).eval()


def test_every_operator_with_sizes_says_how_they_follow():
    """A size in the schema (SymInt) needs a rewrite, or the word that it never shrinks."""
    forgotten = [
        str(target)
        for target, spec in TABLE.items()
        if spec.rewrite is None
        and any("SymInt" in str(a.type) or "SymInt" in repr(a.real_type) for a in target._schema.arguments)
    ]
    assert forgotten == []


def test_every_movement_has_a_lossless_analysis():
    """What only moves elements moves marks and labels as well; a forgotten entry would claim less."""
    assert [str(t) for t, s in TABLE.items() if s.replay and s.lossless not in ("move", "join")] == []


def test_every_lossless_analysis_that_is_named_exists():
    """A misspelt kind would silently count as none."""
    assert {s.lossless for s in TABLE.values() if s.lossless} == set(FOLLOW)


def test_an_overload_cannot_be_registered_twice():
    """The second entry would win by the order of imports."""
    with pytest.raises(ValueError, match=r"aten\.cat\.default is registered twice"):
        opspec.operators(aten.cat.default)(unknown)


def test_pointwise_operators_need_no_entry_of_their_own():
    """torch's tag is enough; an operator without tag and entry is unknown."""
    assert aten.sin.default not in TABLE
    assert spec_of(aten.sin.default).lossless == "elementwise"
    assert spec_of(aten.histc.default) is None


@pytest.mark.parametrize("step", ["rule", "rewrite"])
def test_an_exception_inside_an_entry_names_operator_node_and_line(step, monkeypatch):
    """Never a bare IndexError: the message says where, and the cause is chained."""

    def broken(*args):
        raise IndexError("tuple index out of range")

    known = TABLE[aten.conv2d.default]
    entry = OpSpec(broken, lossless="convolution") if step == "rule" else OpSpec(known.rule, broken)
    monkeypatch.setitem(TABLE, aten.conv2d.default, entry)
    traced = trace(net(), (torch.randn(2, 3, 4, 4),))
    with pytest.raises(TraceError, match=r"aten\.conv2d at .*node conv2d.*IndexError: tuple index") as caught:
        cut_one(traced)
    assert isinstance(caught.value.__cause__, IndexError)
    assert caught.value.tip
