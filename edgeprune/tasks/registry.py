"""Tasks by name.

    resolve_task("segmentation:ignore=0,measure=pixel_accuracy")

Names are those of TASKS and of the entry points of the group `edgeprune.tasks`; `package.module:name` is a
user's own; options behind a colon are the task's fields. Modules are imported when their task is asked for.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from typing import Any

from edgeprune.errors import DataError
from edgeprune.importing import import_object
from edgeprune.tasks.base import Outputs, Targets, Task
from edgeprune.tasks.multi import MultiTask
from edgeprune.tasks.user import MeasuredBy, as_task

GROUP = "edgeprune.tasks"
TASKS = {
    "classification": "edgeprune.tasks.classification:Classification",
    "binary": "edgeprune.tasks.binary:Binary",
    "multilabel": "edgeprune.tasks.multilabel:Multilabel",
    "regression": "edgeprune.tasks.regression:Regression",
    "forecasting": "edgeprune.tasks.forecasting:Forecasting",
    "segmentation": "edgeprune.tasks.segmentation:Segmentation",
    "tokens": "edgeprune.tasks.tokens:Tokens",
    "ctc": "edgeprune.tasks.ctc:Ctc",
    "detection": "edgeprune.tasks.detection:Detection",
    "embedding": "edgeprune.tasks.embedding:Embedding",
    "generic": "edgeprune.tasks.generic:Generic",
}
MetricSpec = str | Callable[..., Any]


def resolve_task(spec: Any, metric: MetricSpec | None = None) -> Task:
    """A task by name, by `package.module:name`, or the object itself, with the measure asked for.

    Raises:
        DataError: an unknown name, option or measure, or an object that is no task.
    """
    task = _named(spec) if isinstance(spec, str) else as_task(spec, type(spec).__name__)
    return task if metric is None else with_metric(task, metric)


def with_metric(task: Task, metric: MetricSpec) -> Task:
    """The same task measured by one of its own measures, by `package.module:function`, or by a function."""
    if not isinstance(metric, str):
        return MeasuredBy(task, metric, getattr(metric, "__name__", "metric"))
    if isinstance(task, MultiTask):
        return _with_metric_of_a_part(task, metric)
    known: Sequence[str] = tuple(getattr(task, "measures", ()))
    if metric in known:
        return dataclasses.replace(task, chosen=metric)  # type: ignore[type-var]
    if ":" not in metric:
        raise DataError(
            f"--metric {metric}: task {task.name} has no such measure",
            tip=f"it has {', '.join(known) or 'no names'}; or give package.module:function",
        )
    function = import_object(metric, option="--metric", error=DataError)
    if not callable(function):
        raise DataError(f"--metric {metric}: a {type(function).__name__}, not a function")
    return MeasuredBy(task, function, metric)


def _with_metric_of_a_part(task: MultiTask, metric: str) -> Task:
    if ":" in metric:
        function = import_object(metric, option="--metric", error=DataError)
        return MeasuredBy(task, function, metric)
    known = [metric in getattr(part.task, "measures", ()) for part in task.parts]
    if not any(known):
        listed = {name for part in task.parts for name in getattr(part.task, "measures", ())}
        raise DataError(
            f"--metric {metric}: no output's task has such a measure",
            tip=f"they have {', '.join(sorted(listed))}; or give package.module:function",
        )
    parts = [
        dataclasses.replace(part, task=with_metric(part.task, metric)) if knows else part
        for part, knows in zip(task.parts, known, strict=True)
    ]
    return dataclasses.replace(task, parts=tuple(parts))


def fit_task(task: Task, outputs: Outputs, targets: Targets | None) -> Task:
    """The task with what it reads off the dense model's outputs: logits or probabilities, spreads, layout.

    Args:
        outputs, targets: of the same samples, at least a few dozen.
    """
    fit = getattr(task, "fitted", None)
    if fit is None:
        return task
    fitted: Task = fit(outputs, targets)
    return fitted


def _named(spec: str) -> Task:
    name, colon, rest = spec.partition(":")
    plugins = {point.name: point for point in entry_points(group=GROUP)}
    if name in TASKS:
        module, _, attribute = TASKS[name].partition(":")
        kind = getattr(importlib.import_module(module), attribute)
    elif name in plugins:
        try:
            kind = plugins[name].load()
        except Exception as exc:
            raise DataError(f"--task {name}: its package raised {type(exc).__name__}: {exc}") from exc
    elif colon and "=" not in rest:
        return as_task(import_object(spec, option="--task", error=DataError), spec)
    else:
        raise DataError(
            f"--task {spec}: no such task",
            tip=f"known are {', '.join((*TASKS, *plugins))}; or give package.module:name",
        )
    options = _options(rest, spec, kind) if colon else {}
    if not options:
        return as_task(kind, name)
    return as_task(kind(**options), name)


def _options(text: str, spec: str, kind: Any) -> dict[str, Any]:
    """`a=1,b=xy` as keyword arguments of a task's fields; `measure` stands for `chosen`."""
    fields = {f.name: f for f in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else {}
    options: dict[str, Any] = {}
    for item in filter(None, text.split(",")):
        key, equals, value = item.partition("=")
        key = "chosen" if key == "measure" else key
        if not equals or key not in fields:
            listed = sorted({"measure" if n == "chosen" else n for n, f in fields.items() if _is_option(f)})
            raise DataError(
                f"--task {spec}: no option {item!r}", tip=f"this task has {', '.join(listed) or 'no options'}"
            )
        options[key] = _parsed(value, fields[key].default, spec, key)
    return options


def _is_option(field: Any) -> bool:
    return isinstance(field.default, str | int | float)


def _parsed(value: str, default: Any, spec: str, key: str) -> Any:
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False}[value.lower()]
        if isinstance(default, int):
            return int(value)
        if isinstance(default, float):
            sides = [float(part) for part in value.lower().split("x")]
            return sides[0] if len(sides) == 1 else tuple(sides)
    except (ValueError, KeyError) as exc:
        raise DataError(f"--task {spec}: {key} is {value!r}, expected a {type(default).__name__}") from exc
    return value
