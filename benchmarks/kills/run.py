"""Kill a full run at random moments, continue it, and compare what it ends in with an undisturbed run.

    python -m benchmarks.kills.run 50      # kills in all, earlier ones counted; resumes

The run is `compress` with a front, 8 bits and a latency profile, on a small network. It is begun in an
empty folder and ended by SIGKILL, with what it had started, after a random time; the same command goes on
and is killed again, five times at most, before it may end. Then it must hold:

    same        removed.json, recipe.json and every float ONNX file are those of the undisturbed run, byte
                for byte. Files in 8 bits are left out: timing decides whether there are any, and which of
                their layers keep float.
    kept        what was entered as finished before a kill has the same bytes afterwards
    clean       the folder has the files of the undisturbed run and no other, none of them temporary, and
                nothing new stands beside it

A row is one run with its kills. `whole` counts the rows in which all three held.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.recording import ROOT, content_hash, known_rows, record, sources, table

WORK = ROOT / "build" / "kills"
FACTORY = "benchmarks.kills.run:network"
SIDE, CLASSES, SAMPLES = 14, 4, 480
PER_RUN = 5  # kills before a run may end
COLUMNS = ["seed", "kills", "seconds", "stages_at_kills", "same", "kept", "clean"]


def network() -> nn.Module:
    """Three convolutions wide enough that 8 bits may pay, and a classifier."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, CLASSES),
    ).eval()  # fmt: skip


def prepare(folder: Path) -> None:
    """The network's weights, its data and its latency profile, unless they are there."""
    if (folder / "profile.json").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    from safetensors.torch import save_file

    save_file(dict(network().state_dict()), folder / "net.safetensors")
    rng = np.random.default_rng(0)
    y = rng.integers(0, CLASSES, SAMPLES)
    x = (rng.normal(size=(SAMPLES, 1, SIDE, SIDE)) + y[:, None, None, None]).astype(np.float32)
    part = SAMPLES * 4 // 5
    np.savez(folder / "data.npz", x=x[:part], y=y[:part], x_test=x[part:], y_test=y[part:])
    profile = ["profile", "net.safetensors", *MODEL, "--networks", "6", "--seconds", "2"]
    subprocess.run([*EDGEPRUNE, *profile, "-o", "profile.json"], cwd=folder, env=_environment(), check=True)


EDGEPRUNE = (sys.executable, "-m", "edgeprune")
MODEL = ("--model", FACTORY, "--input-shape", f"1,{SIDE},{SIDE}")
REQUEST = (
    "compress", "net.safetensors", *MODEL, "--data", "data.npz", "--macs", "0.5", "--max-drop", "50",
    "--profile", "profile.json", "--front", "3", "--int8", "on", "--epochs", "2", "--rounds", "2",
    "--bench-seconds", "0.3",
)  # fmt: skip


def start(folder: Path, output: str) -> subprocess.Popen[bytes]:
    """The run, in a process group of its own."""
    return subprocess.Popen(
        [*EDGEPRUNE, *REQUEST, "-o", output], cwd=folder, env=_environment(), start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=(folder / f"{output}.log").open("ab"),
    )  # fmt: skip


def undisturbed(folder: Path) -> tuple[Path, float]:
    """The folder of a run that nothing disturbed, and how long it took, seconds."""
    took = folder / "undisturbed.seconds"
    if not took.exists():
        shutil.rmtree(folder / "undisturbed", ignore_errors=True)
        began = time.monotonic()
        code = start(folder, "undisturbed").wait()
        if code:
            raise SystemExit(f"the undisturbed run failed: see {folder / 'undisturbed.log'}")
        took.write_text(f"{time.monotonic() - began:.1f}")
    return folder / "undisturbed", float(took.read_text())


def trial(seed: int, kills: int, folder: Path, reference: Path, seconds: float) -> dict[str, Any]:
    """One run with at most `kills` kills, and what it ended in."""
    rng, output = random.Random(seed), f"killed-{seed}"
    run = folder / output
    shutil.rmtree(run, ignore_errors=True)
    beside = {p.name for p in folder.iterdir()} | {output, f"{output}.log"}
    began, at, finished = time.monotonic(), list[str](), dict[str, str]()
    kept = True
    while len(at) < kills:
        process = start(folder, output)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(rng.uniform(0.02, 0.5) * seconds)
            break  # it ended before
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        stages = _stages(run)
        at.append(stages[-1] if stages else "nothing")
        now = _entered(run)
        kept &= all(now.get(name) == digest for name, digest in finished.items())
        finished |= now
    code = start(folder, output).wait()
    after = hashes(run)
    kept &= all(after.get(name) == digest for name, digest in finished.items())
    row = {
        "seed": seed, "kills": len(at), "seconds": round(time.monotonic() - began, 1), "stages_at_kills": at,
        "same": code == 0 and comparable(after) == comparable(hashes(reference)), "kept": kept,
        "clean": code == 0 and _names(after) == _names(hashes(reference))
        and {p.name for p in folder.iterdir()} <= beside,
    }  # fmt: skip
    if row["same"] and row["kept"] and row["clean"]:
        shutil.rmtree(run)
        (folder / f"{output}.log").unlink()
    return row


def hashes(run: Path) -> dict[str, str]:
    """Relative name -> sha256 of every file, hidden ones included."""
    return {
        p.relative_to(run).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(run.rglob("*"))
        if p.is_file()
    }


def comparable(files: dict[str, str]) -> dict[str, str]:
    """What does not depend on timings: what was removed, and the float files by name.

    The planned float file is model.onnx, or model-float.onnx where its 8-bit form ships.
    """
    fixed = {"removed.json", "recipe.json"}
    kept = {k: v for k, v in files.items() if k in fixed or (k.endswith(".onnx") and "int8" not in k)}
    planned = kept.pop("model-float.onnx", None)
    return kept if planned is None else kept | {"model.onnx": planned}


def _names(files: dict[str, str]) -> set[str]:
    """Names of the files that every such run has, whether or not 8 bits were faster."""
    return {name for name in files if "int8" not in name and name != "model-float.onnx"}


def _stages(run: Path) -> list[str]:
    path = run / "stages.json"
    return list(json.loads(path.read_text())) if path.exists() else []


def _entered(run: Path) -> dict[str, str]:
    """Files that stages.json vouches for, by their hash."""
    path = run / "stages.json"
    stages = json.loads(path.read_text()) if path.exists() else {}
    return {name: digest for entry in stages.values() for name, digest in entry.items()}


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def main() -> int:
    """Kill until there are as many kills as asked; the result is written after every run."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.kills.run", description=__doc__.splitlines()[0]
    )
    parser.add_argument("kills", type=int, nargs="?", default=50, help="in all, earlier ones counted")
    options = parser.parse_args()
    prepare(WORK)
    reference, seconds = undisturbed(WORK)
    rows: list[dict[str, Any]] = known_rows("kills")
    while (left := options.kills - sum(row["kills"] for row in rows)) > 0:
        row = trial(len(rows), min(PER_RUN, left), WORK, reference, seconds)
        row["code"] = content_hash(sources([ROOT / "edgeprune"]))
        rows.append(row)
        whole = sum(r["same"] and r["kept"] and r["clean"] for r in rows)
        eight = sum("int8" in name for name in hashes(reference))
        record(
            "kills", rows, kills=sum(r["kills"] for r in rows), runs=len(rows), whole=whole,
            undisturbed_seconds=seconds, files_in_8_bits=eight,
        )  # fmt: skip
        print(row, flush=True)
    print(table(rows, COLUMNS))
    return 0 if all(r["same"] and r["kept"] and r["clean"] for r in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
