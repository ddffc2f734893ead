"""Turn the timer's answers into the points of a profile.

Guarantees: every lot is scaled by the dense network's operators in it, so that a machine that slows down
does not bend the points; what another machine or runtime measured is not mixed in.
Elsewhere: which networks are run and where (measuring), which operator is whose (sites).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprune.coupling.components import Couplings
from edgeprune.deploy.remote import Board
from edgeprune.errors import BenchError
from edgeprune.graph.module import state_tensors
from edgeprune.graph.trace import Trace
from edgeprune.latency.profile_compatibility import fingerprint
from edgeprune.latency.profiles import Profile, ProfiledLayer, ProfilePoint, Whole, Width
from edgeprune.latency.resizing import Follows, Resizable
from edgeprune.latency.sites import Owners, Site
from edgeprune.measure.timings import trust_warnings
from edgeprune.records import Interval, Target


class Collected:
    """Points so far, and how to add to them."""

    def __init__(
        self,
        network: Resizable,
        sites: Sequence[Site],
        traced: Trace,
        couplings: Couplings,
        earlier: Profile | None,
    ) -> None:
        self.sites, self.owners = sites, Owners(network, sites)
        self.names = _width_names(couplings, state_tensors(traced.graph))
        self.network = fingerprint(traced, couplings)
        self.wholes: list[Whole] = list(earlier.wholes) if earlier else []
        self.points: list[ProfilePoint] = list(earlier.points) if earlier else []
        self.lots: list[tuple[float, float]] = list(earlier.lots) if earlier else []
        self.layers: tuple[ProfiledLayer, ...] = earlier.layers if earlier else ()
        self.shapes: tuple[str, ...] = earlier.shapes if earlier else ()
        self.warnings: set[str] = set(earlier.warnings) if earlier else set()
        self.machine: dict[str, Any] = dict(earlier.machine) if earlier else {}

    def add(self, answer: Mapping[str, Any], kept: Sequence[npt.NDArray[np.int64]]) -> None:
        """Take in the answer of one call; `kept` are the kept counts of its networks after the dense one."""
        if any(answer["machine"].get(name) != value for name, value in self.machine.items()):
            raise BenchError(
                "the profile was begun on another machine or runtime", tip="give another output file"
            )
        self.machine = dict(answer["machine"])
        states = answer["before"], answer["after"]
        self.warnings |= set(trust_warnings(*states, answer["cores"], answer["threads"]))
        turn = iter(kept)
        for part in answer["parts"]:
            base, *others = part
            if not self.layers:
                self._describe(base)
            wall = _middle(np.asarray(base["wall_ns"], dtype=np.float64) / 1e6).value
            self.lots.append((wall, self._total(base)))
            drift = self.lots[0][1] / self.lots[-1][1]
            if not self.wholes:
                self._take(base, [(s.inputs.dense, s.outputs.dense) for s in self.sites], drift)
            for one in others:
                counts = next(turn)
                self._take(one, [(s.inputs.at(counts), s.outputs.at(counts)) for s in self.sites], drift)

    def _take(self, one: Mapping[str, Any], widths: Sequence[tuple[int, int]], drift: float) -> None:
        wall = np.asarray(one["wall_ns"], dtype=np.float64) / 1e6
        parts, head = self.owners.split(one["nodes"])
        for layer, (pair, operators) in enumerate(zip(widths, parts, strict=True)):
            if operators:
                shape = self.shapes.index(self.layers[layer].shape)
                self.points.append(ProfilePoint(shape, *pair, len(operators), _sum_ms(operators, drift)))
        before = _sum_ms(head, drift).value if head else 0.0
        widths_of = tuple((int(i), int(o)) for i, o in widths)
        lot = len(self.lots) - 1
        self.wholes.append(Whole(widths_of, _middle(wall), self._total(one), before, len(one["nodes"]), lot))

    def _total(self, one: Mapping[str, Any]) -> float:
        """All operators of a network, ms."""
        parts, head = self.owners.split(one["nodes"])
        return sum(_sum_ms(p, 1.0).value for p in [*parts, head] if p)

    def _describe(self, base: Mapping[str, Any]) -> None:
        """Name the layers and their shapes from the dense network's run."""
        parts, _ = self.owners.split(base["nodes"])
        layers = []
        for site, operators in zip(self.sites, parts, strict=True):
            first_shape = operators[0]["inputs"][0][2:] if operators and operators[0]["inputs"] else []
            size = "x".join(map(str, first_shape))
            after = [o["op"] for o in operators[1:] if "Reorder" not in o["op"]]
            fused = len(operators[0]["inputs"]) if operators else 0
            text = f"{site.traits} {site.inputs.dense}->{site.outputs.dense}"
            text += f" at {size}" * bool(size) + f" + {fused - 2} operand" * (fused > 2)
            text += f" then {', '.join(after)}" * bool(after)
            ends = [self._width(f) for f in (site.inputs, site.outputs)]
            layers.append(ProfiledLayer(site.node, site.operator, text, *ends))
        self.layers = tuple(layers)
        self.shapes = tuple(dict.fromkeys(layer.shape for layer in layers))

    def _width(self, follows: Follows) -> Width:
        if follows.channel_map is None or follows.channel_map not in self.names:
            return Width(follows.dense)
        tensor, dim = self.names[follows.channel_map]
        return Width(follows.dense, tensor, dim, follows.times)

    def profile(
        self, *, target: Target, board: Board | None, threads: int, model: str, planned: int, request: str
    ) -> Profile:
        return Profile(
            target=target.name,
            board=board.remote.destination if board else None,
            machine=self.machine,
            threads=threads,
            date=time.strftime("%Y-%m-%d", time.gmtime()),
            model=model,
            layers=self.layers,
            shapes=self.shapes,
            points=tuple(self.points),
            wholes=tuple(self.wholes),
            lots=tuple(self.lots),
            planned=planned,
            warnings=worst_of_each(self.warnings),
            request=request,
            network=self.network,
        )


def worst_of_each(warnings: Iterable[str]) -> tuple[str, ...]:
    """One warning of each kind, which is what stands before the colon: that of the largest number."""
    worst: dict[str, str] = {}
    for text in sorted(warnings, key=lambda text: (len(text), text)):
        worst[text.partition(":")[0]] = text
    return tuple(sorted(worst.values()))


def _sum_ms(operators: Sequence[Mapping[str, Any]], drift: float) -> Interval:
    """Time of operators that run after each other; the profiler counts whole microseconds, rounded down."""
    runs = min(len(o["us"]) for o in operators)
    total = np.sum([np.asarray(o["us"][:runs], dtype=np.float64) + 0.5 for o in operators], axis=0)
    return _middle(total / 1e3 * drift)


def _middle(samples: npt.NDArray[np.float64]) -> Interval:
    """Mean of the samples between the 10th and the 60th percentile, which interruptions do not reach.

    The interval is the median's, by order statistics; it holds the estimate in any case.
    """
    ordered = np.sort(samples)
    n = len(ordered)
    low, high = int(0.1 * n), max(int(0.1 * n) + 1, round(0.6 * n))
    value = float(ordered[low:high].mean())
    half = 0.98 * n**0.5
    bounds = [ordered[int(np.clip(n / 2 + sign * half, 0, n - 1))] for sign in (-1, 1)]
    return Interval(value, min(value, float(bounds[0])), max(value, float(bounds[1])))


def _width_names(couplings: Couplings, tensors: Mapping[str, Any]) -> dict[int, tuple[str, int]]:
    """A state tensor's dimension for each channel_map, to find the channel_map again in another analysis."""
    names: dict[int, tuple[str, int]] = {}
    for name, dims in couplings.tensors.items():
        for dim, channel_map in enumerate(dims):
            if channel_map is not None and name in tensors:
                names.setdefault(channel_map, (name, dim))
    return names
