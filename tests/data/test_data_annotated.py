"""Images with boxes or masks: COCO, YOLO and mask folders give the same targets at the model's size."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgeprune.data import open_data
from edgeprune.data.dataset import Dataset
from edgeprune.errors import DataError

# a picture of 40×20 (width × height) with a white rectangle, 10..20 by 5..15, for a model of 32×32
SIZE, BOX = (40, 20), (10, 5, 20, 15)
SHAPE = [(3, 32, 32)]


def picture(path: Path) -> None:
    pixels = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    pixels[BOX[1] : BOX[3], BOX[0] : BOX[2]] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def yolo(root: Path, line: str = "") -> str:
    for part in ("train", "val"):
        picture(root / "images" / part / "one.png")
        picture(root / "images" / part / "two.png")
        (root / "labels" / part).mkdir(parents=True)
        (root / "labels" / part / "one.txt").write_text(line or "3 0.375 0.5 0.25 0.5\n")
    return str(root)


def coco(root: Path, **changed: Any) -> str:
    for part in ("train", "val"):
        picture(root / part / "one.png")
        picture(root / part / "two.png")
        box = {"image_id": 7, "category_id": 9, "bbox": [10, 5, 10, 10]} | changed
        crowd = box | {"bbox": [0, 0, 40, 20], "iscrowd": 1}
        content = {
            "images": [{"id": 7, "file_name": "one.png"}, {"id": 8, "file_name": "two.png"}],
            "annotations": [box, crowd],
            "categories": [{"id": i, "name": f"kind {i}"} for i in (9, 2, 4, 5)],
        }
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"instances_{part}.json").write_text(json.dumps(content))
    return str(root / "annotations" / "instances_train.json")


def masks(root: Path) -> str:
    picture(root / "images" / "one.png")
    mask = np.zeros((SIZE[1], SIZE[0]), np.uint8)
    mask[BOX[1] : BOX[3], BOX[0] : BOX[2]] = 2
    (root / "masks").mkdir()
    Image.fromarray(mask).save(root / "masks" / "one.png")
    return str(root)


@pytest.mark.parametrize("make", [yolo, coco])
def test_boxes_move_with_their_image(make: Callable[[Path], str], tmp_path: Path):
    """The white pixels of the model's input are those inside the box; an image without objects has none."""
    dataset: Dataset = open_data(make(tmp_path), input_shapes=SHAPE)
    assert len(dataset) == 4
    assert dataset.test_indices is not None and dataset.test_indices.tolist() == [2, 3]
    first, second = dataset.targets[0], dataset.targets[1]
    assert first["labels"].tolist() == [3] and second["labels"].tolist() == []
    assert second["boxes"].shape == (0, 4)
    (images,) = dataset.batch([0])
    inside = images[0, 0] > 0.75
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    x1, y1, x2, y2 = first["boxes"][0]
    assert np.allclose([x1, y1, x2, y2], [8, 12, 16, 20])  # 0.8 of its size, 8 rows of grey above it
    assert [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1] == [x1, y1, x2, y2]


def test_class_numbers_of_coco_follow_the_category_ids(tmp_path: Path):
    """Names stand in that order; crowd regions are no boxes."""
    dataset = open_data(coco(tmp_path), input_shapes=SHAPE)
    assert dataset.class_names == ("kind 2", "kind 4", "kind 5", "kind 9")
    assert len(dataset.targets[0]["boxes"]) == 1


def test_a_polygon_of_yolo_counts_by_its_box(tmp_path: Path):
    """Segment labels of the same format need no other reader."""
    line = "3 0.25 0.25 0.5 0.25 0.5 0.75 0.25 0.75\n"
    dataset = open_data(yolo(tmp_path, line), input_shapes=SHAPE)
    assert np.allclose(dataset.targets[0]["boxes"], [[8, 12, 16, 20]])


def test_masks_move_with_their_image(tmp_path: Path):
    """Class numbers are kept as they are, and what lies outside the image belongs to no class."""
    dataset = open_data(masks(tmp_path), input_shapes=SHAPE)
    (images,) = dataset.batch([0])
    mask = dataset.targets[0]
    assert mask.shape == (32, 32) and sorted(np.unique(mask)) == [0, 2, 255]
    assert ((images[0, 0] > 0.75) == (mask == 2)).all()
    assert (mask[:8] == 255).all() and (mask[24:] == 255).all() and (mask[8:24] != 255).all()


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda p: yolo(p, "3 0.375 0.5 0.25\n"), "one.txt, line 1: '3 0.375 0.5 0.25' is no box"),
        (lambda p: yolo(p, "3 0.9 0.5 0.25 0.5\n"), "line 1: 3 0.9 0.5 0.25 0.5 is no box of"),
        (lambda p: coco(p, category_id=1), r"annotations\[0\] is of the category 1"),
        (lambda p: coco(p, image_id=1), r"annotations\[0\] is of the image 1"),
        (lambda p: coco(p, bbox=[1, 2]), r"bbox \[1, 2\] is not x, y, width, height"),
        (lambda p: _changed(coco(p), "one.png", "../../secret.png"), "may lie outside its folder"),
        (lambda p: _changed(coco(p), "one.png", "gone.png"), "'gone.png' was not found"),
        (lambda p: _changed(coco(p), '"images"', '"pictures"'), "has no list 'images'"),
        (lambda p: _without_mask(masks(p)), "one.png has no mask"),
        (lambda p: _small_mask(masks(p)), "mask .*one.png has 10×10 pixels, its image 40×20"),
    ],
    ids=["short", "outside", "category", "image", "bbox", "path", "gone", "no coco", "no mask", "mask size"],
)  # fmt: skip
def test_annotations_that_are_none_are_one_sentence(make: Callable[[Path], str], text: str, tmp_path: Path):
    """File and line, or file and entry, are named."""
    with pytest.raises(DataError, match=text) as refused:
        open_data(make(tmp_path), input_shapes=SHAPE)
    assert "\n" not in refused.value.message


def _changed(spec: str, old: str, new: str) -> str:
    path = Path(spec)
    path.write_text(path.read_text().replace(old, new))
    return spec


def _without_mask(root: str) -> str:
    (Path(root) / "masks" / "one.png").unlink()
    return root


def _small_mask(root: str) -> str:
    Image.fromarray(np.zeros((10, 10), np.uint8)).save(Path(root) / "masks" / "one.png")
    return root
