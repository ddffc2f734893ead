"""From points to functions: the time of a layer shape by its two widths, and of a network by its layers.

Latency against width is a staircase with cliffs: kernels work on blocks of channels, and a width that
no block divides may send a layer to another kernel. So the widths are sorted into classes by the powers
of two that divide them, and within a class time is a + c·in + d·out + a sum of b·in·out with
coefficients of at least zero, `in` and `out` rounded up to blocks (several for `out`: a convolution that
works on four blocks of eight outputs at once pays for 40 nearly as for 64). Which powers and blocks
matter is chosen for each kind of layer by how well points left out are predicted: where a processor has
no cliffs there is one class and no block. A class with few points leans on the whole shape.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import lsq_linear, nnls

from edgeprune.latency.profiles import Profile

FloatArray = npt.NDArray[np.float64]
LEVELS = ((), (2,), (4,), (8,), (16,), (4, 8), (4, 16), (8, 16))  # dividing powers that make a class
FOLDS = 3
LEAN = 0.15  # weight of the whole shape in the fit of one class, in units of one point
LEAST_SHARE = 0.05  # of a time that is its own, however much watching takes
IN_BLOCKS, OUT_BLOCKS = (1, 4, 8, 16), ((1,), (4,), (8,), (16,), (4, 16), (8, 32), (16, 64), (8, 16, 32))
NOISE = 0.005  # differences well below this share are not worth a class
NEAR, PRIOR = 0.15, 0.5  # reach in log widths of what a point leaves unexplained; weight of "nothing"
GAIN = 0.98  # more classes must predict at least this much better


@dataclass(frozen=True)
class Overhead:
    """What a whole network takes beside its operators: a share of their time, and a constant.

    `watching_ms` is what onnxruntime's profiler adds to each operator that it times; a user runs without.
    """

    watching_ms: float
    scale: float
    constant_ms: float

    def whole_ms(self, operators_ms: float) -> float:
        return self.scale * operators_ms + self.constant_ms


@dataclass(frozen=True)
class Scheme:
    """How widths are sorted, by dividing powers of inputs and outputs, and to which blocks they round up."""

    inputs: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()
    in_block: int = 1
    out_blocks: tuple[int, ...] = (1,)

    @property
    def size(self) -> int:
        """What it has to earn by better prediction."""
        classes = (len(self.inputs) + 1) * (len(self.outputs) + 1)
        return classes + (self.in_block > 1) + len(self.out_blocks) + (self.out_blocks[0] > 1)

    def classes(self, i: FloatArray, o: FloatArray) -> npt.NDArray[np.int64]:
        indices = np.zeros(np.shape(i), np.int64)
        for width, levels in ((i, self.inputs), (o, self.outputs)):
            indices *= len(levels) + 1
            for level in levels:
                indices += (np.asarray(width) % level == 0).astype(np.int64)
        return indices

    def features(self, i: FloatArray, o: FloatArray) -> FloatArray:
        """Columns 1, in, out and in·out for each block; shape (points, 3 + blocks)."""
        i, o = np.asarray(i, np.float64), np.asarray(o, np.float64)
        i = np.ceil(i / self.in_block) * self.in_block
        rounded = [np.ceil(o / block) * block for block in self.out_blocks]
        return np.stack([np.ones_like(i), i, rounded[0], *(i * r for r in rounded)], axis=-1)


@dataclass(frozen=True)
class ShapeModel:
    """Time in ms by widths: coefficients of each class, and of the whole shape for a class never seen.

    What measured points of the same class nearby leave unexplained is added: `residuals` has columns
    log in, log out, class, log of measured by fitted.
    """

    scheme: Scheme
    coefficients: FloatArray
    by_class: Mapping[int, FloatArray]
    residuals: FloatArray = field(default_factory=lambda: np.zeros((0, 4)))

    def __call__(self, inputs: int, outputs: int) -> float:
        return float(self.at(np.array([float(inputs)]), np.array([float(outputs)]))[0])

    def at(self, i: FloatArray, o: FloatArray) -> FloatArray:
        """Many widths at once."""
        classes = self.scheme.classes(i, o)
        chosen = np.stack([self.by_class.get(int(c), self.coefficients) for c in classes])
        ms: FloatArray = (self.scheme.features(i, o) * chosen).sum(axis=-1)
        if len(self.residuals):
            li, lo, kind, left = self.residuals.T
            away = (np.log(i)[:, None] - li) ** 2 + (np.log(o)[:, None] - lo) ** 2
            weight = np.exp(-away / (2 * NEAR**2)) * (classes[:, None] == kind)
            ms = ms * np.exp((weight * left).sum(axis=1) / (weight.sum(axis=1) + PRIOR))
        return ms


@dataclass(frozen=True)
class Layers:
    """The functions of all shapes, and how far off they are (mean, relative) at points left out."""

    models: dict[str, ShapeModel]
    left_out: float | None


def fit_shapes(profile: Profile, overhead: Overhead) -> Layers:
    """A function of (inputs, outputs) in ms, less what watching took, for every layer shape."""
    rows = defaultdict(list)
    for point in profile.points:
        took = point.ms.value
        operator_ms = max(took - overhead.watching_ms * point.operators, LEAST_SHARE * took)
        rows[point.shape].append((point.inputs, point.outputs, operator_ms))
    tables = [np.array(rows[n], dtype=np.float64).reshape(-1, 3) for n in range(len(profile.shapes))]
    reference = float(np.median([operators for _, operators in profile.lots]))
    scale = reference / profile.lots[0][1]
    kinds = defaultdict(list)
    for n, shape in enumerate(profile.shapes):
        kinds[_kind(shape)].append(n)
    models: dict[str, ShapeModel] = {}
    errors = []
    for members in kinds.values():
        mine = [tables[n] for n in members]
        scheme = choose_scheme(mine)
        errors.append(_left_out(mine, scheme))
        for n in members:
            models[profile.shapes[n]] = fit_table(tables[n] * (1.0, 1.0, scale), scheme)
    left_out = np.concatenate(errors)
    return Layers(models, float(left_out.mean()) if left_out.size else None)


def choose_scheme(tables: Sequence[FloatArray]) -> Scheme:
    """The classes and rounding that best predict points left out, over shapes of one kind."""
    known: dict[Scheme, float] = {}

    def error(scheme: Scheme) -> float:
        if scheme not in known:
            known[scheme] = float(_left_out(tables, scheme, near=False).mean()) + NOISE
        return known[scheme]

    best = Scheme()
    if not _left_out(tables, best).size:
        return best
    choices: dict[str, Sequence[Any]] = {"inputs": LEVELS, "outputs": LEVELS}
    choices |= {"in_block": IN_BLOCKS, "out_blocks": OUT_BLOCKS}
    for _ in range(2):  # one part after the other
        for part, values in choices.items():
            for value in values:
                tried = replace(best, **{part: value})
                if error(tried) < error(best) * (GAIN if tried.size > best.size else 1.0):
                    best = tried
    return best


def fit_table(table: FloatArray, scheme: Scheme, *, near: bool = True) -> ShapeModel:
    """Fit one shape; `table` has columns inputs, outputs, ms. Without `near` nothing local is added."""
    if not len(table):
        return ShapeModel(scheme, np.zeros(3 + len(scheme.out_blocks)), {})
    i, o, t = table.T
    features = scheme.features(i, o) / t[:, None]
    unweighted = nnls(features, np.ones(len(t)))[0]
    classes = scheme.classes(i, o)
    by_class = {}
    for c in np.unique(classes):
        mine = features[classes == c]
        level = float(np.median(1 / np.maximum(mine @ unweighted, 1e-9)))
        weight = LEAN * np.abs(features).mean(axis=0)
        rows = np.concatenate([mine, np.diag(weight)])
        goal = np.concatenate([np.ones(len(mine)), weight * unweighted * level])
        by_class[int(c)] = nnls(rows, goal)[0]
    fitted = ShapeModel(scheme, unweighted, by_class)
    if not near:
        return fitted
    left = np.log(t / np.maximum(fitted.at(i, o), 1e-9 * t.max()))
    rows = np.stack([np.log(i), np.log(o), classes, np.clip(left, -0.7, 0.7)], axis=1)
    return replace(fitted, residuals=rows)


def fit_overhead(profile: Profile) -> Overhead:
    """From networks that were run both whole and with their operators timed, the undisturbed half of them.

    A busy machine stretches a whole run more than its operators, each of which is short: least trimmed
    squares (Rousseeuw 1984) over the pairs, relative errors. The dense network's own p50 fixes the scale.
    """
    operators = np.array([w.operators_ms for w in profile.wholes])
    counts = np.array([w.operators for w in profile.wholes], dtype=np.float64)
    walls = np.array([w.p50_ms.value for w in profile.wholes])
    dense_wall, dense_operators = (float(np.median(column)) for column in zip(*profile.lots, strict=True))
    if len(walls) < 8:
        return Overhead(0.0, dense_wall / dense_operators, 0.0)
    columns = np.stack([operators, -counts, np.ones_like(operators)], axis=1) / walls[:, None]
    # Watching cannot take longer than the shortest operators do, nor are operators twice as fast alone.
    shortest = float(np.quantile([p.ms.value / p.operators for p in profile.points], 0.05))
    bounds = ([0.5, 0.0, 0.0], [2.0, 0.8 * shortest + 1e-9, float(walls.min())])
    chosen = np.argsort(np.abs(np.log(walls / operators) - np.median(np.log(walls / operators))))
    chosen = chosen[: len(walls) * 4 // 5]
    for _ in range(20):
        solved = lsq_linear(columns[chosen], np.ones(len(chosen)), bounds).x
        chosen = np.argsort(np.abs(columns @ solved - 1))[: len(walls) * 3 // 5]
    scale, watching, constant = (float(x) for x in solved)
    dense = scale * dense_operators - watching * counts[0] + constant
    anchor = dense_wall / dense
    return Overhead(watching / scale, scale * anchor, constant * anchor)


def _left_out(tables: Sequence[FloatArray], scheme: Scheme, *, near: bool = True) -> FloatArray:
    """Absolute relative errors of points that were not fitted; of shapes with too few points none."""
    errors = [np.zeros(0)]
    for table in tables:
        if len(table) < 2 * FOLDS:
            continue
        fold = np.arange(len(table)) % FOLDS
        for n in range(FOLDS):
            i, o, t = table[fold == n].T
            errors.append(np.abs(fit_table(table[fold != n], scheme, near=near).at(i, o) / t - 1))
    return np.concatenate(errors)


def _kind(shape: str) -> str:
    """Operator, kernel and grouping: the words before the widths."""
    return " ".join(itertools.takewhile(lambda word: "->" not in word, shape.split()))
