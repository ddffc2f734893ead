"""Random small networks over every covered operator, and the property that each must have.

    failures = check(range(100, 110))

A seed fixes a network. Several share one export (`torch.export` costs more than the check),
each with its own input, weights and output. The property: removing components gives what
silencing them gives, in float64 within 1e-9, by three oracles; and the cut graph is certified.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import blocks_mixing
import blocks_rare
import blocks_sequences
import blocks_spelled
import numpy as np
import torch
from blocks import IMAGE, Draw, chain
from blocks_tokens import TOKENS
from blocks_volumes import CONV, VOLUMES
from joins import Pair
from nets import quick_trace, settle
from torch import nn

from edgeprune.coupling.analysis import analyse
from edgeprune.coupling.components import FactorChoice
from edgeprune.errors import EdgepruneError
from edgeprune.graph.trace import run, trace
from edgeprune.surgery.cut import cut
from edgeprune.surgery.oracle import masked, zeroed

TOLERANCE = 1e-9
FURTHER = (blocks_mixing, blocks_rare, blocks_sequences, blocks_spelled)  # importing them added their blocks
KINDS = ("image", "image", "image", "tokens", "tokens", "words", "vector", "signal", "volume", "pair")


class Network(nn.Module):
    """A stem, random blocks and a head, all drawn from one seed."""

    def __init__(self, seed, *, inplace=False):
        super().__init__()
        rng = Draw(seed, inplace=inplace)
        torch.manual_seed(seed)
        self.kind = rng.choice(KINDS)
        depth = rng.randint(1, 2)
        if self.kind == "pair":
            self.inner = Pair(rng)
            self.shape = self.inner.shape
        elif self.kind == "image":
            size = rng.choice((4, 6, 8))
            self.shape, self.stem = (3, size, size), nn.Conv2d(3, 6, 3, padding=1)
            self.body, c, s = chain(rng, 6, size, depth + 1, IMAGE)
            self.tail = rng.choice(("mean", "flatten", "max", "map"))
            self.head = (
                nn.Conv2d(c, 3, 1)
                if self.tail == "map"
                else nn.Linear(c * s * s if self.tail == "flatten" else c, 3)
            )
        elif self.kind in ("signal", "volume"):
            rng.rank = rank = 1 if self.kind == "signal" else 3
            self.shape, self.stem = (3, *(4,) * rank), CONV[rank](3, 6, 3, padding=1)
            self.body, c, s = chain(rng, 6, 4, depth + 1, VOLUMES)
            self.tail = rng.choice(("mean", "flatten"))
            self.head = nn.Linear(c * s**rank if self.tail == "flatten" else c, 3)
        else:
            length = rng.choice((4, 6))
            self.shape = (length, 5)
            self.stem = nn.Embedding(7, 8) if self.kind == "words" else nn.Linear(5, 8)
            if self.kind == "words":
                self.shape = ("int", length)
            if self.kind == "vector":
                self.shape, length = (5,), 1
            self.body, c, t = chain(rng, 8, length, depth, TOKENS)
            tails = ("mean", "flatten", "first") + (("tied",) if self.kind == "words" and c == 8 else ())
            self.tail = rng.choice(tails)
            self.head = nn.Linear(c * t if self.tail == "flatten" else c, 3)

    def input(self):
        """One tensor, or a tuple for a network with two inputs."""
        shapes = self.shape if self.kind == "pair" else (self.shape,)
        made = tuple(
            torch.randint(0, 7, (2, *s[1:])) if s[0] == "int" else torch.randn(2, *s, dtype=torch.float64)
            for s in shapes
        )
        return made if self.kind == "pair" else made[0]

    def forward(self, x):
        if self.kind == "pair":
            return self.inner(*x)
        x = self.stem(x)
        if self.kind in ("image", "signal", "volume"):
            x = self.body(x)
            if self.tail == "max":
                x = x.amax((2, 3))
            elif self.tail != "map":
                x = x.flatten(2).mean(2) if self.tail == "mean" else torch.flatten(x, 1)
            return self.head(x)
        x = self.body(x.unsqueeze(1) if self.kind == "vector" else x)
        if self.tail == "tied":
            return torch.nn.functional.linear(x, self.stem.weight)
        x = {"mean": lambda: x.mean(1), "flatten": lambda: x.flatten(1), "first": lambda: x[:, 0]}[
            self.tail
        ]()
        return self.head(x)


class Bundle(nn.Module):
    """Independent networks side by side, so that one export serves all."""

    def __init__(self, seeds, *, inplace=False):
        super().__init__()
        self.networks = nn.ModuleList(settle(Network(seed, inplace=inplace)) for seed in seeds)

    def forward(self, inputs):
        return [network(x) for network, x in zip(self.networks, inputs, strict=True)]


@dataclass
class Outcome:
    """What a run of the property saw: failures by seed, and how much was really removed."""

    networks: int = 0
    removed: int = 0
    components: int = 0
    moved: int = 0  # networks whose output changed, so that agreement proves something
    operators: Counter[str] = field(default_factory=Counter)  # nodes by overload, bundles traced together
    failures: list[str] = field(default_factory=list)


def check(seeds, *, full=False, other=False, draws=1):
    """Trace the networks of these seeds together and hold each to the property.

    `full` traces with a free batch and in-place operators, `other` frees head width and
    positions within groups instead of heads and groups.
    """
    seeds = list(seeds)
    outcome = Outcome(networks=len(seeds))
    try:
        bundle = Bundle(seeds, inplace=full).double().eval()
        torch.manual_seed(seeds[0])
        inputs = [network.input() for network in bundle.networks]
        owner = _owners(bundle, inputs, seeds)
        traced = trace(bundle, (inputs,)) if full else quick_trace(bundle, (inputs,))
        choice = FactorChoice("width", "position") if other else FactorChoice()
        couplings = analyse(traced, choice=choice)
        plain = run(traced.graph, traced.inputs)
        outcome.operators.update(
            str(node.target) for node in traced.graph.graph.nodes if node.op == "call_function"
        )
        moved = set()
        for draw in range(draws):
            removed = draw_removal(couplings, seeds[0] + draw)
            cut(traced, couplings, removed)  # certified whatever is removed
            for allowed, oracles in _oracles(traced, couplings):
                some = removed & allowed
                outputs = run(cut(traced, couplings, some).graph, traced.inputs)
                outcome.removed += int(some.sum())
                outcome.components += couplings.count
                for what, oracle in oracles.items():
                    for seed, out, want in zip(owner, outputs, oracle(some), strict=True):
                        worst = (out - want).abs().max().item()
                        if not worst <= TOLERANCE * (1 + want.abs().max().item()):
                            outcome.failures.append(
                                f"seed {seed}: {what} differs by {worst:.3g} (draw {draw})"
                            )
                for seed, out, before in zip(owner, outputs, plain, strict=True):
                    if (out - before).abs().max().item() > 1e-6:
                        moved.add(seed)
        outcome.moved = len(moved)
    except (
        EdgepruneError,
        RuntimeError,
        TypeError,
        ValueError,
        IndexError,
        KeyError,
        AssertionError,
    ) as error:
        if len(seeds) == 1:
            outcome.failures.append(f"seed {seeds[0]}: {type(error).__name__}: {error}")
            return outcome
        for seed in seeds:  # find which network it was
            alone = check([seed], full=full, other=other, draws=draws)
            outcome.failures += alone.failures
            for key in ("removed", "components", "moved", "operators"):
                setattr(outcome, key, getattr(outcome, key) + getattr(alone, key))
        if not outcome.failures:
            outcome.failures.append(
                f"seeds {seeds[0]}..{seeds[-1]} together: {type(error).__name__}: {error}"
            )
    return outcome


def _owners(bundle, inputs, seeds):
    """The seed that each output belongs to, in the order in which a graph gives outputs."""
    with torch.no_grad():
        given = bundle(inputs)
    return [s for s, out in zip(seeds, given, strict=True) for _ in torch.utils._pytree.tree_leaves(out)]


def draw_removal(couplings, seed):
    """Between a tenth and most of the components, never all of a dimension."""
    rng = np.random.default_rng(seed)
    removed = rng.random(couplings.count) < rng.uniform(0.1, 0.8)
    while empty := couplings.emptied(removed):
        for channel_map in empty:
            removed[rng.choice(couplings.channel_maps[channel_map])] = False
    return removed


def _oracles(traced, couplings):
    def silenced(readers_only):
        return lambda removed: run(
            zeroed(traced, couplings, removed, readers_only=readers_only).graph, traced.inputs
        )

    yield couplings.exact, {"readers silenced": silenced(True), "parameters silenced": silenced(False)}
    yield (
        couplings.exact | couplings.contracted,
        {"values silenced": lambda removed: masked(traced, couplings, removed)},
    )
