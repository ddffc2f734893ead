"""What the shipped file does to single test samples: which got worse, and which classes lost most.

    changes(data, dense_outputs, shipped_outputs)

Samples are judged by the task's own measure, so this holds for every task that has one number per sample;
a measure of a set (mAP) has none, and then there is nothing to say. Decisions are named only by tasks with
one class per sample. A picture is kept of a sample whose raw input is one, at most 64 pixels wide.
Elsewhere: the measure and its loss (tasks.comparison), how the page shows it (report.evidence).
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprune.data import Dataset
from edgeprune.records.report import ChangedSample, Changes, ClassLoss
from edgeprune.session.dense import RunData
from edgeprune.tasks.base import Outputs, PerSample, parts_of
from edgeprune.tasks.binary import Binary
from edgeprune.tasks.classification import Classification

EXAMPLES, CLASSES, THUMBNAIL = 6, 5, 64


def changes(data: RunData, dense: Outputs, shipped: Outputs) -> Changes | None:
    """Samples of the test part that got worse, the worst first, by the first output of several.

    None where the measure gives no number per sample.
    """
    part = parts_of(data.task)[0]
    before, after = part.select(dense), part.select(shipped)
    targets = part.targets_of(data.targets("test"))
    if targets is None:
        measure = part.task.agreement_measure
        scores = part.task.agreement(before, before), part.task.agreement(after, before)
    else:
        measure = part.task.measure
        scores = part.task.score(before, targets), part.task.score(after, targets)
    if scores[0].per_sample is None or scores[1].per_sample is None:
        return None
    first, second = (np.asarray(score.per_sample, np.float64) for score in scores)
    lost = first - second if measure.kind == "share" else second - first
    worst = np.argsort(-lost, kind="stable")[:EXAMPLES]
    worst = worst[lost[worst] > 0]
    numbers = data.indices("test")
    decided = _decisions(part.task, before, after, targets)
    if decided is None:
        texts = [(f"{first[i]:.4g}", f"{second[i]:.4g}", "") for i in worst]
        classes: tuple[ClassLoss, ...] = ()
    else:
        names = data.dataset.class_names
        texts = [(_name(decided[0][i], names), _name(decided[1][i], names),
                  "" if decided[2] is None else _name(decided[2][i], names)) for i in worst]  # fmt: skip
        classes = () if decided[2] is None else _classes(first, second, decided[2], names)
    examples = tuple(
        ChangedSample(int(numbers[i]), target, a, b, thumbnail(data.dataset, int(numbers[i])))
        for i, (a, b, target) in zip(worst, texts, strict=True)
    )
    return Changes(
        measure.name, decided is not None, int((lost > 0).sum()), int((lost < 0).sum()), len(lost), examples,
        classes,
    )  # fmt: skip


def thumbnail(dataset: Dataset, index: int) -> str:
    """A sample as a base64 PNG; empty where the raw input is no picture (bytes of 1 or 3 channels)."""
    how: Mapping[str, Any] = dataset.preprocessing
    size: tuple[int, ...] = tuple(how.get("size") or ())
    picture = how.get("layout") == "NCHW" and how.get("scale") == 1.0 / 255.0
    if not picture or size[0] not in (1, 3) or min(size[1:]) < 8:
        return ""
    from PIL import Image

    values = dataset.batch([index])[0][0]
    if how.get("std") is not None:
        values = values * np.asarray(how["std"], np.float32).reshape(-1, 1, 1)
    if how.get("mean") is not None:
        values = values + np.asarray(how["mean"], np.float32).reshape(-1, 1, 1)
    pixels = np.clip(np.rint(values * 255), 0, 255).astype(np.uint8)
    image = Image.fromarray(pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, -1))
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def _decisions(
    task: Any, before: Outputs, after: Outputs, targets: Any
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64] | None] | None:
    """Decided classes of both models and the true ones, of tasks with one class per sample."""
    if not isinstance(task, Classification | Binary):
        return None
    ours, theirs = task.classes(before, None), task.classes(after, None)
    if ours is None or theirs is None:
        return None
    return ours, theirs, None if targets is None else task.classes(before, targets)


def _classes(
    first: PerSample, second: PerSample, labels: npt.NDArray[np.int64], names: tuple[str, ...] | None
) -> tuple[ClassLoss, ...]:
    """The classes whose share of right answers fell most."""
    rows = []
    for label in np.unique(labels):
        of = labels == label
        rows.append(
            ClassLoss(_name(label, names), int(of.sum()), float(first[of].mean()), float(second[of].mean()))
        )
    fallen = sorted((row for row in rows if row.shipped < row.dense), key=lambda r: r.shipped - r.dense)
    return tuple(fallen[:CLASSES])


def _name(label: Any, names: tuple[str, ...] | None) -> str:
    return names[label] if names is not None and 0 <= label < len(names) else f"class {label}"
