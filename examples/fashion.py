"""Train an image network on Fashion-MNIST.

    python -m examples.fashion --net fashion_resnet
    python -m examples.fashion --net fashion_resnet --from-scratch shape.json --out scratch.safetensors

The data are the four idx files of Debian's `dataset-fashion-mnist` (or of its
authors, Zalando; MIT licence). The last 5,000 training images choose the epoch.
`--from-scratch` takes a JSON object of parameter name → shape, or layer → width,
and trains that narrower network from random weights under the same recipe.
"""

from __future__ import annotations

import argparse
import gzip
import json
import struct
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from edgeprune.errors import DataError, EdgepruneError
from examples import nets, training
from examples.training import Part, Parts, Recipe

DATA = Path("/usr/share/datasets/fashion-mnist")
CHECKPOINTS = Path(__file__).parent / "checkpoints"
VALIDATION = 5000
FILES = {"train": "train", "test": "t10k"}


def read_idx(path: Path) -> np.ndarray:
    """Read one idx file of bytes, gzipped or not, as uint8.

    Raises:
        DataError: the file is missing, is no idx file of bytes, or is cut short.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        tip = "install dataset-fashion-mnist, or name another folder with --data"
        raise DataError(f"cannot read '{path}': {error.strerror}", tip=tip) from error
    if raw[:2] == b"\x1f\x8b":
        try:
            raw = gzip.decompress(raw)
        except (EOFError, OSError) as error:
            raise DataError(f"'{path}' is a damaged gzip file") from error
    if len(raw) < 4 or raw[:3] != b"\0\0\x08":
        raise DataError(f"'{path}' is not an idx file of bytes")
    rank = raw[3]
    if len(raw) < 4 + 4 * rank:
        raise DataError(f"'{path}' ends within its header")
    shape = struct.unpack(f">{rank}I", raw[4 : 4 + 4 * rank])
    values = np.frombuffer(raw, np.uint8, offset=4 + 4 * rank)
    if values.size != int(np.prod(shape)):
        raise DataError(f"'{path}' holds {values.size} values, its header says {shape}")
    return values.reshape(shape)


def load_part(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Images, uint8 (samples, 28, 28), and labels, uint8 (samples,), of 'train' or 'test'."""
    found = {}
    for kind in ("images-idx3", "labels-idx1"):
        plain = folder / f"{FILES[name]}-{kind}-ubyte"
        found[kind] = read_idx(plain if plain.exists() else plain.with_name(plain.name + ".gz"))
    images, labels = found.values()
    if images.ndim != 3 or len(images) != len(labels):
        raise DataError(f"'{folder}': {images.shape} images do not fit {labels.shape} labels")
    return images, labels


def as_part(images: np.ndarray, labels: np.ndarray) -> Part:
    """Bytes (samples, 28, 28) as float32 (samples, 1, 28, 28) in 0..1, with int64 labels."""
    return Part(
        torch.from_numpy(images.astype(np.float32) / 255)[:, None], torch.from_numpy(labels.astype(np.int64))
    )


def load(folder: Path, subset: int = 0) -> Parts:
    """Fashion-MNIST as float32 (samples, 1, 28, 28) in 0..1; `subset` > 0 keeps that many training images."""
    images, labels = load_part(folder, "train")
    if len(images) <= VALIDATION:
        raise DataError(f"'{folder}' has {len(images)} training images; {VALIDATION} are held out")
    keep = min(subset or len(images), len(images) - VALIDATION)
    return Parts(
        as_part(images[:keep], labels[:keep]),
        as_part(images[-VALIDATION:], labels[-VALIDATION:]),
        as_part(*load_part(folder, "test")),
    )


def flip_and_shift(x: Tensor, generator: torch.Generator, reach: int = 2) -> Tensor:
    """Mirror half of the images and move each by up to `reach` pixels, black coming in."""
    count, _, height, width = x.shape
    padded = F.pad(x, (reach,) * 4)
    rows = torch.arange(height) + torch.randint(0, 2 * reach + 1, (count, 1), generator=generator)
    columns = torch.arange(width) + torch.randint(0, 2 * reach + 1, (count, 1), generator=generator)
    mirrored = torch.rand(count, 1, generator=generator) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns)
    images = torch.arange(count)[:, None, None]
    return padded[:, 0][images, rows[:, :, None], columns[:, None, :]][:, None]


def read_widths(path: Path) -> dict[str, int]:
    """Layer widths from a JSON object of parameter name → shape, or layer → width."""
    try:
        given = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read '{path}' as JSON: {error}") from error
    if not isinstance(given, dict) or not given:
        raise DataError(f"'{path}' holds no object of layer → width or parameter → shape")
    if all(isinstance(value, int) for value in given.values()):
        return given
    if all(isinstance(value, list) and all(isinstance(n, int) for n in value) for value in given.values()):
        return nets.widths_of(given)
    raise DataError(f"'{path}' mixes values; give widths only or shapes only")


def main(arguments: list[str] | None = None) -> None:
    """Parse, train, report the test accuracy, save."""
    parser = argparse.ArgumentParser(prog="python -m examples.fashion", description="Train on Fashion-MNIST.")
    parser.add_argument("--net", choices=sorted(nets.IMAGE_NETS), default="fashion_resnet")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the four idx files")
    parser.add_argument("--subset", type=int, default=0, help="train on the first N images only")
    parser.add_argument("--from-scratch", type=Path, metavar="SHAPE.json", help="train this narrower shape")
    training.add_options(parser)
    options = parser.parse_args(arguments)
    recipe = training.with_options(Recipe(), options)
    try:
        parts = load(options.data, options.subset)
        widths = read_widths(options.from_scratch) if options.from_scratch else None
        torch.manual_seed(recipe.seed)
        model = nets.calm_start(nets.IMAGE_NETS[options.net](widths))
        fitted = training.fit(model, parts, recipe, flip_and_shift)
        facts = training.facts_of("examples.fashion", recipe, fitted, model, parts)
        facts |= {"net": options.net, "widths": widths or "dense"}
        path = training.save(model, options.out or CHECKPOINTS / f"{options.net}.safetensors", facts)
    except EdgepruneError as error:
        raise training.fail(error) from None
    print(training.summary(facts, path))


if __name__ == "__main__":
    main()
