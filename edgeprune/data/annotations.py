"""Boxes and masks that stand in files beside their images: which image, which classes, where.

    coco/instances_val.json, coco/val/0001.jpg              COCO: read_coco
    set/images/train/1.jpg, set/labels/train/1.txt          YOLO: read_yolo, one `class x y w h` a line
    set/images/train/1.jpg, set/masks/train/1.png           masks: read_masks, one class number a pixel

Guarantee: boxes come as corners in pixels of the image as stored; no file outside the folder that the user
named is opened. Crowd regions of COCO are left out, and of a polygon (YOLO's segments) its box is taken.
Elsewhere: scaling images with their boxes and masks to the model's size (annotated).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from edgeprune.data.images import require_regular
from edgeprune.data.pictures import opened_picture
from edgeprune.errors import DataError
from edgeprune.paths import printable, read_file

PART_NAMES = {
    "train": ("train", "training"), "validation": ("val", "valid", "validation"), "test": ("test",),
}  # fmt: skip
FORM = "class, centre x, centre y, width, height as shares of the image"


@dataclass(frozen=True)
class Annotated:
    """One image with its boxes (n, 4) and labels (n,), or with the file of its mask."""

    image: Path
    boxes: npt.NDArray[np.float32] | None = None
    labels: npt.NDArray[np.int64] | None = None
    mask: Path | None = None


@dataclass(frozen=True)
class AnnotatedParts:
    """Images by part ("train", "validation", "test"), and the names of classes where the files have them."""

    parts: dict[str, list[Annotated]]
    names: tuple[str, ...] | None = None


def is_annotated(root: Path) -> bool:
    """Whether a folder holds images with boxes or masks, and no class folders."""
    return (root / "images").is_dir() and any((root / kind).is_dir() for kind in ("labels", "masks"))


def read_folder(root: Path, name: str) -> AnnotatedParts:
    """Images of `root/images` with `root/labels` or `root/masks`.

    Raises:
        DataError: both are there, no images, an image without a mask, a line that is no box.
    """
    kinds = [kind for kind in ("labels", "masks") if (root / kind).is_dir()]
    if len(kinds) > 1:
        raise DataError(f"{name}: holds labels and masks", tip="keep the folder of one task")
    read = _boxes_of if kinds[0] == "labels" else _mask_of
    parts = {
        part: [read(image, root / kinds[0] / folder, name) for image in images_in(root / "images" / folder)]
        for part, folder in _folders(root / "images").items()
    }
    if not any(parts.values()):
        raise DataError(f"{name}: no images in {printable(root / 'images')}")
    return AnnotatedParts({part: rows for part, rows in parts.items() if rows})


def read_coco(path: Path, name: str) -> AnnotatedParts:
    """A COCO file; of `instances_train….json` the files of `val` and `test` beside it become these parts.

    Class numbers follow the category ids in rising order, and are those of the training file in every part.

    Raises:
        DataError: no COCO file, an annotation of an unknown image or category, an image that is not found.
    """
    content = _parsed(path)
    order = {int(c["id"]): i for i, c in enumerate(sorted(content["categories"], key=lambda c: int(c["id"])))}
    names = tuple(str(c["name"]) for c in sorted(content["categories"], key=lambda c: int(c["id"])))
    parts = {"train": _coco_rows(path, content, order, name)}
    for part in ("validation", "test"):
        beside = _beside(path, part)
        if beside is not None:
            parts[part] = _coco_rows(beside, _parsed(beside), order, name)
    return AnnotatedParts(parts, names)


def images_in(folder: Path) -> list[Path]:
    """The images of one folder, sorted by name."""
    suffixes = Image.registered_extensions()
    images = sorted(p for p in folder.iterdir() if p.suffix.lower() in suffixes and not p.is_dir())
    for path in images:
        require_regular(path)
    return images


def _folders(images: Path) -> dict[str, str]:
    """Part -> its folder in `images`; the folder itself where it has none."""
    present = {p.name.lower(): p.name for p in images.iterdir() if p.is_dir()}
    chosen = {
        part: present[alias]
        for part, aliases in PART_NAMES.items()
        if (alias := next((a for a in aliases if a in present), None)) is not None
    }
    return chosen if "train" in chosen else {"train": ""}


def _boxes_of(image: Path, labels: Path, name: str) -> Annotated:
    path = labels / f"{image.stem}.txt"
    if not path.exists():  # by the format's convention an image without objects
        return Annotated(image, np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    with opened_picture(image) as (picture, _):
        width, height = picture.size
    boxes, kinds = [], []
    for number, values in _lines(path, name):
        place = np.asarray(values[1:])
        if len(place) == 4:
            low, high = place[:2] - place[2:] / 2, place[:2] + place[2:] / 2
        else:
            low, high = place.reshape(-1, 2).min(axis=0), place.reshape(-1, 2).max(axis=0)
        if low.min() < -1e-3 or high.max() > 1 + 1e-3 or values[0] < 0 or values[0] != int(values[0]):
            raise DataError(
                f"{name}: {printable(path)}, line {number}: {' '.join(f'{v:g}' for v in values[:5])} is no"
                f" box of the image; {FORM} are expected"
            )
        boxes.append([low[0] * width, low[1] * height, high[0] * width, high[1] * height])
        kinds.append(int(values[0]))
    return Annotated(image, np.array(boxes, np.float32).reshape(-1, 4), np.array(kinds, np.int64))


def _lines(path: Path, name: str) -> Iterator[tuple[int, list[float]]]:
    """Line number and numbers of every line that is not empty."""
    for number, line in enumerate(_text(path).splitlines(), 1):
        words = line.split()
        if not words:
            continue
        try:
            values = [float(w) for w in words]
        except ValueError:
            values = []
        if len(values) < 5 or len(values) % 2 == 0 or not np.isfinite(values).all():
            raise DataError(
                f"{name}: {printable(path)}, line {number}: {line[:60]!r} is no box", tip=f"{FORM}"
            )
        yield number, values


def _mask_of(image: Path, masks: Path, name: str) -> Annotated:
    mask = next((p for s in (".png", ".bmp", ".tif") if (p := masks / f"{image.stem}{s}").exists()), None)
    if mask is None:
        raise DataError(
            f"{name}: {printable(image)} has no mask {printable(masks / image.stem)}.png",
            tip="give a grey or palette PNG with a class number a pixel for every image",
        )
    require_regular(mask)
    return Annotated(image, mask=mask)


def _text(path: Path) -> str:
    try:
        return read_file(path, DataError).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{printable(path)}: is no UTF-8 text") from error


def _parsed(path: Path) -> dict[str, Any]:
    """A COCO file as plain values, its three lists checked."""
    try:
        content = json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{printable(path)}: is no JSON: {error}") from error
    wanted = {"images": ("id", "file_name"), "annotations": ("image_id", "category_id", "bbox"),
              "categories": ("id", "name")}  # fmt: skip
    for key, fields in wanted.items():
        rows = content.get(key) if isinstance(content, dict) else None
        if not isinstance(rows, list):
            raise DataError(
                f"{printable(path)}: has no list {key!r}, so it is no COCO file",
                tip="COCO's detection files hold images, annotations and categories",
            )
        for index, row in enumerate(rows):
            if not isinstance(row, dict) or any(field not in row for field in fields):
                raise DataError(f"{printable(path)}: {key}[{index}] lacks one of {', '.join(fields)}")
    return dict(content)


def _coco_rows(path: Path, content: dict[str, Any], order: dict[int, int], name: str) -> list[Annotated]:
    files = {row["id"]: _located(path, str(row["file_name"]), name) for row in content["images"]}
    boxes: dict[Any, list[list[float]]] = {key: [] for key in files}
    kinds: dict[Any, list[int]] = {key: [] for key in files}
    for index, row in enumerate(content["annotations"]):
        if row.get("iscrowd"):
            continue
        where = f"{name}: {path.name}: annotations[{index}]"
        if row["image_id"] not in files:
            raise DataError(f"{where} is of the image {row['image_id']!r}, which the file does not list")
        if row["category_id"] not in order:
            raise DataError(
                f"{where} is of the category {row['category_id']!r}, which the file does not list"
            )
        try:
            x, y, width, height = (float(v) for v in row["bbox"])
        except (TypeError, ValueError) as error:
            raise DataError(f"{where}: bbox {str(row['bbox'])[:60]} is not x, y, width, height") from error
        boxes[row["image_id"]].append([x, y, x + width, y + height])
        kinds[row["image_id"]].append(order[row["category_id"]])
    return [
        Annotated(file, np.array(boxes[key], np.float32).reshape(-1, 4), np.array(kinds[key], np.int64))
        for key, file in files.items()
    ]


def _located(path: Path, file: str, name: str) -> Path:
    """An image of a COCO file, which may lie beside it or in the folder of its split."""
    if Path(file).is_absolute() or ".." in Path(file).parts:
        raise DataError(f"{name}: {path.name} names the image {file!r}, which may lie outside its folder")
    here, split = path.parent, path.stem.rpartition("_")[2]
    roots = [base / sub for base in (here, here.parent) for sub in ("", "images", split, f"images/{split}")]
    found = next((root / file for root in roots if (root / file).is_file()), None)
    if found is None:
        raise DataError(
            f"{name}: the image {file!r} was not found beside {path.name}",
            tip=f"put the images in {printable(here / 'images')} or in {printable(here.parent / split)}",
        )
    return found


def _beside(path: Path, part: str) -> Path | None:
    """`instances_val2017.json` for `instances_train2017.json`."""
    for alias in PART_NAMES[part]:
        other = path.with_name(path.name.replace("train", alias))
        if "train" in path.name and other.is_file():
            return other
    return None
