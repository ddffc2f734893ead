"""The task of a run: named or inferred, measured by the metrics asked for, fitted to the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgeprune.tasks.base import Outputs, Targets, Task
from edgeprune.tasks.infer import assign_task, infer_task
from edgeprune.tasks.registry import fit_task, resolve_task, with_metric


@dataclass(frozen=True)
class ChosenTask:
    """`task` decides; `further` are the same task under further metrics, for the report.

    note: how the task was inferred, or which output a named one stands on; else empty.
    """

    task: Task
    further: tuple[Task, ...] = ()
    note: str = ""


def choose_task(
    spec: Any, metrics: Sequence[Any], outputs: Outputs, targets: Targets | None, source: str = "data"
) -> ChosenTask:
    """Resolve --task and --metric for a model.

    Args:
        source: what messages call the data. spec: a name, an object, or None to infer.
        outputs, targets: of the same samples, at least a few dozen if there are so many.

    Raises:
        DataError: an unknown name, targets that fit no task, or a metric that the task does not have.
    """
    if spec is None:
        task, note = infer_task(outputs, targets, source=source)
    else:
        task, note = assign_task(resolve_task(spec), outputs, targets, source=source)
    fitted = fit_task(task, outputs, targets)
    measured = [with_metric(fitted, metric) for metric in metrics]
    return ChosenTask(measured[0] if measured else fitted, tuple(measured[1:]), note)
