"""Targets that a task does not take: one sentence each, with the first bad sample."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgeprune.errors import DataError
from edgeprune.tasks.registry import resolve_task

RNG = np.random.default_rng(4)
Y = np.arange(30) % 5
MASKS = RNG.integers(0, 3, (6, 4, 5))
ROWS = np.tile(np.arange(4), (6, 2))[:, :7]
HOLE = np.where(np.arange(30) == 4, np.nan, Y.astype(np.float64))


def f(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def put(array: np.ndarray, at: Any, value: Any) -> np.ndarray:
    changed = array.copy()
    changed[at] = value
    return changed


CASES: list[tuple[str, np.ndarray, Any, str]] = [
    ("classification", f(30, 1), Y, r"\(samples, classes\), the model's are 30×1; one column is"),
    ("classification", f(30, 5), put(Y, 2, 5), r"label 5, but the model has 5 outputs \(1 of 30"),
    ("classification", f(30, 5), put(Y, 3, -1), "sample 3 has label -1"),
    ("classification", f(30, 5), Y + 0.5, "sample 0 has label 0.5, which is not a class number"),
    ("classification", f(30, 5), HOLE, "the target of sample 4 holds NaN"),
    ("classification", f(30, 5), f(30, 4), "or one-hot rows of 5; targets are 30×4"),
    ("classification", f(30, 5), Y * 0 + 2, "have label 2; scoring needs at least two classes"),
    ("classification", f(30, 5), Y[:0], "no samples"),
    ("classification", f(30, 100), put(Y, 3, 99), "30 samples for 100 classes"),
    ("binary", f(30, 2), Y % 2, "takes one number per sample, the model's outputs are 30×2"),
    ("binary", f(30, 1), Y, "sample 2 has target 2; binary takes 0 and 1"),
    ("binary", f(30, 1), np.ones(30), "all 30 samples have label 1"),
    ("binary", f(30, 1), np.where(np.isnan(HOLE), np.nan, 1), "sample 4 holds NaN"),
    ("binary", f(30, 1), f(30, 2), "one 0 or 1 per sample, targets are 30×2"),
    ("multilabel", f(30, 4), Y, "rows of 4 zeros and ones, targets are 30; one class number"),
    ("multilabel", f(30, 4), put(np.zeros((30, 4)), (7, 1), 2), "sample 7 holds other numbers than 0 and 1"),
    ("multilabel", f(30, 4), np.ones((30, 4)), "all 30 samples have the same labels"),
    ("multilabel", f(30, 4), put(np.eye(4)[Y % 4], (3, 1), np.nan), "sample 3 holds NaN"),
    ("regression", f(30, 2), f(30), "targets of the outputs' shape; outputs are 30×2, targets 30"),
    ("regression", f(30, 1), HOLE, "sample 4 holds NaN"),
    ("regression", f(30, 1), put(HOLE, 4, np.inf), "sample 4 holds infinity"),
    ("regression", f(30, 1), np.ones(30), "all 30 targets are equal"),
    ("regression", f(30, 1), np.array(["a"] * 30), "targets of the outputs' shape"),
    ("regression", f(30, 1), [[1.0], [2.0, 3.0]], "targets a list of 2"),
    ("forecasting", f(30, 4, 5, 6), f(30, 4, 5, 6), r"\(samples, steps\) or \(samples, steps, variables\)"),
    ("forecasting", f(30, 4), f(30, 5), "outputs are 30×4, targets 30×5"),
    ("segmentation", f(6, 3), MASKS, r"classes, height, width\), the model's are 6×3"),
    ("segmentation", f(6, 3, 8, 10), MASKS, "masks are 4×5, the model's outputs 8×10; save masks"),
    ("segmentation", f(6, 3, 4, 5), put(MASKS, (2, 0, 0), 3), "sample 2 holds class 3, but the model has 3"),
    ("segmentation", f(6, 3, 4, 5), put(MASKS, (1, 0, 0), -1), "mask of sample 1 holds class -1"),
    ("segmentation", f(6, 3, 4, 5), put(MASKS, 5, 255), r"sample 5 has no pixel that counts \(all 255\)"),
    ("segmentation", f(6, 3, 4, 5), MASKS * 0, "all masks hold one class only"),
    ("segmentation", f(6, 3, 4, 5), MASKS + 0.5, "masks of class numbers"),
    ("segmentation", f(6, 3, 4, 5), Y, "targets are 30"),
    ("tokens", f(6, 4), ROWS, r"\(samples, length, classes\) or \(samples, classes, length\)"),
    ("tokens", f(6, 7, 4), put(ROWS, (3, 0), 4), "sample 3 has class 4, but the model has 4 classes"),
    ("tokens", f(6, 7, 4), put(ROWS, 2, -100), r"sample 2 has no token that counts \(all -100\)"),
    ("tokens", f(6, 7, 4), ROWS * 0, "all tokens have one class"),
    ("tokens", f(6, 7, 4), ROWS[:, :5], "sample 0 has 5 class numbers for 7 positions"),
    ("tokens", f(6, 7, 4), [np.arange(4)] * 5 + [np.arange(9) % 4], "sample 5 has 9 class numbers for 7"),
    ("tokens", f(6, 7, 4), ROWS * 1.0, "sequence of class numbers per sample, sample 0 has 7 of float64"),
    ("ctc", f(6, 7, 4), [np.array([1, 4])] * 6, "symbol 4; the model has 4 classes, of which 0 is"),
    ("ctc", f(6, 7, 4), [np.array([1, 2])] * 5 + [np.array([0, 1])], "sample 5 has symbol 0"),
    ("ctc", f(6, 4, 4), [np.array([1, 1, 2])] * 5 + [np.array([1, 1, 1])], "need 5 positions"),
    ("ctc", f(6, 4, 4), [np.zeros(0, int)] * 6, "all 6 sequences are empty"),
    ("ctc", f(6, 4, 4), f(6, 2), "sample 0 has 2 of float32"),
    ("embedding", f(30, 8), f(30, 7), "reference vectors of 8 numbers, targets are 30×7; leave y out"),
    ("embedding", f(30, 8), Y, "reference vectors of 8 numbers"),
    ("embedding", f(30, 8), put(f(30, 8), (3, 2), np.nan), "sample 3 holds NaN"),
    ("generic", f(30, 8), Y, "targets of their shape; outputs are 30×8, targets 30; name the task"),
    ("generic", put(f(30, 8), 4, np.nan), None, "output of sample 4 holds NaN"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "out", "targets", "text"), CASES)
def test_bad_targets_are_one_sentence(name: str, out: np.ndarray, targets: Any, text: str):
    """The message says what was found, where, and what to do."""
    with pytest.raises(DataError, match=text) as caught:
        resolve_task(name).check((out,), targets, "data")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["classification", "binary", "regression", "segmentation", "tokens", "multilabel"]
)
def test_an_evaluation_set_may_hold_one_class(name: str):
    """`varied=False` asks for what scoring one set needs, not for what scores of channels need."""
    out, y = {
        "classification": (f(30, 5), Y * 0),
        "binary": (f(30, 1), np.ones(30)),
        "regression": (f(30, 1), np.ones(30)),
        "segmentation": (f(6, 3, 4, 5), MASKS * 0),
        "tokens": (f(6, 7, 4), ROWS * 0),
        "multilabel": (f(30, 4), np.ones((30, 4))),
    }[name]
    resolve_task(name).check((out,), y, "data", varied=False)


@pytest.mark.parametrize("name", ["classification", "regression", "segmentation", "embedding", "ctc"])
def test_tasks_of_one_output_name_the_outputs_of_others(name: str):
    """Which output is meant is never taken from its position."""
    with pytest.raises(DataError, match=r"takes one output, the model has 2 \(30×5, 30×3\)"):
        resolve_task(name).check((f(30, 5), f(30, 3)), Y, "data")
