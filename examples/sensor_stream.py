"""A sensor stream with a deadline: how many wheels can one core listen to?

    python -m examples.sensor_stream                  under two minutes on two cores, from a fresh clone

Every wheel of a vehicle carries six axes at 50 Hz; a 1-d convolutional network names the road and
what happens on it from the last 2.56 s, at every new sample. Streams arrive whether the processor is
ready or not: an answer later than one sample period is missed. The example trains the network on
simulated rides, compresses it, and feeds both files 50 inputs a second and stream, with as many
streams as the dense network can just about take, and with more.

The rides are simulated (noise, resonances, gravity on slopes), so nothing is downloaded. The figures
that count are measured: accuracy on rides with other seeds, and the share of missed answers.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgeprune.errors import EdgepruneError
from examples import sequence_nets, training
from examples.sequence_nets import EXERCISES, SENSORS, WINDOW
from examples.training import Part, Parts, Recipe

ROOT = Path(__file__).parent.parent
CLASSES = ("smooth", "gravel", "cobbles", "pothole", "bump", "braking", "cornering")
RATE_HZ = 50
TRAIN, VALIDATION, TEST = 3000, 500, 2000
RECIPE = Recipe(epochs=5, batch=64, optimizer="adamw", lr=3e-3, weight_decay=1e-2, choose="last")


def rides(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows, float32 (count, 128, 6): acceleration in g and rotation in rad/s; int64 classes."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(CLASSES), count)
    t = np.arange(WINDOW) / RATE_HZ
    speed = rng.uniform(5, 30, count)[:, None]  # m/s
    x = 0.02 * rng.standard_normal((count, WINDOW, SENSORS)) * (1 + speed[..., None] / 30)
    x[..., 2] += 1.0  # gravity
    x[..., :3] += 0.05 * rng.standard_normal((count, 1, 3))  # slope of the road, mounting of the sensor
    hop = np.sin(2 * np.pi * rng.uniform(9, 13, count)[:, None] * t + rng.uniform(0, 6.3, count)[:, None])
    x[..., 2] += 0.02 * hop  # the wheel's own resonance
    where = rng.uniform(0.4, 2.1, count)[:, None]
    decay = np.where(t > where, np.exp(-(t - where) * rng.uniform(4, 8, count)[:, None]), 0.0)
    size = rng.uniform(0.5, 1.5, count)[:, None]
    rough = rng.standard_normal((count, WINDOW))
    period = np.sin(2 * np.pi * np.minimum(speed / rng.uniform(1.2, 1.8, (count, 1)), 20) * t)
    ramp = np.clip((t - where) * 2, 0, 1)
    shapes = {
        "gravel": [(2, 0.09 * size * rough), (3, 0.03 * size * rough[:, ::-1])],
        "cobbles": [(2, 0.13 * size * period + 0.03 * rough)],
        "pothole": [(2, -0.35 * size * decay * np.sin(2 * np.pi * 8 * (t - where))), (4, 0.1 * size * decay)],
        "bump": [(2, 0.35 * size * decay * np.sin(2 * np.pi * 3 * (t - where))), (4, -0.1 * size * decay)],
        "braking": [(0, -0.3 * size * ramp), (4, 0.04 * ramp)],
        "cornering": [(1, 0.25 * size * ramp), (5, 0.3 * size * ramp)],
    }
    for name, parts in shapes.items():
        mine = labels == CLASSES.index(name)
        for axis, signal in parts:
            x[mine, :, axis] += np.broadcast_to(signal, (count, WINDOW))[mine]
    return x.astype(np.float32), labels.astype(np.int64)


def data() -> dict[str, np.ndarray]:
    """What `--data examples.sensor_stream:data` reads."""
    x, y = rides(TRAIN + VALIDATION, 1)
    x_test, y_test = rides(TEST, 2)
    return {"x": x, "y": y, "x_test": x_test, "y_test": y_test}


def train(path: Path) -> float:
    """Train the network of `wearable_cnn`'s shape on rides and save it; gives its test accuracy."""
    assert len(CLASSES) == EXERCISES
    found = {name: torch.from_numpy(value) for name, value in data().items()}
    fitted, held = slice(0, TRAIN), slice(TRAIN, None)
    parts = Parts(
        Part(found["x"][fitted], found["y"][fitted]),
        Part(found["x"][held], found["y"][held]),
        Part(found["x_test"], found["y_test"]),
    )
    torch.manual_seed(RECIPE.seed)
    model = sequence_nets.wearable_cnn()
    result = training.fit(model, parts, RECIPE)
    facts = training.facts_of("examples.sensor_stream", RECIPE, result, model, parts)
    training.save(model, path, facts)
    return float(facts["test_accuracy"])


def edgeprune(*arguments: str) -> dict[str, Any]:
    """Run a command of edgeprune from the root of the clone and read its JSON."""
    command = [sys.executable, "-m", "edgeprune", *arguments, "--json"]
    print("edgeprune", *arguments, file=sys.stderr)
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise EdgepruneError(f"edgeprune {arguments[0]} ended with {done.returncode}", tip="see above")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main(arguments: list[str] | None = None) -> None:
    """Train, compress, feed both files in time."""
    parser = argparse.ArgumentParser(prog="python -m examples.sensor_stream", description="A sensor stream.")
    parser.add_argument("--folder", type=Path, help="where the run goes [a temporary folder]")
    parser.add_argument("--macs", default="4x", help="how far to prune")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as made:
        folder = (options.folder or Path(made)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        try:
            run(folder, options.macs, options.seconds)
        except EdgepruneError as error:
            raise training.fail(error) from None


def run(folder: Path, macs: str, seconds: float) -> None:
    """The whole example; prints the table."""
    weights, out = folder / "wheel.safetensors", folder / "wheel-edgeprune"
    accuracy = train(weights)
    report = edgeprune(
        "compress", str(weights), "--model", "examples.sequence_nets:wearable_cnn",
        "--input-shape", f"{WINDOW},{SENSORS}", "--data", "examples.sensor_stream:data", "--macs", macs,
        "--rounds", "1", "--epochs", "3", "--front", "0", "--int8", "off", "--bench-seconds", "2",
        "--output", str(out), "--force",
    )  # fmt: skip
    drop = report["accuracy"]["drop"]
    files = [str(out / "dense.onnx"), str(out / "model.onnx")]
    print(f"dense network: {accuracy:.1%} of {TEST} unseen rides")
    print(f"pruned: {drop['value']:.2f} points lost [{drop['low']:.2f}, {drop['high']:.2f}]")
    deadline_ms = 1e3 / RATE_HZ
    plain = edgeprune("bench", *files, "--seconds", str(seconds))
    middle = [m["p50_ms"]["value"] for m in plain["models"]]
    ratio = plain["ratios"][0]["ratio"]
    print(f"time ratio {ratio['value']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}], one core")
    full = int(1e3 / middle[0] / RATE_HZ)  # streams that fill one core with the dense network
    print(f"\n{'streams':>8}  {'inputs/s':>8}  answers later than {deadline_ms:g} ms: dense      pruned")
    for streams in (1, max(1, full * 3 // 4), max(2, full * 3 // 2)):
        rate = streams * RATE_HZ
        timed = ["--seconds", str(seconds), "--rate", str(rate), "--deadline-ms", str(deadline_ms)]
        found = edgeprune("bench", *files, *timed)
        missed = [m["missed"] for m in found["models"]]
        cells = [f"{m['value']:.1%} [{m['low']:.1%}, {m['high']:.1%}]" for m in missed]
        print(f"{streams:>8}  {rate:>8}  {cells[0]:>38}  {cells[1]}")


if __name__ == "__main__":
    main()
