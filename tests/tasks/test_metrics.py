"""Metrics: scores per sample, by name, by function."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeprune.errors import DataError
from edgeprune.tasks.classification import accuracy, top5
from edgeprune.tasks.registry import resolve_task


def score(metric, outputs: np.ndarray, targets: np.ndarray):
    """The score of a classification under `metric`."""
    return resolve_task("classification", metric).score((outputs,), targets)


def test_accuracy_counts_the_largest_output():
    """1 where the label's output is the largest."""
    outputs = np.array([[0.1, 0.9], [0.8, 0.2], [0.5, 0.5]])
    assert accuracy(outputs, np.array([1, 1, 0])).tolist() == [1, 0, 1]


def test_top5_agrees_with_a_sorted_list():
    """The label is among the five largest."""
    rng = np.random.default_rng(0)
    outputs = rng.normal(size=(200, 12))
    labels = rng.integers(0, 12, 200)
    by_sorting = [float(y in np.argsort(-row)[:5]) for row, y in zip(outputs, labels, strict=True)]
    assert top5(outputs, labels).tolist() == by_sorting


def test_a_metric_keeps_the_scores_per_sample():
    """The value is their mean, so two models can be paired."""
    result = score("accuracy", np.eye(3)[[0, 1, 1]], np.array([0, 1, 2]))
    assert result.value == pytest.approx(2 / 3)
    assert result.per_sample.tolist() == [1, 1, 0]


def test_a_users_function_may_give_one_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Then there is a value and nothing to pair."""
    (tmp_path / "mymetrics.py").write_text("def spread(outputs, labels):\n    return outputs.std()\n")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    importlib.invalidate_caches()
    result = score("mymetrics:spread", np.eye(4), np.arange(4))
    sys.path[:] = before
    assert result.per_sample is None
    assert result.value == pytest.approx(np.eye(4).std())


@pytest.mark.parametrize(
    ("metric", "text"),
    [
        (lambda o, y: [1.0], r"returned shape \(1,\) for 3 samples"),
        (lambda o, y: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_bad_metrics_are_named(metric, text: str):
    """Wrong shapes and exceptions are DataErrors that name the metric or the shape."""
    with pytest.raises(DataError, match=text):
        score(metric, np.eye(3), np.arange(3))


@pytest.mark.parametrize("spec", ["f1", "nosuchmetrics:f", "math:pi"])
def test_unknown_metrics_are_refused(spec: str):
    """An unknown name, a module that is not there, a value that is no function."""
    with pytest.raises(DataError):
        resolve_task("classification", spec)
