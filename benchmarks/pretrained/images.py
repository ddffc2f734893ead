"""Photographs from Debian's tuxpaint-stamps-default, pasted on backgrounds made here.

The package holds photographs with transparent surroundings. Each becomes a picture on a background of
smooth random colour, at a random place and size. Photographs are divided first and pasted then, so that no
photograph is in two parts, however often it is pasted.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

DRAWN = ("symbols", "cartoon", "flags")
SMALLEST = 60  # pixels; smaller ones are icons
PARTS = {"calibration": 0.6, "validation": 0.15, "test": 0.25}  # shares of the photographs
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def photographs(folder: Path) -> list[Path]:
    """The package's photographs, drawings left out, in an order that depends on their names alone."""
    root = folder / "usr" / "share" / "tuxpaint" / "stamps"
    names = []
    for path in sorted(root.rglob("*.png")):
        inside = path.relative_to(root).as_posix()
        if any(word in inside for word in DRAWN) or path.stem.endswith("_mirror"):
            continue
        with Image.open(path) as image:
            if min(image.size) >= SMALLEST:
                names.append(path)
    if not names:
        raise SystemExit(f"{root}: no photographs; run `make bench-pretrained`, which fetches them")
    return sorted(names, key=lambda p: hashlib.sha256(p.name.encode()).hexdigest())


def part(folder: Path, name: str, count: int, size: int) -> np.ndarray:
    """`count` pictures (count, 3, size, size) float32 of one part, normalised as ImageNet's."""
    paths = photographs(folder)
    edges = np.round(np.cumsum([0, *PARTS.values()]) * len(paths)).astype(int)
    at = list(PARTS).index(name)
    mine = paths[edges[at] : edges[at + 1]]
    return np.stack([paste(mine[i % len(mine)], i // len(mine), size) for i in range(count)])


def paste(path: Path, turn: int, size: int) -> np.ndarray:
    """The photograph on its `turn`-th background, shape (3, size, size)."""
    rng = np.random.default_rng([int(hashlib.sha256(path.name.encode()).hexdigest()[:8], 16), turn])
    picture = background(rng, size)
    with Image.open(path) as image:
        stamp = image.convert("RGBA")
    share = rng.uniform(0.6, 1.0) * size / max(stamp.size)
    stamp = stamp.resize([max(1, round(share * s)) for s in stamp.size], Image.Resampling.LANCZOS)
    if rng.random() < 0.5:
        stamp = stamp.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    left, top = (int(rng.integers(0, size - s + 1)) for s in stamp.size)
    picture.paste(stamp, (left, top), stamp)
    values = (np.asarray(picture, dtype=np.float64) / 255 - MEAN) / STD
    return values.transpose(2, 0, 1).astype(np.float32)


def background(rng: np.random.Generator, size: int) -> Image.Image:
    """Smooth random colours with grain."""
    coarse = rng.uniform(0, 255, size=(int(rng.integers(1, 6)), int(rng.integers(1, 6)), 3)).astype(np.uint8)
    smooth = Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)
    grain = rng.normal(0, rng.uniform(0, 12), size=(size, size, 1))
    return Image.fromarray((np.asarray(smooth, dtype=np.float64) + grain).clip(0, 255).astype(np.uint8))
