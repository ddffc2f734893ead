"""The data of bench-tasks, one function per task: `--data benchmarks.tasks.datasets:NAME`.

Pictures are made of Fashion-MNIST (Debian: dataset-fashion-mnist); sentences are the package descriptions of
`apt-cache dumpavail`; series are seglearn's smartwatch recordings. Every function gives arrays with a
training, a validation and a test part that share no garment, source package or person. A seed gives the same
arrays each time.
"""

from __future__ import annotations

import functools
import hashlib
import re
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.tasks.canvases import garments, make_canvases

Arrays = dict[str, Any]
COUNTS = {"train": 6_000, "val": 3_000, "test": 3_000}
CANVASES = {"train": 900, "val": 500, "test": 500}
PIXELS = 64  # of the canvases that are segmented, a third of their full size
ENDINGS = {"train": "", "val": "_val", "test": "_test"}
SHIRT = 6
PAST, HORIZON = 64, 16
MAX_WORDS, VOCABULARY = 24, 2_000
# t-shirt, pullover, coat and shirt are one class of the masks; so are sandal, sneaker and ankle boot
MASK_CLASSES = np.array([0, 1, 2, 1, 3, 1, 4, 1, 4, 5, 4], np.int64)
WORD = re.compile(r"[A-Za-z][A-Za-z0-9+#-]*|[^\sA-Za-z]")


def _parts(
    make: Callable[[str, NDArray[np.uint8], NDArray[np.uint8], np.random.Generator], Arrays],
) -> Arrays:
    """What `make` gives for each part, under the names that `--data` reads."""
    arrays: Arrays = {}
    for number, (part, end) in enumerate(ENDINGS.items()):
        images, labels = garments(part)
        made = make(part, images, labels, np.random.default_rng([29, number]))
        arrays |= {f"{key}{end}": value for key, value in made.items()}
    return arrays


def binary() -> Arrays:
    """x (N, 28, 28); y 1 for shirts, among the garments that look like them."""

    def make(part: str, images: Any, labels: Any, rng: np.random.Generator) -> Arrays:
        tops = np.flatnonzero(np.isin(labels, (0, 2, 4, SHIRT)))
        shirts = np.flatnonzero(labels == SHIRT)
        half = COUNTS[part] // 2
        others = np.setdiff1d(tops, shirts)
        few = min(half, len(shirts), len(others))
        chosen = rng.permutation(
            np.concatenate([rng.permutation(shirts)[:few], rng.permutation(others)[:few]])
        )
        return {"x": images[chosen], "y": (labels[chosen] == SHIRT).astype(np.int64)}

    return _parts(make)


def multilabel() -> Arrays:
    """x (N, 56, 56): up to four garments; y (N, 10) rows of 0 and 1."""

    def make(part: str, images: Any, labels: Any, rng: np.random.Generator) -> Arrays:
        count = COUNTS[part]
        x, y = np.zeros((count, 56, 56), np.uint8), np.zeros((count, 10), np.int64)
        for i in range(count):
            for place in np.flatnonzero(rng.random(4) < 0.6):
                which = int(rng.integers(len(images)))
                top, left = 28 * (place // 2), 28 * (place % 2)
                x[i, top : top + 28, left : left + 28] = images[which]
                y[i, labels[which]] = 1
        return {"x": x, "y": y}

    return _parts(make)


def turned(image: NDArray[np.uint8], rng: np.random.Generator) -> tuple[NDArray[np.uint8], list[float]]:
    """A garment turned by up to 40 degrees, scaled and shifted; the three numbers, each about −1 to 1."""
    angle, scale, shift = rng.uniform(-1, 1, 3)
    turn, size = np.deg2rad(40 * angle), 0.75 + 0.2 * scale
    cos, sin = np.cos(turn) / size, np.sin(turn) / size
    x0, y0 = 13.5 + 4 * shift, 13.5
    matrix = (cos, sin, 13.5 - cos * x0 - sin * y0, -sin, cos, 13.5 + sin * x0 - cos * y0)
    moved = Image.fromarray(image).transform(
        (28, 28), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR
    )
    return np.asarray(moved), [angle, scale, shift]


def _turned_set(count: int, images: Any, labels: Any, rng: np.random.Generator) -> tuple[Any, Any, Any]:
    x, numbers = np.zeros((count, 28, 28), np.uint8), np.zeros((count, 3), np.float32)
    chosen = rng.integers(len(images), size=count)
    for i, which in enumerate(chosen):
        x[i], numbers[i] = turned(images[which], rng)
    return x, numbers, labels[chosen].astype(np.int64)


def regression() -> Arrays:
    """x (N, 28, 28); y (N, 3): angle, scale, shift."""

    def make(part: str, images: Any, labels: Any, rng: np.random.Generator) -> Arrays:
        x, numbers, _ = _turned_set(COUNTS[part], images, labels, rng)
        return {"x": x, "y": numbers}

    return _parts(make)


def two_outputs() -> Arrays:
    """x (N, 28, 28); y_0 the class, y_1 (N, 1) the angle."""

    def make(part: str, images: Any, labels: Any, rng: np.random.Generator) -> Arrays:
        x, numbers, kinds = _turned_set(COUNTS[part], images, labels, rng)
        return {"x": x, "y_0": kinds, "y_1": numbers[:, :1]}

    return _parts(make)


def segmentation() -> Arrays:
    """x (N, 64, 64): canvases at a third of their size; y masks of six classes with background."""

    def make(part: str, images: Any, labels: Any, rng: np.random.Generator) -> Arrays:
        drawn = make_canvases(part, CANVASES[part])
        x = np.stack([c.image.reshape(PIXELS, 3, PIXELS, 3).mean((1, 3)).astype(np.uint8) for c in drawn])
        return {"x": x, "y": np.stack([MASK_CLASSES[c.mask[1::3, 1::3]] for c in drawn])}

    return _parts(make)


def ctc() -> Arrays:
    """x (N, 28, 140): two to five garments in a line; y their classes from 1, of unequal length."""

    def make(part: str, images: Any, labels: Any, rng: np.random.Generator) -> Arrays:
        count = COUNTS[part] // 2
        x, lines = np.zeros((count, 28, 140), np.uint8), []
        for i in range(count):
            number, left, line = int(rng.integers(2, 6)), 0, []
            for _ in range(number):
                left += int(rng.integers(0, (140 - left) // 28 * 4 - 4 * (number - len(line)) + 1)) // 2
                which = int(rng.integers(len(images)))
                x[i, :, left : left + 28] = np.maximum(x[i, :, left : left + 28], images[which])
                line.append(int(labels[which]) + 1)
                left += 26 if len(line) < number else 28
            lines.append(np.array(line, np.int64))
        return {"x": x, "y_values": np.concatenate(lines), "y_offsets": np.cumsum([0, *map(len, lines)])}

    return _parts(make)


def forecasting() -> Arrays:
    """x (N, 64, 6): a smartwatch's past; y (N, 16, 6): what it measures next. Parts hold different people."""
    from examples.wearable import TEST_PEOPLE, VALIDATION_PEOPLE, recordings

    watch = recordings()
    people = np.asarray(watch["subject"])
    scale = np.concatenate(list(watch["X"])).std(axis=0)
    apart = {"val": np.isin(people, (6, *VALIDATION_PEOPLE)), "test": np.isin(people, TEST_PEOPLE)}
    apart["train"] = ~(apart["val"] | apart["test"])
    arrays: Arrays = {}
    for part, end in ENDINGS.items():
        past, future = [], []
        for i in np.flatnonzero(apart[part]):
            series = (np.asarray(watch["X"][i], np.float32) / scale).astype(np.float32)
            for start in range(0, len(series) - PAST - HORIZON + 1, 12):
                past.append(series[start : start + PAST])
                future.append(series[start + PAST : start + PAST + HORIZON])
        arrays |= {f"x{end}": np.stack(past), f"y{end}": np.stack(future)}
    return arrays


@functools.cache
def _sentences() -> list[tuple[str, list[str]]]:
    from examples.debian_text import read_packages

    return [(text.source, WORD.findall(text.description)[:MAX_WORDS]) for text in read_packages()]


def tokens() -> Arrays:
    """x (N, 24) word numbers without case; y (N, 24): 0 small, 1 with a capital, 2 otherwise, −100 no word.

    Words are hashed into `VOCABULARY` numbers from 1; 0 fills up. The first word is left out: it is small by
    convention.
    """
    rows: dict[str, list[tuple[Any, Any]]] = {part: [] for part in ENDINGS}
    for source, words in _sentences():
        x, y = np.zeros(MAX_WORDS, np.int64), np.full(MAX_WORDS, -100, np.int64)
        for i, word in enumerate(words):
            x[i] = 1 + zlib.crc32(word.lower().encode()) % (VOCABULARY - 1)
            if i and word[0].isalpha():
                y[i] = 0 if word == word.lower() else 1 if word == word.capitalize() else 2
        if (y >= 0).any():
            place = int(hashlib.sha256(source.encode()).hexdigest()[:8], 16) % 10
            rows["test" if place == 0 else "val" if place == 1 else "train"].append((x, y))
    arrays: Arrays = {}
    for part, end in ENDINGS.items():
        kept = rows[part][: COUNTS[part] * (4 if part == "train" else 1)]
        arrays |= {f"x{end}": np.stack([x for x, _ in kept]), f"y{end}": np.stack([y for _, y in kept])}
    return arrays


def detection() -> Arrays:
    """x (N, 192, 192, 3): the canvases that the detector was trained and tested on; boxes and classes."""
    arrays: Arrays = {}
    for part, count in (("train", 2_400), ("val", 400), ("test", 600)):
        drawn, end = make_canvases(part, count), ENDINGS[part]
        arrays[f"x{end}"] = np.repeat(np.stack([c.image for c in drawn])[..., None], 3, axis=3)
        arrays[f"y_boxes{end}"] = np.concatenate([c.boxes for c in drawn])
        arrays[f"y_labels{end}"] = np.concatenate([c.labels for c in drawn])
        arrays[f"y_offsets{end}"] = np.cumsum([0, *(len(c.labels) for c in drawn)])
    return arrays
