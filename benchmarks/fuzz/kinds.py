"""The kinds of files that the tool reads: which file of the corpus is changed, and what reads it.

    KINDS["pt2"].act(folder)    read the changed copy of the corpus in `folder` as a user's command would

An action returns where the file is accepted and raises where it is refused. Commands run in this process
through click, so that an exception that would be a traceback for a user is one here.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.fuzz import corpus
from benchmarks.fuzz.mutations import mutate

Action = Callable[[Path], None]


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        files: of the corpus; one is changed.
        needs: further files and folders of the corpus that the action reads.
        act: reads the file.
        share: of the inputs, relative to the other kinds.
        refused: the unchanged file is refused already.
    """

    files: tuple[str, ...]
    needs: tuple[str, ...]
    act: Action
    share: float = 1.0
    refused: bool = False


def prepare(kind: str, index: int | None, seeds: Path, folder: Path) -> str:
    """Copy what an input needs into `folder`; gives the changed file. Index None changes nothing."""
    rng = random.Random(f"{kind}/{index}")
    wanted = KINDS[kind]
    for name in dict.fromkeys(Path(n).parts[0] for n in (*wanted.files, *wanted.needs)):
        source = seeds / name
        if source.is_dir():
            shutil.copytree(source, folder / name)
        else:
            shutil.copy(source, folder / name)
    changed = rng.choice(wanted.files)
    if index is not None:
        path = folder / changed
        path.write_bytes(mutate(path.read_bytes(), path.name, rng))
    return changed


def command(*arguments: str) -> None:
    """Run a command of the tool in this process."""
    from edgeprune.cli import cli

    cli.main(args=list(arguments), standalone_mode=False)


def _inspect(name: str, *more: str) -> Action:
    return lambda folder: command("inspect", str(folder / name), *more, "--json")


def _data(name: str) -> Action:
    def act(folder: Path) -> None:
        from edgeprune.data import open_data, split

        dataset = open_data(str(folder / name), input_shapes=[(1, corpus.SIDE, corpus.SIDE)])
        parts = split(dataset, seed=0, calibration=8)
        dataset.batch(parts.train[:4])
        for index in range(min(len(dataset), 12)):
            dataset.batch([index])

    return act


def _mask(folder: Path) -> None:
    from edgeprune.masks import check_mask, read_mask

    shapes = {name: tuple(value.shape) for name, value in _state().items()}
    check_mask(read_mask(folder / "mask.npz"), shapes)


def _onnx(folder: Path) -> None:
    from edgeprune.export import files

    path = folder / "run" / "dense.onnx"
    files.check_onnx(path)
    files.artifact_record(path)


def _bench(folder: Path) -> None:
    command(
        "bench", str(folder / "run/dense.onnx"), str(folder / "run/model.onnx"), "--seconds", "0.1", "--json"
    )


def _quantise(folder: Path) -> None:
    output = str(folder / "int8.onnx")
    command(
        "quantise", str(folder / "run/dense.onnx"), "--data", str(folder / "data.npz"),
        "--bench-seconds", "0.1", "--calibration", "32", "--anyway", "-o", output, "--json",
    )  # fmt: skip


def _run_records(folder: Path) -> None:
    from edgeprune.store import RunFolder

    run = RunFolder(folder / "run", _request())
    for stage in run.finished():
        run.load(stage)


def _report(folder: Path) -> None:
    from edgeprune.report import render_html, render_table, validate_report
    from edgeprune.store import read_record

    report = read_record(folder / "run" / "report.json")
    validate_report(report)
    render_table(report)
    render_html(report)
    _pick(folder)


def _pick(folder: Path) -> None:
    command("pick", str(folder / "run"), "--json")
    command("pick", str(folder / "run"), _point(), "-o", str(folder / "picked"), "--json")
    command(
        "ship", str(folder / "run"), "--bundle", str(folder / "new"), "--name", "x", "--architecture", "any"
    )


def _explain(folder: Path) -> None:
    command("explain", str(folder / "run"), "0:0", "--json")
    command("explain", str(folder / "run"), "0")


def _apply(folder: Path) -> None:
    model = ("--model", corpus.FACTORY, "--input-shape", corpus.SHAPE)
    recipe, state = folder / "run" / "recipe.json", folder / "state.safetensors"
    command("apply", str(recipe), str(state), *model, "-o", str(folder / "sliced.safetensors"), "--json")


def _manifest(folder: Path) -> None:
    from edgeprune.deploy.agent import MANIFEST
    from edgeprune.deploy.bundle import open_bundle
    from edgeprune.deploy.bundle_parts import SEAL

    bundle = folder / "bundle"
    digest = hashlib.sha256((bundle / MANIFEST).read_bytes()).hexdigest()
    (bundle / SEAL).write_text(f"{digest}  {MANIFEST}\n")  # else nothing but the seal would be checked
    open_bundle(bundle)


def _profile(folder: Path) -> None:
    from edgeprune.latency import check_compatibility, latency_cost, read_profile, require_network

    traced, couplings = _traced()
    profile = read_profile(folder / "profile.json")
    check_compatibility(profile)
    require_network(profile, traced, couplings)
    if not latency_cost(profile, traced, couplings).dense > 0:
        raise ArithmeticError("a profile that predicts no time was accepted")


def _target(folder: Path) -> None:
    command("targets", str(folder / "target.toml"), "--json")
    mine = folder / "targets"
    mine.mkdir()
    shutil.copy(folder / "target.toml", mine / "mine.toml")
    os.environ["EDGEPRUNE_TARGETS"] = str(mine)
    try:
        command("targets", "--json")
    finally:
        del os.environ["EDGEPRUNE_TARGETS"]


@functools.cache
def _state() -> dict[str, Any]:
    return dict(corpus.network().state_dict())


@functools.cache
def _traced() -> tuple[Any, Any]:
    import torch

    from edgeprune.coupling.analysis import analyse
    from edgeprune.graph.trace import trace

    traced = trace(corpus.network(), (torch.randn(2, 1, corpus.SIDE, corpus.SIDE),))
    return traced, analyse(traced)


@functools.cache
def _request() -> dict[str, Any]:
    """What the run of the corpus was asked for; opening with it continues that run."""
    request: dict[str, Any] = json.loads((_SEEDS[0] / "run" / "run.json").read_text())["request"]
    return request


@functools.cache
def _point() -> str:
    """A point of the corpus' front that can be picked."""
    front = json.loads((_SEEDS[0] / "run" / "report.json").read_text())["front"]
    return str(next(p["name"] for p in front if p["name"].startswith("plan-")))


_SEEDS: list[Path] = []


def use_corpus(folder: Path) -> None:
    """Where the unchanged files are."""
    _SEEDS[:] = [folder]


STATE = ("--model", corpus.FACTORY, "--input-shape", corpus.SHAPE)
IDX = tuple(f"idx/{p}-{n}" for p in ("train", "t10k") for n in ("images-idx3-ubyte", "labels-idx1-ubyte.gz"))
IMAGES = tuple(
    f"images/{k}/{n}" for k in ("cat", "dog") for n in ("a.png", "b.jpg", "c.bmp", "d.gif", "e.tif")
)
KINDS: dict[str, Kind] = {
    "pt2": Kind(("model.pt2",), (), _inspect("model.pt2"), 1),
    "pt2-pruned": Kind(("pruned.pt2",), (), _inspect("pruned.pt2"), 1),
    "state-dict": Kind(("state.pt",), (), _inspect("state.pt", *STATE), 1.5),
    "pickle": Kind(("module.pt",), (), _inspect("module.pt"), 1, refused=True),
    "safetensors": Kind(("state.safetensors",), (), _inspect("state.safetensors", *STATE), 1.5),
    "onnx": Kind(("run/dense.onnx",), (), _onnx, 2),
    "onnx-bench": Kind(("run/dense.onnx",), (), _bench, 0.1),
    "onnx-quantise": Kind(("run/dense.onnx",), ("data.npz",), _quantise, 0.1),
    "npz": Kind(("data.npz",), (), _data("data.npz"), 1.5),
    "idx": Kind(IDX, (), _data("idx"), 1.5),
    "images": Kind(IMAGES, (), _data("images"), 1.5),
    "mask": Kind(("mask.npz",), (), _mask),
    "run": Kind(("run/run.json", "run/stages.json", "run/dense.json"), (), _run_records),
    "report": Kind(("run/report.json",), (), _report, 1.5),
    "removed": Kind(("run/removed.json",), (), _explain),
    "recipe": Kind(("run/recipe.json",), ("state.safetensors",), _apply, 0.5),
    "preprocess": Kind(("run/preprocess.json", "run/golden.npz"), (), _pick),
    "manifest": Kind(("bundle/manifest.json",), (), _manifest),
    "profile": Kind(("profile.json",), (), _profile),
    "target": Kind(("target.toml",), (), _target),
}
