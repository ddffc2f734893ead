"""The short ways of replaying a movement operator answer as its element ids do."""

import itertools

import numpy as np
import pytest
import torch
from generate import draw_removal
from torch import fx, nn

from edgeprune.coupling import replay
from edgeprune.coupling.analysis import analyse
from edgeprune.coupling.movement import blocks
from edgeprune.coupling.rewrite import rewrite
from edgeprune.coupling.sizes import Sizes
from edgeprune.errors import TraceError
from edgeprune.graph.module import shape_of
from edgeprune.graph.trace import trace
from edgeprune.surgery.cut import cut

aten = torch.ops.aten
CASES = {
    "merge": ((3, 4, 2), aten.reshape.default, ([3, 8],)),
    "merge all": ((3, 4, 2), aten.reshape.default, ([24],)),
    "divide": ((3, 12), aten.reshape.default, ([3, 4, 3],)),
    "regroup": ((4, 6), aten.reshape.default, ([2, 3, 4],)),
    "flatten": ((3, 4, 2), aten.flatten.using_ints, (1, 2)),
    "permute": ((3, 4, 2), aten.permute.default, ([2, 0, 1],)),
    "transpose": ((3, 4), aten.transpose.int, (0, 1)),
    "slice": ((3, 6), aten.slice.Tensor, (1, 2, 5)),
    "slice by steps": ((3, 6), aten.slice.Tensor, (1, 0, 6, 2)),
    "select": ((3, 4), aten.select.int, (1, 2)),
    "split": ((3, 6), aten.split.Tensor, (2, 1)),
    "chunk": ((3, 4), aten.chunk.default, (2, 1)),
    "unsqueeze": ((3, 4), aten.unsqueeze.default, (1,)),
    "expand": ((3, 1, 4), aten.expand.default, ([3, 5, 4],)),
    "cat": ((3, 4), aten.cat.default, None),
    "stack": ((3, 4), aten.stack.default, None),
}


class Drawn:
    """Masks drawn for every value, in the place of those that a coupling predicts."""

    def __init__(self, masks):
        self._masks = masks

    def masks(self, node, output=0):
        return {d: m for d, m in self._masks[node][output].items() if not m.all()}

    def shape(self, node, output=None):
        return Sizes.shape(self, node, output)


def graph_of(name):
    shape, target, args = CASES[name]
    graph = fx.Graph()
    sources = [graph.placeholder(n) for n in ("a", "b")[: 1 if args else 2]]
    for source in sources:
        source.meta["val"] = torch.zeros(shape)
    given = (sources[0], *args) if args else (sources, 1)
    node = graph.call_function(target, given)
    node.meta["val"] = target(*fx.node.map_arg(given, lambda n: n.meta["val"]))
    graph.output(node)
    return node, sources, fx.GraphModule({}, graph)


def drawn(rng, shape):
    """A mask on some dimensions; each keeps at least one index."""
    masks = {}
    for d, size in enumerate(shape):
        if size > 1 and rng.random() < 0.5:
            masks[d] = rng.random(size) < 0.6
            masks[d][rng.integers(size)] = True
    return masks


def observed(rng, node, sources):
    """Masks of the sources, and of the result those that its elements leave: what a coupling predicts."""
    source = drawn(rng, shape_of(sources[0].meta["val"]))
    stays = torch.ones(shape_of(sources[0].meta["val"]))
    for d, mask in source.items():
        stays.index_fill_(d, torch.from_numpy(np.flatnonzero(~mask)), 0)
    out = node.target(*fx.node.map_arg(node.args, lambda n: stays))
    found = []
    for part in [out] if isinstance(out, torch.Tensor) else out:
        masks = {}
        for d in range(part.dim()):
            left = part.movedim(d, 0).reshape(part.shape[d], -1).any(1).numpy()
            masks[d] = left if left.any() else ~left
        found.append(masks)
    return {**{s: [source] for s in sources}, node: found}


@pytest.mark.parametrize("name", CASES)
def test_short_answers_are_those_of_element_ids(name):
    """On predicted and on random masks alike; both answers occur among them."""
    node, sources, graph = graph_of(name)
    rng = np.random.default_rng(0)
    answers = set()
    for turn in range(120):
        shapes = shape_of(node.meta["val"])
        several = isinstance(shapes, list)
        masks = (
            observed(rng, node, sources)
            if turn % 2
            else {
                **{s: [drawn(rng, shape_of(s.meta["val"]))] for s in sources},
                node: [drawn(rng, s) for s in (shapes if several else [shapes])],
            }
        )
        sizes = Drawn(masks)
        try:
            new = rewrite(node, sizes)
        except TraceError:
            continue
        short = replay.commutes(node, new, sizes, graph)
        assert short == replay._moves(node, new, sizes, graph), masks
        answers.add(short)
    assert answers == {True, False}


@pytest.mark.parametrize("old", [(2, 3, 4), (6, 4), (1, 24), (2, 12, 1), (4, 6), (24,), (2, 1, 3, 4)])
@pytest.mark.parametrize("new", [(24,), (2, 3, 4), (4, 6), (3, 8), (1, 2, 12), (6, 1, 4)])
def test_blocks_cover_both_shapes_and_hold_as_many_elements(old, new):
    """In order, without a gap, and each block as many elements before as after."""
    found = list(blocks(old, new))
    assert list(itertools.chain(*(b for b, _ in found))) == list(range(len(old)))
    assert list(itertools.chain(*(a for _, a in found))) == list(range(len(new)))
    for before, after in found:
        assert np.prod([old[d] for d in before]) == np.prod([new[d] for d in after])


class Steps(nn.Module):
    """Every second channel, of pairs that leave together or of channels that do not; every second pixel."""

    def __init__(self, tied):
        super().__init__()
        self.conv, self.last, self.tied = nn.Conv2d(3, 8, 1), nn.Conv2d(4, 2, 1), tied

    def forward(self, x):
        y = self.conv(x)
        if self.tied:
            y = y.unflatten(1, (4, 2)).flip(2).flatten(1, 2) + y
        return self.last(y[:, ::2][..., 1::2, ::2])


@pytest.mark.parametrize("tied", [False, True])
def test_a_step_takes_whole_periods_or_is_pinned(tied):
    """Pairs that leave together keep their slice; single channels are pinned whatever the trials say."""
    traced = trace(Steps(tied).eval(), (torch.randn(2, 3, 4, 4),))
    couplings = analyse(traced)
    assert couplings.count == (4 if tied else 0)
    for draw in range(8):
        cut(traced, couplings, draw_removal(couplings, draw))
