"""Boxes: overlap, non-maximum suppression, matching, and average precision as COCO counts it.

Boxes are xyxy, float64, in any one unit. Average precision follows pycocotools: IoU 0.50:0.05:0.95, 101
recall points, at most 100 detections per image and class, classes without a true box left out; the tests
compare it with pycocotools on recorded boxes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
MOST = 100  # detections per image and class


@dataclass(frozen=True, eq=False)
class Objects:
    """Boxes (n, 4), class numbers (n,) and, for detections, scores (n,) of one image."""

    boxes: FloatArray
    labels: Indices
    scores: FloatArray


def overlap(ours: FloatArray, theirs: FloatArray) -> FloatArray:
    """Intersection over union of every pair, shape (ours, theirs)."""
    width = np.minimum(ours[:, None, 2], theirs[None, :, 2]) - np.maximum(
        ours[:, None, 0], theirs[None, :, 0]
    )
    height = np.minimum(ours[:, None, 3], theirs[None, :, 3]) - np.maximum(
        ours[:, None, 1], theirs[None, :, 1]
    )
    common = np.maximum(width, 0.0) * np.maximum(height, 0.0)
    areas = [np.maximum(b[:, 2] - b[:, 0], 0.0) * np.maximum(b[:, 3] - b[:, 1], 0.0) for b in (ours, theirs)]
    union = areas[0][:, None] + areas[1][None] - common
    return np.asarray(np.divide(common, union, out=np.zeros_like(common), where=union > 0))


def suppress(boxes: FloatArray, scores: FloatArray, labels: Indices, limit: float) -> Indices:
    """Non-maximum suppression per class: indices that stay, best score first, ties in the given order.

    A box goes where a better one of its class overlaps it by more than `limit`.
    """
    order = np.argsort(-scores, kind="stable")
    kept = np.ones(len(order), dtype=bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels[order] == label)
        overlaps = overlap(boxes[order[rows]], boxes[order[rows]]) > limit
        stays = np.ones(len(rows), dtype=bool)
        for row in range(len(rows)):
            if stays[row]:
                stays[row + 1 :] &= ~overlaps[row, row + 1 :]
        kept[rows] = stays
    return order[kept]


def match_f1(ours: Objects, theirs: Objects, least: float = 0.5) -> float:
    """F1 of greedy matches between boxes of one class at an overlap of at least `least`; 1 where both are
    empty. Pairs are taken by falling overlap.
    """
    total = len(ours.labels) + len(theirs.labels)
    if not total:
        return 1.0
    overlaps = overlap(ours.boxes, theirs.boxes)
    overlaps = np.where(ours.labels[:, None] == theirs.labels[None], overlaps, 0.0)
    matched = 0
    while overlaps.size and overlaps.max() >= least:
        row, column = np.unravel_index(int(overlaps.argmax()), overlaps.shape)
        overlaps[row, :], overlaps[:, column] = 0.0, 0.0
        matched += 1
    return 2.0 * matched / total


def average_precision(
    detections: Sequence[Objects], truth: Sequence[Objects], thresholds: FloatArray = THRESHOLDS
) -> Callable[[Indices], float]:
    """A function that gives the mean average precision of some images (indices, repeats allowed).

    Matching is done once; a choice of images only weighs its images' detections.
    """
    classes = np.unique(np.concatenate([np.zeros(0, np.int64), *(t.labels for t in truth)]))
    tables = [_class_table(detections, truth, int(label), thresholds) for label in classes]

    def value(at: Indices) -> float:
        weights = np.bincount(at, minlength=len(truth)).astype(np.float64)
        precisions = [p for table in tables if (p := table(weights)) is not None]
        return float(np.mean(precisions)) if precisions else 0.0

    return value


def _class_table(
    detections: Sequence[Objects], truth: Sequence[Objects], label: int, thresholds: FloatArray
) -> Callable[[FloatArray], float | None]:
    """AP of one class as a function of the images' weights; None where no true box is chosen."""
    counts = np.array([int((t.labels == label).sum()) for t in truth], dtype=np.float64)
    images: list[Indices] = []
    scores: list[FloatArray] = []
    hits: list[npt.NDArray[np.bool_]] = []
    for index, (ours, theirs) in enumerate(zip(detections, truth, strict=True)):
        mine = np.flatnonzero(ours.labels == label)
        mine = mine[np.argsort(-ours.scores[mine], kind="stable")][:MOST]
        images.append(np.full(len(mine), index))
        scores.append(ours.scores[mine])
        hits.append(_matched(overlap(ours.boxes[mine], theirs.boxes[theirs.labels == label]), thresholds))
    order = np.argsort(-np.concatenate(scores), kind="stable")
    image, hit = np.concatenate(images)[order], np.concatenate(hits)[order]

    def value(weights: FloatArray) -> float | None:
        positives = float(weights @ counts)
        if not positives:
            return None
        weight = weights[image]
        chosen = weight > 0
        right = np.cumsum(weight[chosen, None] * hit[chosen], axis=0)
        wrong = np.cumsum(weight[chosen, None] * ~hit[chosen], axis=0)
        if not len(right):
            return 0.0
        recall, precision = right / positives, right / (right + wrong + np.spacing(1))
        precision = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
        total = 0.0
        for column in range(len(thresholds)):
            at = np.searchsorted(recall[:, column], RECALLS, side="left")
            total += float(
                np.where(at < len(recall), precision[np.minimum(at, len(recall) - 1), column], 0).sum()
            )
        return total / (len(RECALLS) * len(thresholds))

    return value


def _matched(overlaps: FloatArray, thresholds: FloatArray) -> npt.NDArray[np.bool_]:
    """Whether each detection, best first, takes a true box that is still free: (detections, thresholds)."""
    hit = np.zeros((len(overlaps), len(thresholds)), dtype=bool)
    if not overlaps.size:
        return hit
    least = np.minimum(thresholds, 1 - 1e-10)
    free = np.ones((len(thresholds), overlaps.shape[1]), dtype=bool)
    levels = np.arange(len(thresholds))
    for row in np.flatnonzero(overlaps.max(axis=1) >= least.min()):
        left = np.where(free, overlaps[row], -1.0)
        last = left.shape[1] - 1 - left[:, ::-1].argmax(axis=1)  # of equals the last, as pycocotools does
        hit[row] = left[levels, last] >= least
        free[levels[hit[row]], last[hit[row]]] = False
    return hit


def as_objects(boxes: Any, labels: Any, scores: Any = None) -> Objects:
    """Arrays of any type as one image's objects."""
    rows = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    marks = np.ones(len(rows)) if scores is None else np.asarray(scores, dtype=np.float64).reshape(-1)
    return Objects(rows, np.asarray(labels, dtype=np.int64).reshape(-1), marks)
