"""Average precision as COCO counts it, suppression and matching of boxes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detections import CASES, random_objects
from torchvision.ops import batched_nms

from edgeprune.tasks.boxes import (
    THRESHOLDS,
    as_objects,
    average_precision,
    match_f1,
    overlap,
    suppress,
)  # fmt: skip

# mAP50-95 and mAP50 of pycocotools 2.0.11 on the same boxes; tests/support/detections.py prints them.
EXPECTED = {
    "plain": (0.13934208180351182, 0.3488284744029244),
    "ties": (0.133039948633411, 0.3679664986804191),
    "crowded": (0.19351846302446793, 0.5243229157591133),
    "sparse": (0.1525257776370131, 0.3702495832772018),
}


@pytest.mark.parametrize("case", CASES)
def test_average_precision_is_that_of_pycocotools(case: str):
    """Ties in scores, more than 100 detections, images without boxes, classes that nobody drew."""
    found, truth = random_objects(case)
    every = np.arange(len(truth))
    assert average_precision(found, truth)(every) == pytest.approx(EXPECTED[case][0], abs=1e-12)
    assert average_precision(found, truth, THRESHOLDS[:1])(every) == pytest.approx(
        EXPECTED[case][1], abs=1e-12
    )


@pytest.mark.parametrize("case", ["plain", "sparse"])
def test_a_choice_of_images_is_counted_as_those_images(case: str):
    """Repeats count as images of their own: what the bootstrap needs, without matching again."""
    found, truth = random_objects(case)
    chosen = np.random.default_rng(5).integers(0, len(truth), len(truth))
    by_weights = average_precision(found, truth)(chosen)
    again = average_precision([found[i] for i in chosen], [truth[i] for i in chosen])
    assert by_weights == pytest.approx(again(np.arange(len(chosen))), abs=1e-12)


def test_average_precision_by_hand():
    """One true box found, one missed: precision 1 up to recall 1/2, 51 of 101 recall points."""
    truth = [as_objects([[0, 0, 10, 10], [20, 20, 30, 30]], [0, 0])]
    found = [as_objects([[0, 0, 10, 10]], [0], [0.9])]
    assert average_precision(found, truth)(np.arange(1)) == pytest.approx(51 / 101)
    better_first = [as_objects([[50, 50, 60, 60], [0, 0, 10, 10]], [0, 0], [0.95, 0.9])]
    assert average_precision(better_first, truth)(np.arange(1)) == pytest.approx(0.5 * 51 / 101)


def test_overlap_by_hand():
    """Half of a box in common is a third of the union; touching boxes share nothing."""
    one = np.array([[0.0, 0, 10, 10]])
    others = np.array([[0.0, 5, 10, 15], [10, 0, 20, 10], [0, 0, 10, 10], [3, 3, 3, 3]])
    np.testing.assert_allclose(overlap(one, others)[0], [1 / 3, 0, 1, 0])


def test_suppression_is_that_of_torchvision():
    """Per class, on random boxes, with the same order."""
    rng = np.random.default_rng(2)
    corner = rng.uniform(0, 80, (300, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(5, 40, (300, 2))], axis=1)
    scores, labels = rng.random(300), rng.integers(0, 3, 300)
    expected = batched_nms(*(torch.from_numpy(x) for x in (boxes, scores, labels)), iou_threshold=0.5)
    assert suppress(boxes, scores, labels, 0.5).tolist() == expected.tolist()


def test_matching_is_one_to_one_and_by_class():
    """Two detections on one box match once; the right box of another class does not match."""
    box = [0, 0, 10, 10]
    truth = as_objects([box, [50, 50, 60, 60]], [0, 1])
    assert match_f1(truth, truth) == 1
    assert match_f1(as_objects([box, box], [0, 0]), truth) == pytest.approx(2 * 1 / 4)
    assert match_f1(as_objects([box], [1]), truth) == 0
    empty = as_objects(np.zeros((0, 4)), [])
    assert match_f1(empty, empty) == 1 and match_f1(empty, truth) == 0
