"""Capture in tests that are not about tasks: class scores are judged as classes, anything else as values."""

from __future__ import annotations

from typing import Any

import torch

from edgeprune.calibration.capture import Statistics, capture
from edgeprune.graph.trace import Trace, run
from edgeprune.tasks.base import Task
from edgeprune.tasks.registry import resolve_task


def task_for(traced: Trace) -> Task:
    """Classification where the first output is (samples, classes), else generic."""
    with torch.no_grad():
        out = run(traced.graph, traced.inputs)[0]
    scored = out.dim() == 2 and out.shape[1] > 1 and len(out) == len(traced.inputs[0])
    return resolve_task("classification" if scored else "generic")


def captured(traced: Trace, couplings: Any, dataset: Any, indices: Any, **settings: Any) -> Statistics:
    """Statistics under `task_for`."""
    return capture(traced, couplings, dataset, indices, task=task_for(traced), **settings)
