"""Metrics: scores per sample, by name, by function."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeprune.errors import DataError
from edgeprune.tasks.metrics import Metric, accuracy, resolve_metric, top5


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
    value = resolve_metric("accuracy")(np.eye(3)[[0, 1, 1]], np.array([0, 1, 2]))
    assert value.value == pytest.approx(2 / 3)
    assert value.per_sample.tolist() == [1, 1, 0]


def test_a_users_function_may_give_one_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Then there is a value and nothing to pair."""
    (tmp_path / "mymetrics.py").write_text("def spread(outputs, labels):\n    return outputs.std()\n")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    importlib.invalidate_caches()
    value = resolve_metric("mymetrics:spread")(np.eye(4), np.arange(4))
    sys.path[:] = before
    assert value.per_sample is None
    assert value.value == pytest.approx(np.eye(4).std())


@pytest.mark.parametrize(
    ("metric", "outputs", "text"),
    [
        (resolve_metric("accuracy"), np.zeros((3, 2, 2)), r"shape \(3, 2, 2\)"),
        (Metric("m", lambda o, y: [1.0]), np.eye(3), r"returned shape \(1,\) for 3 samples"),
        (Metric("m", lambda o, y: 1 / 0), np.eye(3), "ZeroDivisionError"),
    ],
)
def test_bad_metrics_are_named(metric: Metric, outputs: np.ndarray, text: str):
    """Wrong shapes and exceptions are DataErrors that name the metric or the shape."""
    with pytest.raises(DataError, match=text):
        metric(outputs, np.arange(3))


@pytest.mark.parametrize(
    ("spec", "text"),
    [("f1", "no such metric"), ("nosuchmetrics:f", "no module"), ("math:pi", "not a function")],
)
def test_unknown_metrics_are_named(spec: str, text: str):
    """The known names and the way to give a function are in the tip."""
    with pytest.raises(DataError, match=text):
        resolve_metric(spec)
