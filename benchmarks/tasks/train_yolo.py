"""Train a YOLO of Ultralytics on the canvases with Ultralytics' own trainer; writes a checkpoint.

    python -m benchmarks.tasks.train_yolo yolo11n canvases/ --out benchmarks/tasks/checkpoints

Ultralytics is AGPL-3.0 and no dependency of edgeprune: who runs this installs it (see tasks.mk). The
weights are stored in half precision (NAME.safetensors, beside it NAME.json with the facts of the training);
`build_yolo` builds the network for them. Elsewhere: the pictures (canvases), the benchmark (run).
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from benchmarks.recording import ROOT, versions
from benchmarks.tasks.canvases import CLASSES, SIZE

CHECKPOINTS = ROOT / "benchmarks" / "tasks" / "checkpoints"
os.environ.setdefault("YOLO_OFFLINE", "1")


def build_yolo(name: str) -> nn.Module:
    """The network `name` for the ten classes of the canvases, with random weights."""
    from ultralytics.nn.tasks import DetectionModel

    model: nn.Module = DetectionModel(f"{name}.yaml", nc=len(CLASSES), verbose=False)
    return model.eval()


def train(name: str, data: Path, out: Path, minutes: float, batch: int, threads: int) -> dict[str, Any]:
    """Train for `minutes`, over which the learning rate falls; gives the facts that go beside the file."""
    from ultralytics import YOLO

    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        model = YOLO(f"{name}.yaml")
        torch.set_num_threads(threads)
        model.train(
            data=str(data / "data.yaml"), time=minutes / 60, epochs=10, imgsz=SIZE, batch=batch,
            device="cpu", workers=0, optimizer="AdamW", lr0=2e-3, lrf=0.02, cos_lr=True, warmup_epochs=1,
            mosaic=0.0, scale=0.2, hsv_h=0.0, hsv_s=0.0, hsv_v=0.2, seed=0, val=False, plots=False,
            amp=False, project=scratch, name="run", verbose=True, exist_ok=True,
        )  # fmt: skip
        epochs = int(model.trainer.epoch) + 1
        best = YOLO(str(Path(scratch) / "run" / "weights" / "last.pt"))
        torch.set_num_threads(threads)
        scores = best.val(
            data=str(data / "data.yaml"), split="test", imgsz=SIZE, device="cpu", workers=0, plots=False
        )
        state = {
            k: v.half().contiguous()
            for k, v in best.model.float().state_dict().items()
            if v.is_floating_point()
        }
    out.mkdir(parents=True, exist_ok=True)
    save_file(state, out / f"{name}.safetensors")
    facts = {
        "command": f"python -m benchmarks.tasks.train_yolo {name} CANVASES --minutes {minutes:g}",
        "epochs": epochs,
        "canvases": {p: len(list((data / "images" / p).iterdir())) for p in ("train", "val", "test")},
        "map": round(float(scores.box.map), 4),
        "map50": round(float(scores.box.map50), 4),
        "seconds": round(time.monotonic() - began),
        "versions": versions(("torch", "ultralytics")),
    }
    (out / f"{name}.json").write_text(json.dumps(facts, indent=1) + "\n")
    return facts


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tasks.train_yolo", description=__doc__.splitlines()[0]
    )
    parser.add_argument("name", help="yolo11n, yolov8n, …")
    parser.add_argument("data", type=Path, help="the folder that benchmarks.tasks.canvases wrote")
    parser.add_argument("--out", type=Path, default=CHECKPOINTS)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    print(train(options.name, options.data, options.out, options.minutes, options.batch, options.threads))


if __name__ == "__main__":
    main()
