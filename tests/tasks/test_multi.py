"""Several outputs, and what users bring: each output is measured in its own unit."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgeprune.errors import DataError
from edgeprune.tasks.base import Measure, Task, TaskPart, parts_of
from edgeprune.tasks.multi import MultiTask
from edgeprune.tasks.registry import fit_task, resolve_task

RNG = np.random.default_rng(6)
KIND, DEPTH = RNG.integers(0, 4, 40), RNG.normal(size=40)
OUTPUTS = (RNG.normal(size=(40, 4)), RNG.normal(size=(40, 1)), RNG.normal(size=(40, 3)))
TARGETS = {"kind": KIND, "depth": DEPTH}


def two(weight: float = 0.5) -> MultiTask:
    parts = (
        TaskPart("kind", resolve_task("classification"), (0,), "kind"),
        TaskPart("depth", resolve_task("regression"), (1,), "depth", weight),
        TaskPart("rest", resolve_task("generic"), (2,), unlabelled=True),
    )
    task = fit_task(MultiTask(parts), OUTPUTS, TARGETS)
    assert isinstance(task, MultiTask) and isinstance(task, Task)
    return task


def tensors(outputs: Any = OUTPUTS) -> tuple[torch.Tensor, ...]:
    return tuple(torch.from_numpy(x) for x in outputs)


def test_losses_and_distances_are_weighted_sums():
    """A part without targets has no loss; all parts count in distillation."""
    task, out = two(0.5), tensors()
    parts = [p.task for p in task.parts]
    loss = parts[0].loss(out[:1], KIND) + 0.5 * parts[1].loss(out[1:2], DEPTH)
    torch.testing.assert_close(task.loss(out, TARGETS), loss)
    other = tuple(x + 0.3 for x in out)
    wanted = sum(w * p.distil((a,), (b,)) for w, p, a, b in zip((1, 0.5, 1), parts, other, out, strict=True))
    torch.testing.assert_close(task.distil(other, out), wanted)
    assert task.divergence(out, out) == pytest.approx(0, abs=1e-12) and task.divergence(other, out) > 0


def test_slopes_land_at_their_own_outputs():
    """Labelled ones by the weight, drawn ones by its root: curvature is linear in the weight."""
    task, out = two(0.25), tensors()
    drawn, labelled = task.slopes(out, TARGETS, torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        labelled[1], 0.25 * task.parts[1].task.slopes(out[1:2], DEPTH, torch.Generator())[1][0]
    )
    again, _ = two(1.0).slopes(out, TARGETS, torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn[1], 0.5 * again[1])
    assert [d.shape for d in drawn] == [o.shape for o in out] and all((d != 0).any() for d in drawn)


def test_every_output_is_measured_in_its_own_unit():
    """parts_of gives accuracy of one output, an error of another, agreement of the third."""
    rows = []
    for part in parts_of(two()):
        mine, targets = part.select(OUTPUTS), part.targets_of(TARGETS)
        score = part.task.agreement(mine, mine) if targets is None else part.task.score(mine, targets)
        rows.append((part.name, score.value))
    assert [name for name, _ in rows] == ["kind", "depth", "rest"]
    assert rows[0][1] == pytest.approx((OUTPUTS[0].argmax(1) == KIND).mean())
    assert rows[1][1] == pytest.approx(np.abs(OUTPUTS[1][:, 0] - DEPTH).mean())
    assert rows[2][1] == 1


def test_one_number_ranks_networks():
    """Better on either output is a larger score; the error counts by that of the best constant."""
    task = two(1.0)
    base = task.score(OUTPUTS, TARGETS)
    closer = (OUTPUTS[0], 0.5 * (OUTPUTS[1] + DEPTH[:, None]), OUTPUTS[2])
    right = (np.eye(4)[KIND], OUTPUTS[1], OUTPUTS[2])
    assert task.score(closer, TARGETS).value > base.value and task.score(right, TARGETS).value > base.value
    perfect = (np.eye(4)[KIND], DEPTH[:, None], OUTPUTS[2])
    assert task.score(perfect, TARGETS).value == 1
    assert task.agreement(OUTPUTS, OUTPUTS).value == 1
    wrong = (OUTPUTS[0], OUTPUTS[1], OUTPUTS[2] + 5)
    assert task.agreement(wrong, OUTPUTS).value == pytest.approx(2 / 3)


def test_set_measures_mix_with_measures_per_sample():
    """RMSE has no per-sample score; the mixture is a measure of sets."""
    parts = (
        TaskPart("kind", resolve_task("classification"), (0,), "kind"),
        TaskPart("depth", resolve_task("regression:measure=rmse"), (1,), "depth"),
    )
    found = MultiTask(parts).score(OUTPUTS[:2], TARGETS)
    assert found.per_sample is None and found.of(np.arange(40)) == pytest.approx(found.value)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: MultiTask(()), "needs parts"),
        (lambda: MultiTask((TaskPart("a", resolve_task("generic"), (0,)),) * 2), "belongs to one of them"),
        (lambda: MultiTask((TaskPart("a", resolve_task("generic"), (0,), weight=-1),)), "weights"),
        (lambda: two().check(OUTPUTS[:2], TARGETS, "d"), r"names outputs \[0, 1, 2\], the model has 2"),
        (lambda: two().check(OUTPUTS, {"kind": KIND}, "d"), "no targets depth; save them as y_NAME"),
        (lambda: two().check(OUTPUTS, {**TARGETS, "kind": KIND + 9}, "d"), "d: kind: sample 0 has label"),
        (lambda: MultiTask(two().parts[2:]).score(OUTPUTS, KIND),
         "no part of the task has targets"),
    ],
)  # fmt: skip
def test_bad_parts_are_one_sentence(make: Any, text: str):
    """Named by output."""
    with pytest.raises(DataError, match=text):
        make()


MODULE = '''
import dataclasses
import numpy as np
from edgeprune.tasks.regression import Regression

def right(outputs, targets):
    return outputs.argmax(1) == targets

def spread(outputs, targets):
    return min(1.0, abs(outputs).mean())

def error(outputs, targets):
    return np.abs(outputs[:, 0] - targets) * 10
error.kind = "error"

def nothing(outputs, targets): pass
def short(outputs, targets): return [1.0]
def text(outputs, targets): return "good"
def nan(outputs, targets): return float("nan")
def large(outputs, targets): return 93.4
def breaks(outputs, targets): return 1 / 0

class Depth(Regression):
    """Depth in metres."""
    name = "depth"

class Half:
    name = "half"
    def loss(self, outputs, targets): return 0
number = 3
'''


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A user's module in the current directory."""
    (tmp_path / "multi_metrics.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    importlib.invalidate_caches()
    yield
    sys.path[:] = before
    sys.modules.pop("multi_metrics", None)


def test_a_users_function_scores(module: Any):
    """Per sample, for a set, or an error; everything else stays the task's."""
    task = resolve_task("classification", "multi_metrics:right")
    assert isinstance(task, Task) and task.measure == Measure("multi_metrics:right")
    found = task.score(OUTPUTS[:1], KIND)
    assert found.per_sample.tolist() == (OUTPUTS[0].argmax(1) == KIND).tolist()
    whole = resolve_task("classification", "multi_metrics:spread").score(OUTPUTS[:1], KIND)
    assert whole.per_sample is None
    assert whole.of(np.arange(5)) == pytest.approx(np.abs(OUTPUTS[0][:5]).mean())
    error = resolve_task("regression", "multi_metrics:error")
    assert error.measure.kind == "error" and error.score(OUTPUTS[1:2], DEPTH).value > 1
    out = tensors(OUTPUTS[:1])
    plain = resolve_task("classification")
    torch.testing.assert_close(task.loss(out, KIND), plain.loss(out, KIND))
    assert task.agreement(OUTPUTS[:1], OUTPUTS[:1]).value == 1
    by_object = resolve_task("classification", lambda outputs, targets: outputs[:, 0] > 0)
    assert by_object.score(OUTPUTS[:1], KIND).value == pytest.approx((OUTPUTS[0][:, 0] > 0).mean())


def test_a_metric_of_several_outputs_gets_all(module: Any):
    """A tuple, in the model's order."""
    task = resolve_task(two(), lambda outputs, targets: float(len(outputs)) / 10)
    assert task.score(OUTPUTS, TARGETS).value == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("nothing", "returned nothing; return one number, or one per sample"),
        ("short", r"returned shape \(1,\) for 40 samples"),
        ("text", "returned a str, no numbers"),
        ("nan", "returned NaN"),
        (
            "large",
            "returned 93.4; a metric is a share from 0 to 1; scale it; where smaller is better, set kind",
        ),
        ("breaks", "raised ZeroDivisionError"),
        ("absent", "has no absent"),
        ("number", "a int, not a function"),
    ],
)
def test_bad_metrics_are_named(name: str, text: str, module: Any):
    """Before minutes are spent: what came back, and what is expected."""
    with pytest.raises(DataError, match=text):
        resolve_task("classification", f"multi_metrics:{name}").score(OUTPUTS[:1], KIND)


def test_a_users_task_is_taken_by_name_or_as_an_object(module: Any):
    """A class without arguments, or anything that keeps the contract; what lacks is named."""
    task = resolve_task("multi_metrics:Depth")
    assert task.name == "depth" and task.score(OUTPUTS[1:2], DEPTH).value > 0
    assert resolve_task(task) is task
    with pytest.raises(DataError, match="a Half without measure, agreement_measure, check, distil"):
        resolve_task("multi_metrics:Half")
    with pytest.raises(DataError, match="a int without name"):
        resolve_task("multi_metrics:number")


def test_tasks_of_other_packages_are_found_by_their_entry_point(module: Any, tmp_path: Path):
    """A distribution that names one in the group edgeprune.tasks adds a name."""
    folder = tmp_path / "depthtask-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: depthtask\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(
        "[edgeprune.tasks]\ndepth = multi_metrics:Depth\nlost = absent:Task\n"
    )
    sys.path.insert(0, str(tmp_path))
    assert resolve_task("depth:measure=rmse").measure.name == "root mean squared error"
    with pytest.raises(DataError, match=r"known are .*generic, depth, lost"):
        resolve_task("deepth")
    with pytest.raises(DataError, match="--task lost: its package raised ModuleNotFoundError"):
        resolve_task("lost")
