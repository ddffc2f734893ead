"""The seed corpus of the file fuzzer: one small valid file of every kind that the tool reads.

    build(folder)    models, data, mask, target, profile, a finished run and its bundle

The tool itself writes the files from one small network, so that they follow its formats as these change. A
corpus is kept until it is deleted; the fuzzer begins by reading every file of it, so that one of older
formats is noticed.
Elsewhere: changing the files (mutations, structured).
"""

from __future__ import annotations

import gzip
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from benchmarks.recording import ROOT

SIDE, CLASSES, SAMPLES = 8, 3, 240
FACTORY = "benchmarks.fuzz.corpus:network"
SHAPE = f"1,{SIDE},{SIDE}"


def network() -> nn.Module:
    """Two convolutions and a classifier, in evaluation mode."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES),
    ).eval()  # fmt: skip


def build(folder: Path) -> None:
    """Write the corpus, unless the folder holds one.

    Raises:
        SystemExit: a command of the tool fails on valid input; its message is printed.
    """
    complete = folder / "complete"
    if complete.exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _models(folder)
    _data(folder)
    target = (ROOT / "targets" / "rpi4.toml").read_text()
    (folder / "target.toml").write_text(target)
    model = ["state.safetensors", "--model", FACTORY, "--input-shape", SHAPE]
    quick = ["--epochs", "0", "--rounds", "1", "--int8", "off", "--front", "1", "--bench-seconds", "0.3"]
    _run(folder, "compress", *model, "--data", "data.npz", "--macs", "0.6", *quick, "--output", "run")
    _run(folder, "ship", "run", "--bundle", "bundle", "--name", "fuzz", "--architecture", "any")
    _run(folder, "profile", *model, "--networks", "4", "--seconds", "1", "-o", "profile.json")
    _run(folder, "prune", *model, "--data", "data.npz", "--macs", "0.6", "-o", "pruned.pt2")
    complete.touch()


def _models(folder: Path) -> None:
    net = network()
    torch.save(net.state_dict(), folder / "state.pt")
    torch.save(net, folder / "module.pt")
    from safetensors.torch import save_file

    save_file(dict(net.state_dict()), folder / "state.safetensors")
    example = (torch.randn(2, 1, SIDE, SIDE),)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(net, example, dynamic_shapes=({0: batch},))
    torch.export.save(program, folder / "model.pt2")
    zeroed = {
        name: np.ones(value.shape, np.uint8) for name, value in net.state_dict().items() if value.dim() > 1
    }
    zeroed["0.weight"][:2] = 0
    np.savez_compressed(folder / "mask.npz", **zeroed)


def _data(folder: Path) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, CLASSES, SAMPLES)
    x = (rng.normal(size=(SAMPLES, 1, SIDE, SIDE)) + y[:, None, None, None]).astype(np.float32)
    part = SAMPLES * 4 // 5
    np.savez_compressed(folder / "data.npz", x=x[:part], y=y[:part], x_test=x[part:], y_test=y[part:])
    images, labels = (x[:60, 0] * 20 + 120).clip(0, 255).astype(np.uint8), y[:60].astype(np.uint8)
    idx = folder / "idx"
    idx.mkdir()
    for name, (first, stop) in {"train": (0, 40), "t10k": (40, 60)}.items():
        _idx(idx / f"{name}-images-idx3-ubyte", images[first:stop])
        _idx(idx / f"{name}-labels-idx1-ubyte.gz", labels[first:stop])
    for number, name in enumerate(("a.png", "b.jpg", "c.bmp", "d.gif", "e.tif", "f.png")):
        for kind in ("cat", "dog"):
            place = folder / "images" / kind / name
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images[number]).save(place)


def _idx(path: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    content = header + array.tobytes()
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def _run(folder: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "edgeprune", *arguments]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"corpus: edgeprune {' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
