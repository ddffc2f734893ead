"""Canvases with several garments of Fashion-MNIST each: the data of detection and segmentation.

    python -m benchmarks.tasks.canvases OUT --train 2400 --val 400 --test 600
    make_canvas(garments, labels, rng)      image, boxes, labels and mask of one canvas

A canvas is `SIZE` × `SIZE` grey pixels: a background of smooth noise, clutter (lines, discs, pieces of
garments too small to count) and two to six garments of 10 classes, 28 to 80 pixels high, stretched and
brightened or darkened, drawn over each other as long as three quarters of every garment stay visible. Test
canvases take their garments from the test files of Fashion-MNIST, the others from disjoint parts of the
training files.
One seed gives the same bytes. Boxes are tight around the pixels that belong to a garment.
Elsewhere: training on them (train_yolo, train_small), the rows of the benchmark (run).
"""

from __future__ import annotations

import argparse
import gzip
import json
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

SOURCE = Path("/usr/share/datasets/fashion-mnist")
SIZE = 192
CLASSES = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle-boot",
)
INK = 24  # of 255; fainter pixels of a garment are background
VISIBLE = 0.75


@dataclass(frozen=True)
class Canvas:
    """One picture: image uint8 (SIZE, SIZE); boxes (n, 4) x1, y1, x2, y2 in pixels; labels (n,); mask with
    0 for background and 1 + class elsewhere."""

    image: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    mask: NDArray[np.uint8]


def garments(part: str, source: Path = SOURCE) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images (n, 28, 28) and labels (n,) of "train" (50,000), "val" (10,000) or "test" (10,000)."""
    stem = "t10k" if part == "test" else "train"
    with gzip.open(source / f"{stem}-images-idx3-ubyte.gz") as file:
        _, count, rows, columns = struct.unpack(">4i", file.read(16))
        images = np.frombuffer(file.read(), np.uint8).reshape(count, rows, columns)
    with gzip.open(source / f"{stem}-labels-idx1-ubyte.gz") as file:
        file.read(8)
        labels = np.frombuffer(file.read(), np.uint8)
    rows_of = {"train": slice(0, 50_000), "val": slice(50_000, None), "test": slice(None)}[part]
    return images[rows_of], labels[rows_of]


def make_canvas(
    images: NDArray[np.uint8], labels: NDArray[np.uint8], rng: np.random.Generator, size: int = SIZE
) -> Canvas:
    """Draw one canvas; at least one garment is on it."""
    canvas = _background(rng, size)
    _clutter(canvas, images, rng)
    owner = np.zeros((size, size), np.int64)  # 1 + number of the garment on top
    areas: list[int] = []
    kinds: list[int] = []
    wanted = int(rng.integers(2, 7))
    for _ in range(4 * wanted):
        if len(areas) == wanted:
            break
        which = int(rng.integers(len(images)))
        piece, ink = _stretched(images[which], rng, 28, 80)
        height, width = piece.shape
        y, x = int(rng.integers(0, size - height + 1)), int(rng.integers(0, size - width + 1))
        window = (slice(y, y + height), slice(x, x + width))
        after = owner.copy()
        after[window][ink] = len(areas) + 1
        left = np.bincount(after.ravel(), minlength=len(areas) + 2)[1:-1]
        if any(seen < VISIBLE * area for seen, area in zip(left, areas, strict=True)):
            continue
        owner = after
        canvas[window][ink] = piece[ink]
        areas.append(int(ink.sum()))
        kinds.append(int(labels[which]))
    boxes = np.array([_box(owner == 1 + i) for i in range(len(kinds))], np.float32).reshape(-1, 4)
    mask = np.concatenate([[0], np.array(kinds) + 1])[owner].astype(np.uint8)
    noisy = canvas + rng.normal(0, 6, canvas.shape)
    return Canvas(np.clip(noisy, 0, 255).astype(np.uint8), boxes, np.array(kinds, np.int64), mask)


def make_canvases(part: str, count: int, source: Path = SOURCE, size: int = SIZE) -> list[Canvas]:
    """`count` canvases of one part, always the same."""
    images, labels = garments(part, source)
    rng = np.random.default_rng([17, {"train": 0, "val": 1, "test": 2}[part]])
    return [make_canvas(images, labels, rng, size) for _ in range(count)]


def write_yolo(canvases: list[Canvas], folder: Path, part: str) -> None:
    """images/PART/NUMBER.png, labels/PART/NUMBER.txt: class, centre and size as shares of the canvas."""
    for kind in ("images", "labels"):
        (folder / kind / part).mkdir(parents=True, exist_ok=True)
    for i, canvas in enumerate(canvases):
        size = len(canvas.image)
        Image.fromarray(canvas.image).convert("RGB").save(folder / "images" / part / f"{i:05}.png")
        corners = canvas.boxes / size
        centre, extent = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
        lines = [
            f"{kind} {x:.6f} {y:.6f} {w:.6f} {h:.6f}"
            for kind, (x, y), (w, h) in zip(canvas.labels, centre, extent, strict=True)
        ]
        (folder / "labels" / part / f"{i:05}.txt").write_text("".join(f"{line}\n" for line in lines))


def write_folder(folder: Path, counts: dict[str, int], source: Path = SOURCE) -> None:
    """The layout that Ultralytics' trainer reads, with its data.yaml."""
    for part, count in counts.items():
        write_yolo(make_canvases(part, count, source), folder, part)
    names = "".join(f"  {i}: {name}\n" for i, name in enumerate(CLASSES))
    parts = "".join(f"{part}: images/{part}\n" for part in counts)
    (folder / "data.yaml").write_text(f"path: {json.dumps(str(folder.resolve()))}\n{parts}names:\n{names}")


def _background(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    """Smooth noise about a random grey."""
    coarse = rng.uniform(0, 255, (6, 6)).astype(np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC), np.float64)
    return rng.uniform(30, 110) + 0.35 * (smooth - 128)


def _clutter(canvas: NDArray[np.float64], images: NDArray[np.uint8], rng: np.random.Generator) -> None:
    """Lines, discs and quarter pieces of garments, which are no objects."""
    size = len(canvas)
    layer = Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(layer)
    for _ in range(int(rng.integers(2, 7))):
        x1, y1, x2, y2 = (int(v) for v in rng.integers(0, size, 4))
        draw.line((x1, y1, x2, y2), fill=int(rng.integers(0, 256)), width=int(rng.integers(1, 4)))
        radius = int(rng.integers(3, 10))
        draw.ellipse((x2 - radius, y2 - radius, x2 + radius, y2 + radius), fill=int(rng.integers(0, 256)))
    canvas[:] = np.asarray(layer, np.float64)
    for _ in range(int(rng.integers(1, 5))):
        whole = images[int(rng.integers(len(images)))]
        dy, dx = (14 * int(v) for v in rng.integers(0, 2, 2))
        piece, ink = _stretched(whole[dy : dy + 14, dx : dx + 14], rng, 10, 22)
        y, x = (int(rng.integers(0, size - s + 1)) for s in piece.shape)
        canvas[y : y + piece.shape[0], x : x + piece.shape[1]][ink] = piece[ink]


def _stretched(
    image: NDArray[np.uint8], rng: np.random.Generator, low: int, high: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The picture at a random size and brightness, and which of its pixels carry ink."""
    height = int(rng.integers(low, high + 1))
    width = int(np.clip(round(height * rng.uniform(0.75, 1.3)), low, high))
    flipped = image[:, ::-1] if rng.random() < 0.5 else image
    scaled = np.asarray(
        Image.fromarray(flipped).resize((width, height), Image.Resampling.BILINEAR), np.float64
    )
    ink = scaled > INK
    return np.clip(scaled * rng.uniform(0.7, 1.1) + rng.uniform(-10, 30), 0, 255), ink


def _box(mask: NDArray[np.bool_]) -> list[float]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tasks.canvases", description=__doc__.splitlines()[0]
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--source", type=Path, default=SOURCE)
    for part, count in (("train", 2400), ("val", 400), ("test", 600)):
        parser.add_argument(f"--{part}", type=int, default=count)
    options = parser.parse_args()
    write_folder(options.folder, {p: getattr(options, p) for p in ("train", "val", "test")}, options.source)


if __name__ == "__main__":
    main()
