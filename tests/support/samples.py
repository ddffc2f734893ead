"""Twelve small images, the files that hold them, and a user's module that makes them."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (12, 6, 5), dtype=np.uint8)
Y = np.arange(12, dtype=np.uint8) % 3
XT = RNG.integers(0, 256, (4, 6, 5), dtype=np.uint8)
YT = np.array([2, 1, 0, 1], dtype=np.uint8)
SHAPE = [(1, 6, 5)]
EXPECTED = (X[:, None] / 255.0).astype(np.float32)


def write_idx(path: Path, array: np.ndarray[Any, Any]) -> None:
    body = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(body) if path.suffix == ".gz" else body)


def idx_folder(folder: Path, suffix: str = "", test: bool = True) -> Path:
    folder.mkdir()
    write_idx(folder / f"train-images-idx3-ubyte{suffix}", X)
    write_idx(folder / f"train-labels-idx1-ubyte{suffix}", Y)
    if test:
        write_idx(folder / f"t10k-images-idx3-ubyte{suffix}", XT)
        write_idx(folder / f"t10k-labels-idx1-ubyte{suffix}", YT)
    return folder


FUNCTIONS = '''
import numpy as np
import torch

X = np.load("x.npy")
Y = np.load("y.npy")

def pair():
    return X, Y

def alone():
    return X

def fails():
    raise OSError("disk on fire")

def nonsense():
    return 3

class Items:
    def __len__(self):
        return len(X)
    def __getitem__(self, i):
        return torch.from_numpy(X[i]), int(Y[i])

class Images(Items):
    """No labels."""
    def __getitem__(self, i):
        return torch.from_numpy(X[i])

class Poisoned(Items):
    def __getitem__(self, i):
        values = torch.from_numpy(X[i]).float()
        if i == 7:
            values[0, 0] = float("nan")
        return values, int(Y[i])

class Ragged(Items):
    def __getitem__(self, i):
        return torch.zeros(6, 5 + (i == 5)), int(Y[i])

class Broken(Items):
    def __getitem__(self, i):
        if i == 3:
            raise RuntimeError("bad sector")
        return super().__getitem__(i)

class Targets(Images):
    targets = Y.tolist()

items, images, targets = Items(), Images(), Targets()
poisoned, ragged, broken = Poisoned(), Ragged(), Broken()
'''
