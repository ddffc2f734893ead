"""Random boxes for tests of average precision, and the reference numbers that pycocotools gives for them.

pip install --target /tmp/coco pycocotools
PYTHONPATH=/tmp/coco:. python tests/support/detections.py     # EXPECTED of tests/tasks/test_boxes.py
"""

from __future__ import annotations

import contextlib
import io

import numpy as np

from edgeprune.tasks.boxes import Objects, as_objects

CASES = {"plain": (0, 30, 4), "ties": (1, 25, 3), "crowded": (2, 6, 1), "sparse": (3, 40, 12)}


def random_objects(case: str) -> tuple[list[Objects], list[Objects]]:
    """Detections and true boxes of some images; whole pixels, so that both tools compute the same overlaps.

    `ties` has scores of one digit, `crowded` more than 100 detections per image and class, `sparse` images
    without boxes and classes that are only detected.
    """
    seed, images, classes = CASES[case]
    rng = np.random.default_rng(seed)
    found, truth = [], []
    for _ in range(images):
        count = {"crowded": 40, "sparse": rng.integers(0, 3)}.get(case, rng.integers(1, 8))
        corner = rng.integers(0, 150, (count, 2))
        true = np.concatenate([corner, corner + rng.integers(8, 60, (count, 2))], axis=1)
        labels = rng.integers(0, max(1, classes // (2 if case == "sparse" else 1)), count)
        near = rng.integers(0, count, 4 * count) if count else np.zeros(0, np.int64)
        boxes = true[near] + rng.integers(-6, 7, (len(near), 4))
        guessed = np.where(rng.random(len(near)) < 0.8, labels[near], rng.integers(0, classes, len(near)))
        corner = rng.integers(0, 150, (5, 2))
        stray = np.concatenate([corner, corner + rng.integers(8, 60, (5, 2))], axis=1)
        boxes = np.concatenate([boxes, stray])
        guessed = np.concatenate([guessed, rng.integers(0, classes, 5)])
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        scores = rng.random(len(boxes))
        scores = np.round(scores, 1) if case == "ties" else scores
        found.append(as_objects(boxes, guessed, scores))
        truth.append(as_objects(true, labels))
    return found, truth


def by_pycocotools(case: str) -> tuple[float, float]:
    """mAP50-95 and mAP50."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    found, truth = random_objects(case)
    annotations, results = [], []
    for image, objects in enumerate(truth):
        for box, label in zip(objects.boxes, objects.labels, strict=True):
            size = [*box[:2], *(box[2:] - box[:2])]
            annotations.append({"id": len(annotations) + 1, "image_id": image, "category_id": int(label),
                                "bbox": size, "area": size[2] * size[3], "iscrowd": 0})  # fmt: skip
    for image, objects in enumerate(found):
        for box, label, score in zip(objects.boxes, objects.labels, objects.scores, strict=True):
            results.append({"image_id": image, "category_id": int(label), "score": float(score),
                            "bbox": [*box[:2], *(box[2:] - box[:2])]})  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {"images": [{"id": i} for i in range(len(truth))], "annotations": annotations,
                        "categories": [{"id": i} for i in range(CASES[case][2])]}  # fmt: skip
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0]), float(evaluation.stats[1])


if __name__ == "__main__":
    for name in CASES:
        print(f"    {name!r}: {by_pycocotools(name)},")
