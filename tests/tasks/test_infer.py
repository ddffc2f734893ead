"""Which task outputs and targets belong to: inferred and said, or asked for; nothing is guessed."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from edgeprune.errors import DataError
from edgeprune.tasks.base import Task, parts_of
from edgeprune.tasks.choose import choose_task
from edgeprune.tasks.infer import assign_task, infer_task
from edgeprune.tasks.multi import MultiTask
from edgeprune.tasks.registry import TASKS, fit_task, resolve_task

RNG = np.random.default_rng(2)


def f(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def ints(high: int, *shape: int) -> np.ndarray:
    return np.concatenate([np.arange(high), RNG.integers(0, high, int(np.prod(shape)))])[
        : int(np.prod(shape))
    ].reshape(shape)


@pytest.mark.parametrize(
    ("out", "targets", "name", "reason"),
    [
        (f(30, 5), ints(5, 30), "classification", "5 outputs and one class number per sample"),
        (f(30, 2), ints(2, 30), "classification", "2 outputs"),
        (f(30, 5), np.eye(5)[ints(5, 30)], "classification", "one 1, one column per class"),
        (f(30, 1), ints(2, 30), "binary", "targets of 0 and 1"),
        (f(30), ints(2, 30).astype(np.float32), "binary", "targets of 0 and 1"),
        (f(30, 1), f(30), "regression", "one number per sample"),
        (f(30, 1), ints(9, 30), "regression", "one number per sample"),
        (f(30, 4), RNG.integers(0, 2, (30, 4)), "multilabel", "rows of 4 zeros and ones"),
        (f(30, 4), f(30, 4), "regression", "4 numbers per sample"),
        (f(9, 3, 6, 5), ints(3, 9, 6, 5), "segmentation", "masks of class numbers"),
        (f(9, 1, 6, 5), ints(2, 9, 1, 6, 5), "segmentation", "masks of class numbers"),
        (f(9, 1, 6, 5), f(9, 6, 5), "regression", "numbers of the outputs' shape"),
        (f(9, 7, 4), ints(4, 9, 7), "tokens", "each of the 7 positions"),
        (f(9, 4, 7), ints(4, 9, 7), "tokens", "each of the 7 positions"),
        (f(9, 12, 6), ints(5, 9, 4) + 1, "ctc", "shorter than the outputs"),
        (f(9, 12, 6), [np.arange(1, 2 + i % 3) for i in range(9)], "ctc", "of any length"),
        (f(9, 12, 2), f(9, 12, 2), "forecasting", "numbers of the outputs' shape"),
    ],
)
def test_what_is_inferred_and_why(out: np.ndarray, targets: Any, name: str, reason: str):
    """The sentence names the task and the reason; the task takes these targets."""
    task, sentence = infer_task((out,), targets)
    assert task.name == name and sentence.startswith(f"task {name}: ") and reason in sentence
    fitted = fit_task(task, (out,), targets)
    fitted.check((out,), targets, "data")
    assert isinstance(fitted, Task)
    assert np.isfinite(fitted.score((out,), targets).value)


@pytest.mark.parametrize("shape", [(30, 384), (30, 10), (30, 2), (30, 1), (9, 4, 5), (9, 3, 6, 6)])
def test_without_targets_nothing_is_guessed(shape: tuple[int, ...]):
    """A width says nothing: generic, with the hint how to say more."""
    task, sentence = infer_task((f(*shape),), None)
    assert task.name == "generic" and "no targets" in sentence
    assert ("--task" in sentence) == (shape != (30, 1))


@pytest.mark.parametrize(
    ("out", "targets", "text"),
    [
        (
            f(30, 5),
            f(30),
            r"one number per sample \(float32\) does not fit 5 outputs; .*--task classification",
        ),
        (f(30, 5), ints(7, 30), "sample 5 has label 5, but the model has 5 outputs"),
        (f(30, 5), -ints(5, 30), "sample 1 has label -1"),
        (f(30, 5), f(30, 4), "fit no task that can be inferred; name it with --task"),
        (f(9, 4, 7), ints(4, 9), "fit no task"),
        (
            f(9, 3, 6, 5),
            ints(3, 9, 12, 10),
            "masks are 12×10, the model's outputs 6×5; save masks at the size",
        ),
        (f(9, 4, 7), [f(3)] * 9, "fit no task"),
    ],
)
def test_targets_that_fit_nothing_are_refused(out: np.ndarray, targets: Any, text: str):
    """One line with both shapes, and what to write instead."""
    with pytest.raises(DataError, match=text) as caught:
        infer_task((out,), targets)
    assert "\n" not in str(caught.value)


def test_one_target_of_several_outputs_belongs_to_the_one_that_fits():
    """The others are compared as numbers, and both is said."""
    outputs = (f(30, 7, 3), f(30, 5))
    task, sentence = infer_task(outputs, ints(5, 30), names=["features", "logits"])
    assert isinstance(task, MultiTask)
    assert [(p.name, p.task.name) for p in parts_of(task)] == [
        ("logits", "classification"),
        ("features", "generic"),
    ]
    assert "logits: task classification" in sentence and "features: task generic" in sentence
    both, sentence = infer_task((f(30, 5), f(30, 5)), ints(5, 30))
    assert "also output 1 would fit" in sentence and both.parts[0].outputs == (0,)
    with pytest.raises(DataError, match="fit none of the outputs"):
        infer_task((f(30, 7, 3), f(30, 2)), ints(5, 30))


def test_named_targets_belong_to_the_output_of_that_name_or_number():
    """One task each; the rest is generic; a name that no output has is refused."""
    outputs = (f(30, 5), f(30, 1), f(30, 3))
    targets = {"kind": ints(5, 30), "depth": f(30)}
    task, sentence = infer_task(outputs, targets, names=["kind", "depth", "extra"])
    assert [p.task.name for p in task.parts] == ["classification", "regression", "generic"]
    assert [p.unlabelled for p in task.parts] == [False, False, True]
    assert "depth: task regression" in sentence
    numbered, _ = infer_task(outputs, {"0": targets["kind"], "1": targets["depth"]})
    assert [p.task.name for p in numbered.parts] == ["classification", "regression", "generic"]
    with pytest.raises(
        DataError, match="targets depht belong to no output; the outputs are kind, depth, extra"
    ):
        infer_task(outputs, {"depht": f(30)}, names=["kind", "depth", "extra"])


def test_a_named_task_stands_on_the_output_that_it_takes():
    """--task classification on features and logits is a classifier of the logits."""
    outputs = (f(30, 7, 3), f(30, 5))
    task, sentence = assign_task(resolve_task("classification"), outputs, ints(5, 30))
    assert [(p.name, p.task.name) for p in task.parts] == [
        ("output 1", "classification"),
        ("output 0", "generic"),
    ]
    assert "output 1: task classification, as asked for" in sentence
    alone, sentence = assign_task(resolve_task("classification"), (f(30, 5),), None)
    assert alone.name == "classification" and sentence == ""
    with pytest.raises(DataError, match="takes outputs"):
        assign_task(resolve_task("segmentation"), outputs, None)


def test_a_run_chooses_measures_and_fits():
    """The first metric decides, further ones are the same task under another measure."""
    out, y = f(60, 8), ints(8, 60)
    chosen = choose_task(None, ["top5", "accuracy"], (out,), y)
    assert chosen.task.measure.name == "top5" and chosen.further[0].measure.name == "accuracy"
    assert "task classification" in chosen.note
    several = choose_task(None, ["top5"], (out, f(60, 3)), y)
    assert several.task.parts[0].task.measure.name == "top5"
    with pytest.raises(DataError, match="no output's task has such a measure; they have accuracy"):
        choose_task(None, ["map"], (out, f(60, 3)), y)


@pytest.mark.parametrize("name", TASKS)
def test_every_name_gives_a_task(name: str):
    """By name, with a measure as an option; all keep the contract."""
    task = resolve_task(name)
    assert isinstance(task, Task) and task.name == name
    for measure in task.measures:
        assert resolve_task(f"{name}:measure={measure}").measure is task.measures[measure]
        assert resolve_task(name, measure).measure is task.measures[measure]


def test_options_are_fields_of_the_task():
    """Numbers, text and sizes; what a task does not have is refused with what it has."""
    assert resolve_task("segmentation:ignore=0,measure=pixel_accuracy").ignore == 0
    assert resolve_task("ctc:blank=-1").blank == -1
    assert resolve_task("detection:size=480x640,boxes=xyxy,threshold=0.1").size == (480.0, 640.0)
    for spec, text in (
        ("segmentation:skip=0", "no option 'skip=0'; this task has .*ignore.*measure"),
        ("segmentation:ignore=x", "ignore is 'x', expected a int"),
        ("segmentation:measure=auc", "has no measure auc; it has miou, image_iou, pixel_accuracy"),
        ("segmentatoin", "no such task; known are classification, binary"),
    ):
        with pytest.raises(DataError, match=text):
            resolve_task(spec)
    with pytest.raises(DataError, match="task regression has no such measure; it has mae, rmse, r2"):
        resolve_task("regression", "accuracy")


def test_importing_tasks_leaves_torch_out():
    """Names, inference and scores need NumPy; torch comes with the first tensor."""
    code = (
        "import sys, numpy as np; from edgeprune.tasks.infer import infer_task;"
        "task, _ = infer_task((np.eye(3, dtype='f4'),), np.arange(3));"
        "assert task.score((np.eye(3, dtype='f4'),), np.arange(3)).value == 1;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
