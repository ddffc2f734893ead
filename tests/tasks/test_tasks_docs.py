"""docs/tasks.md: the table names every task and measure, its files open as that task, its code runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgeprune.data import open_data
from edgeprune.tasks.base import Task, parts_of
from edgeprune.tasks.infer import infer_task
from edgeprune.tasks.registry import TASKS, fit_task, resolve_task

TEXT = (Path(__file__).parents[2] / "docs/tasks.md").read_text(encoding="utf-8")
ROWS = {
    row[0].strip("`"): row for row in re.findall(r"^\| (`\w+`) \|(.*)\|$", TEXT.split("## Measured")[0], re.M)
}
RNG = np.random.default_rng(1)
N = 20


def f(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


COUNTS = np.arange(N) % 3 + 1
CORNER = RNG.uniform(0, 50, (COUNTS.sum(), 2))
NAMES: dict[str, Any] = {
    "x": f(N, 3), "labels": np.arange(N) % 4, "yes": np.arange(N) % 2, "rows": RNG.integers(0, 2, (N, 4)),
    "values": f(N), "future": f(N, 6, 2), "masks": RNG.integers(0, 3, (N, 4, 5)),
    "tags": RNG.integers(0, 3, (N, 7)), "symbols": RNG.integers(1, 4, COUNTS.sum()),
    "starts": np.cumsum([0, *COUNTS]), "boxes": np.concatenate([CORNER, CORNER + 20], 1),
    "kinds": np.arange(COUNTS.sum()) % 4,
}  # fmt: skip
OUTPUTS = {
    "classification": f(N, 4), "binary": f(N, 1), "multilabel": f(N, 4), "regression": f(N, 1),
    "forecasting": f(N, 6, 2), "segmentation": f(N, 3, 4, 5), "tokens": f(N, 7, 3), "ctc": f(N, 9, 4),
    "detection": np.zeros((N, 8, 60), np.float32), "embedding": f(N, 16), "generic": f(N, 2, 3, 4),
}  # fmt: skip
for image, (start, end) in enumerate(zip(NAMES["starts"][:-1], NAMES["starts"][1:], strict=True)):
    OUTPUTS["detection"][image, :2, : end - start] = NAMES["boxes"][start:end, :2].T + 10
    OUTPUTS["detection"][image, 2:4, : end - start] = 20
    OUTPUTS["detection"][image, 4 + NAMES["kinds"][start:end], np.arange(end - start)] = 0.9


def test_the_table_names_every_task_and_measure():
    """No task without a row, no measure without its name, no row without a task."""
    assert set(ROWS) == set(TASKS)
    for name, row in ROWS.items():
        cells = row[1].split(" | ")
        measures = resolve_task(name).measures
        assert name == "generic" or all(f"`{measure}`" in cells[2] for measure in measures), name
        units = {measure.unit for measure in measures.values()}
        assert all(unit in cells[3] for unit in units), (name, units)


@pytest.mark.parametrize("name", TASKS)
def test_the_files_of_the_table_open_as_their_task(name: str, tmp_path: Path):
    """Written as the table says, opened, inferred, checked and scored."""
    code = re.findall(r"`(savez\(.*?\))`", ROWS[name][1])[0]
    path = tmp_path / "d.npz"
    eval(code, {**NAMES, "savez": np.savez, "file": path})  # the table's own text
    targets, outputs = open_data(path).targets, (OUTPUTS[name],)
    task, _ = infer_task(outputs, targets)
    assert task.name == (name if name != "embedding" else "generic")
    task = fit_task(resolve_task(name), outputs, targets)
    if targets is not None:
        task.check(outputs, targets, "data")
        assert np.isfinite(task.score(outputs, targets).value)


def test_the_task_of_ones_own_runs():
    """The page's code keeps the contract: scores, slopes, distances, alone and beside another output."""
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    names: dict[str, Any] = {"__name__": "mymodule"}
    own = [b for b in blocks if "class Angle" in b or "task = MultiTask" in b]
    assert len(own) == 2
    for block in own:
        exec(compile(block, "tasks.md", "exec", dont_inherit=True), names)
    degrees = RNG.uniform(-180, 180, N)
    exact = np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], 1)
    task = resolve_task(names["Angle"])
    assert isinstance(task, Task) and task.measure.unit == "percent"
    task = fit_task(task, (exact,), degrees)
    task.check((exact,), degrees, "data")
    assert task.score((exact,), degrees).value == pytest.approx(0, abs=1e-9)
    assert task.score((-exact,), degrees).value == pytest.approx(180)
    out = (torch.from_numpy(exact + 0.1),)
    drawn, labelled = task.slopes(out, degrees, torch.Generator().manual_seed(0))
    leaf = out[0].clone().requires_grad_()
    (wanted,) = torch.autograd.grad(task.loss((leaf,), degrees) * N, leaf)
    torch.testing.assert_close(labelled[0], wanted)
    assert (drawn[0] != 0).all() and task.divergence(out, out) == 0
    both = (exact, f(N, 4))
    multi = fit_task(names["task"], both, {"direction": degrees, "kind": np.arange(N) % 4})
    assert [p.task.measure.unit for p in parts_of(multi)] == ["percent", "points"]


def test_the_encoding_of_boxes_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The page's lines write a file that opens as one entry per image."""
    monkeypatch.chdir(tmp_path)
    block = next(b for b in re.findall(r"```python\n(.*?)```", TEXT, re.S) if "y_offsets" in b)
    each = [NAMES["boxes"][a:b] for a, b in zip(NAMES["starts"][:-1], NAMES["starts"][1:], strict=True)]
    exec(block, {"np": np, "boxes_of_each_image": each, "images": NAMES["x"], "labels": NAMES["kinds"]})
    targets = open_data("data.npz").targets
    for target, boxes in zip(targets, each, strict=True):
        np.testing.assert_array_equal(target["boxes"], boxes)
