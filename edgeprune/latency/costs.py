"""Milliseconds of a network after a removal, predicted from a profile of its layers.

    cost = latency_cost(profile, traced, couplings)
    cost(removed)                 # p50 ms at batch 1; removed: boolean, shape (couplings.count,)

Guarantee: nothing is timed and no board is asked; one call costs microseconds per layer whose pair
of widths was seen before. Elsewhere: measuring (measuring), whether a profile may be used (profiles.check),
how one layer's points become a function of its widths (fitting).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprune.coupling.components import BoolArray, Couplings
from edgeprune.errors import BenchError
from edgeprune.graph.module import state_tensors
from edgeprune.graph.trace import Trace
from edgeprune.latency.fitting import Layers, Overhead, ShapeModel, fit_overhead, fit_shapes
from edgeprune.latency.profiles import Profile, Whole, Width


@dataclass
class LatencyCost:
    """A cost of removals: `unit` and `source` say what the numbers are; `estimate` when not measured."""

    predict: Callable[[BoolArray], float]
    unit: str
    source: str
    estimate: bool
    dense: float
    warnings: tuple[str, ...] = ()

    def __call__(self, removed: BoolArray) -> float:
        return self.predict(removed)


@dataclass
class _Predictor:
    """The layers of a profile with the channel_maps that their widths follow in these couplings."""

    couplings: Couplings
    terms: list[tuple[_Ref, _Ref, ShapeModel]]
    head_ms: float
    overhead: Overhead
    known: list[dict[tuple[int, int], float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.known = [{} for _ in self.terms]
        refs = [ref for inputs, outputs, _ in self.terms for ref in (inputs, outputs)]
        self.free = np.array([i for i, ref in enumerate(refs) if ref.channel_map is not None], dtype=np.int64)
        self.channel_maps = np.array(
            [ref.channel_map for ref in refs if ref.channel_map is not None], dtype=np.int64
        )
        self.times = np.array([ref.times for ref in refs if ref.channel_map is not None], dtype=np.int64)
        self.constants = np.array([ref.constant for ref in refs], dtype=np.int64)

    def __call__(self, removed: BoolArray) -> float:
        sizes = self.constants.copy()
        sizes[self.free] = self.times * self.couplings.kept(removed)[self.channel_maps]
        widths, total = iter(sizes.tolist()), self.head_ms
        for known, (_, _, time), pair in zip(self.known, self.terms, zip(widths, widths, strict=True),
                                             strict=True):  # fmt: skip
            milliseconds = known.get(pair)
            if milliseconds is None:
                milliseconds = known[pair] = time(*pair)
            total += milliseconds
        return self.overhead.whole_ms(total)


@dataclass(frozen=True)
class _Ref:
    """A width: `times` the kept count of a channel_map, or a constant."""

    constant: int
    channel_map: int | None
    times: int


def latency_cost(profile: Profile, traced: Trace, couplings: Couplings) -> LatencyCost:
    """Predicted p50 in milliseconds at batch 1, as a function of a removal from this network.

    The network may be smaller than the profiled one: what counts are the widths of its tensors.

    Raises:
        BenchError: the profile is of another network: it names tensors that this one has not.
    """
    tensors = state_tensors(traced.graph)
    shapes: dict[str, tuple[int, ...]] = {name: tuple(t.shape) for name, t in tensors.items()}
    overhead, times, head = _fitted(profile)
    terms = []
    for layer in profile.layers:
        refs = [_resolve(width, shapes, couplings, profile) for width in (layer.inputs, layer.outputs)]
        terms.append((refs[0], refs[1], times.models[layer.shape]))
    predictor = _Predictor(couplings, terms, head, overhead)
    dense = predictor(np.zeros(couplings.count, bool))
    return LatencyCost(predictor, "ms", profile.source, False, dense, profile.warnings)


def predictions(profile: Profile, wholes: Sequence[Whole]) -> npt.NDArray[np.float64]:
    """Predicted p50 ms of networks of these widths, each of which a profile of the same network may hold."""
    overhead, times, head = _fitted(profile)
    predicted = []
    for network in wholes:
        pairs = zip(profile.layers, network.widths, strict=True)
        predicted.append(
            overhead.whole_ms(head + sum(times.models[layer.shape](*pair) for layer, pair in pairs))
        )
    return np.array(predicted)


def layer_times(profile: Profile) -> tuple[list[dict[str, Any]], float | None]:
    """Each layer shape's time as it is and the steps found in its widths; the error at points left out."""
    _, times, _ = _fitted(profile)
    rows = []
    for layer in {layer.shape: layer for layer in profile.layers}.values():
        model = times.models[layer.shape]
        scheme = model.scheme
        rows.append(
            {
                "shape": layer.shape,
                "dense_ms": model(layer.inputs.dense, layer.outputs.dense),
                "steps_in": sorted({*scheme.inputs, scheme.in_block} - {1}),
                "steps_out": sorted({*scheme.outputs, *scheme.out_blocks} - {1}),
            }
        )
    return rows, times.left_out


_FITS: dict[int, tuple[Profile, tuple[Overhead, Layers, float]]] = {}


def _fitted(profile: Profile) -> tuple[Overhead, Layers, float]:
    """Fit once per profile; the profile is held, so its id stays its own."""
    if id(profile) not in _FITS:
        if len(_FITS) >= 8:
            _FITS.clear()
        _FITS[id(profile)] = (profile, _fit(profile))
    return _FITS[id(profile)][1]


def _fit(profile: Profile) -> tuple[Overhead, Layers, float]:
    overhead = fit_overhead(profile)
    head = float(np.median([w.head_ms for w in profile.wholes]))
    return overhead, fit_shapes(profile, overhead), head


def _resolve(
    width: Width, shapes: dict[str, tuple[int, ...]], couplings: Couplings, profile: Profile
) -> _Ref:
    if width.tensor is None:
        return _Ref(width.dense, None, 1)
    name = couplings.aliases.get(width.tensor, width.tensor)
    shape = shapes.get(width.tensor)
    if shape is None or width.dim >= len(shape) or shape[width.dim] * width.times > width.dense:
        raise BenchError(
            f"the profile is of another network, {profile.model}: {width.tensor} has {width.dense} there",
            tip="measure this one: edgeprune profile",
        )
    channel_map = couplings.tensors[name][width.dim] if name in couplings.tensors else None
    return _Ref(width.times * shape[width.dim], channel_map, width.times)
