"""Loss by removed share of each group: second-order terms of statistics, corrected by measured points.

    curves = sensitivity(trace, couplings, statistics, rank, batches, task)
    best = least_joint_loss(trace, couplings, statistics, removals, batches, task)

A curve has the shape that the statistics predict, component by component, after the layers that read the
group took over what they can. At one or two shares the removal is measured on calibration images, and the
curve is scaled to what was seen there: the prediction ignores that errors at neighbouring positions add up.
Predictions grow with the square of an error and do not saturate, which measured divergences do: a curve of
measured points alone makes it look cheap to empty a group that is already ruined.
Curves add up over groups, errors in a deep network do not quite: `least_joint_loss` measures whole plans.

Guarantee: measuring costs at most as many multiply-accumulates as capturing the statistics did.
Elsewhere: predictions (second_order), measured removals (ablation), widths (allocate).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

from edgeprune.calibration.capture import Statistics
from edgeprune.coupling.components import BoolArray, Couplings
from edgeprune.graph.compute import CPU, Compute
from edgeprune.graph.trace import Trace
from edgeprune.search.ablation import Batches, ablated, losses, work_behind
from edgeprune.search.groups import Curve, in_order
from edgeprune.search.second_order import predicted_losses
from edgeprune.tasks.base import Task

MEASURED = (0.3, 0.6)  # shares of a group
POINTS = 32  # of a curve
CAPTURE_PASSES = 3  # forward and two backward passes to the activations
FEWEST, MOST = 32, 256  # images that measure a removal
FOLD = 5  # every fifth calibration image measures, the others are captured
TOGETHER = 64  # variants whose changed tensors are held at a time
SPLIT = 32  # images of one pass: its live activations are held for every variant in turn
LARGEST_CORRECTION = 1e3  # measured over predicted; beyond, one of them says nothing


def sensitivity(
    trace: Trace,
    couplings: Couplings,
    statistics: Statistics,
    rank: npt.NDArray[np.int64],
    batches: Batches,
    task: Task,
    *,
    known: Mapping[str, float] | None = None,
    compute: Compute = CPU,
    progress: Callable[[int, int], None] | None = None,
) -> dict[int, Curve]:
    """Loss at each share, per group: the task's divergence from the dense outputs, all outputs together.

    Args:
        rank: order of removal within each group.
        batches: images that the statistics were not captured on (`split_images`).
        known: corrections by group name from an earlier round; these groups are not measured again.
    """
    predicted = predicted_losses(trace, couplings, statistics, rank)
    members = [in_order(couplings, rank, g) for g in range(len(couplings.group_names))]
    groups = [g for g, rows in enumerate(members) if len(rows) > 1]
    fresh = [g for g in groups if known is None or couplings.group_names[g] not in known]
    measured = _measure(trace, couplings, statistics, members, fresh, batches, task, compute, progress)
    ratios = {
        g: [_ratio(loss, predicted[g][count]) for count, loss in points] for g, points in measured.items()
    }
    typical = float(np.exp(np.median([np.log(r[0]) for r in ratios.values()]))) if ratios else 1.0
    curves = {}
    for g in groups:
        name = couplings.group_names[g]
        correction = known[name] if known is not None and name in known else typical
        if g in ratios:
            correction = float(np.exp(np.mean(np.log(ratios[g]))))
        curves[g] = _curve(predicted[g] * correction, correction)
    return curves


def split_images(
    calibration: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Images for the statistics, and for measuring: every fifth, at least one.

    On the images that statistics come from, layers with many inputs take over what is removed far better
    than on others (30 times in the last layer of a network with 1,280 features and 200 images).
    """
    measures = np.arange(len(calibration)) % FOLD == min(FOLD, len(calibration)) - 1
    return calibration[~measures], calibration[measures]


def least_joint_loss(
    trace: Trace,
    couplings: Couplings,
    statistics: Statistics,
    removals: Sequence[BoolArray],
    batches: Batches,
    task: Task,
    *,
    compute: Compute = CPU,
) -> tuple[int, list[float]]:
    """Which of several whole plans loses least when its removals happen together, and the loss of each.

    Layers take over what they can, as in `sensitivity`. Ties go to the first.
    """
    variants = [ablated(trace.graph, couplings, statistics, removed) for removed in removals]
    joint_losses = losses(trace, variants, _first(batches, MOST), task, compute=compute)
    return int(np.argmin(joint_losses)), joint_losses


def _curve(values: npt.NDArray[np.float64], correction: float) -> Curve:
    """At most POINTS shares of a group; to lose all of it costs twice what losing all but one does."""
    count = len(values) - 1
    at = np.unique(np.round(np.linspace(0, count - 1, min(count, POINTS))).astype(int))
    rising = np.maximum.accumulate(values[at]) + 1e-9 * at
    last = 2 * float(rising[-1]) + 1e-3
    return Curve((*(at / count).tolist(), 1.0), (*rising.tolist(), last), correction)


def _measure(
    trace: Trace,
    couplings: Couplings,
    statistics: Statistics,
    members: list[npt.NDArray[np.int64]],
    groups: list[int],
    batches: Batches,
    task: Task,
    compute: Compute,
    progress: Callable[[int, int], None] | None,
) -> dict[int, list[tuple[int, float]]]:
    """(removed count, loss) of some groups, within the work that capture took."""
    plans = {g: _counts(len(members[g])) for g in groups}
    behind = {g: _work(trace, couplings, statistics, members[g]) for g in groups}
    images, points, every = _affordable(
        [behind[g] for g in groups], couplings.macs(), statistics.samples, sum(len(b[0]) for b in batches)
    )
    chosen = groups[::every]
    used = _first(batches, images)
    asked = [(g, count) for g in chosen for count in plans[g][:points]]
    measured: dict[int, list[tuple[int, float]]] = {g: [] for g in chosen}
    for start in range(0, len(asked), TOGETHER):
        some = asked[start : start + TOGETHER]
        variants = []
        for g, count in some:
            removed = np.zeros(couplings.count, bool)
            removed[members[g][:count]] = True
            variants.append(ablated(trace.graph, couplings, statistics, removed))
        for (g, count), loss in zip(some, losses(trace, variants, used, task, compute=compute), strict=True):
            measured[g].append((count, loss))
        if progress:
            progress(min(start + TOGETHER, len(asked)), len(asked))
    return measured


def _counts(size: int) -> list[int]:
    """Removed counts that are measured, without repeats."""
    return list(dict.fromkeys(min(max(1, round(share * size)), size - 1) for share in MEASURED))


def _work(trace: Trace, couplings: Couplings, statistics: Statistics, rows: npt.NDArray[np.int64]) -> float:
    removed = np.zeros(couplings.count, bool)
    removed[rows[:1]] = True
    names = list(ablated(trace.graph, couplings, statistics, removed, absorb=False))
    return work_behind(trace, couplings, names)


def _affordable(behind: list[float], macs: float, captured: int, available: int) -> tuple[int, int, int]:
    """Images, points per group and every which group, so that measuring costs no more than capture did."""
    allowed = CAPTURE_PASSES * captured * macs
    for points, every in ((2, 1), (1, 1), *((1, n) for n in range(2, max(3, len(behind) + 1)))):
        images = int(allowed / max(points * sum(behind[::every]) + macs, 1.0))
        if images >= min(FEWEST * points, available):
            return min(images, available, MOST), points, every
    return min(FEWEST, available), 1, max(1, len(behind))


def _ratio(measured: float, predicted: float) -> float:
    """Measured over predicted, kept within reason."""
    ratio = max(measured, 1e-9) / max(predicted, 1e-9)
    return min(max(ratio, 1 / LARGEST_CORRECTION), LARGEST_CORRECTION)


def _first(batches: Batches, images: int) -> list[tuple[torch.Tensor, ...]]:
    """The first images of the batches, at least one batch's worth of one image."""
    kept: list[tuple[torch.Tensor, ...]] = []
    left = images
    for batch in batches:
        for start in range(0, min(left, len(batch[0])), SPLIT):
            kept.append(tuple(x[start : min(start + SPLIT, left)] for x in batch))
        left -= len(batch[0])
        if left <= 0:
            break
    return kept
