"""Which task a model has, from its outputs and the data's targets, and why.

    task, sentence = infer_task(dense_outputs, targets)
    task, sentence = assign_task(resolve_task("classification"), dense_outputs, targets)

Nothing is guessed: without targets a width says nothing (384 numbers may be an embedding), so every output
is compared as numbers (`generic`); where targets fit two tasks or none, the error names what to write.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgeprune.errors import DataError
from edgeprune.tasks.base import Outputs, Targets, Task, TaskPart
from edgeprune.tasks.classification import is_one_hot
from edgeprune.tasks.multi import MultiTask
from edgeprune.tasks.numbers import show, show_all
from edgeprune.tasks.registry import TASKS, resolve_task
from edgeprune.tasks.tokens import token_axis

NAMES = ", ".join(name for name in TASKS if name != "generic")
EVERY_OUTPUT = ("generic", "detection", "multi")  # tasks that take all outputs of a model


def assign_task(
    task: Task, outputs: Outputs, targets: Targets | None, *, names: Sequence[str] = (), source: str = "data"
) -> tuple[Task, str]:
    """A task that the user named, for all outputs of the model, and a sentence where that needs saying.

    A built-in task of one output stands on the first output that it takes; the others are generic.

    Raises:
        DataError: the task takes none of the outputs.
    """
    built_in = type(task).__module__.startswith("edgeprune.tasks.") and task.name not in EVERY_OUTPUT
    if len(outputs) == 1 or not built_in:
        return task, ""
    return _spread(task, outputs, targets, names, source)


def infer_task(
    outputs: Outputs, targets: Targets | None, *, names: Sequence[str] = (), source: str = "data"
) -> tuple[Task, str]:
    """The task of a model with such outputs and targets, not yet fitted, and a sentence that says why.

    Raises:
        DataError: the targets fit no task, or several.
    """
    if targets is None:
        return resolve_task("generic"), _without_targets(outputs)
    if _is_boxes(targets):
        return resolve_task("detection"), "task detection: the targets are boxes with labels"
    if isinstance(targets, Mapping):
        return _named(outputs, targets, names, source)
    if len(outputs) == 1:
        name, why = _one(outputs[0], targets, source)
        return resolve_task(name), f"task {name}: {why}"
    return _first_that_fits(outputs, targets, names, source)


def _without_targets(outputs: Outputs) -> str:
    first = outputs[0]
    every = "every output" if len(outputs) > 1 else "the output"
    hint = ""
    if len(outputs) == 1 and first.ndim == 2 and first.shape[1] > 1:
        hint = "; where the columns are class scores, say --task classification"
    elif len(outputs) > 1 or first.ndim > 2:
        hint = f"; name the task with --task where it has a meaning ({NAMES})"
    return (
        f"task generic: the data have no targets, so {every} ({show_all(outputs)}) is compared as numbers,"
        f" each channel by its own variance{hint}"
    )


def _is_boxes(targets: Targets) -> bool:
    if isinstance(targets, Mapping):
        return {"boxes", "labels"} <= set(targets)
    return (
        isinstance(targets, list)
        and bool(targets)
        and isinstance(targets[0], Mapping)
        and "boxes" in targets[0]
    )


def _named(
    outputs: Outputs, targets: Mapping[str, Any], names: Sequence[str], source: str
) -> tuple[Task, str]:
    """One task per target whose name is an output's name or number; the other outputs are generic."""
    places = {str(i): i for i in range(len(outputs))} | {name: i for i, name in enumerate(names)}
    parts, sentences = [], []
    for key, part in targets.items():
        if key not in places:
            listed = ", ".join(names) if names else f"0 to {len(outputs) - 1}"
            raise DataError(
                f"{source}: targets {key} belong to no output; the outputs are {listed}",
                tip="name targets as the outputs, y_NAME or y_0, y_1, …; or give the task as an object",
            )
        at = places[key]
        label = _label(at, names)
        try:
            task, sentence = infer_task((outputs[at],), part, source=f"{source}: {key}")
        except DataError as exc:
            raise DataError(f"{label}: {exc.message}", tip=exc.tip) from exc
        parts.append(TaskPart(label, task, (at,), key))
        sentences.append(f"{label}: {sentence}")
    return _with_rest(parts, sentences, outputs, names)


def _first_that_fits(
    outputs: Outputs, targets: Targets, names: Sequence[str], source: str
) -> tuple[Task, str]:
    """One target for several outputs belongs to the only output that it fits, or to the first of those."""
    attempts = []
    for at in range(len(outputs)):
        try:
            attempts.append((at, *_one(outputs[at], targets, source)))
        except DataError as exc:
            attempts.append((at, "", str(exc)))
    fits = [row for row in attempts if row[1]]
    if not fits:
        raise DataError(
            f"{source}: targets {show(targets)} fit none of the outputs {show_all(outputs)}",
            tip=f"name the task with --task ({NAMES}), or targets as y_0, y_1, … by output",
        )
    at, name, why = fits[0]
    label = _label(at, names)
    parts = [TaskPart(label, resolve_task(name), (at,))]
    more = f" (also {', '.join(_label(i, names) for i, _, _ in fits[1:])} would fit)" if len(fits) > 1 else ""
    return _with_rest(parts, [f"{label}: task {name}: {why}{more}"], outputs, names)


def _spread(
    task: Task, outputs: Outputs, targets: Targets | None, names: Sequence[str], source: str
) -> tuple[Task, str]:
    """A task of one output on the first output that it takes; the other outputs are generic."""
    reasons = []
    for at, out in enumerate(outputs):
        label = _label(at, names)
        key = next((k for k in (label, str(at)) if isinstance(targets, Mapping) and k in targets), None)
        part = TaskPart(label, task, (at,), key)
        try:
            task.check((out,), part.targets_of(targets), f"{source}: {label}", varied=False)
        except DataError as exc:
            reasons.append(exc)
            continue
        return _with_rest([part], [f"{label}: task {task.name}, as asked for"], outputs, names)
    raise reasons[0]


def _with_rest(
    parts: list[TaskPart], sentences: list[str], outputs: Outputs, names: Sequence[str]
) -> tuple[Task, str]:
    used = {i for part in parts for i in part.outputs or ()}
    rest = [i for i in range(len(outputs)) if i not in used]
    for at in rest:
        part = TaskPart(_label(at, names), resolve_task("generic"), (at,), unlabelled=True)
        parts.append(part)
        sentences.append(f"{part.name}: task generic, compared with the dense model as numbers")
    return MultiTask(tuple(parts)), "; ".join(sentences)


def _label(at: int, names: Sequence[str]) -> str:
    return names[at] if at < len(names) else f"output {at}"


def _one(out: Any, targets: Targets, source: str) -> tuple[str, str]:
    """The task of one output with these targets, and why."""
    if isinstance(targets, list | tuple):
        return _sequences(out, targets, source)
    kind = targets.dtype.kind
    integers = kind in "biu"
    zeros_and_ones = bool(np.isin(targets, (0, 1)).all()) if kind in "biuf" else False
    column = out.size == len(out)
    if targets.size == len(targets):
        return _per_sample(out, targets, integers, zeros_and_ones, column, source)
    if out.ndim == 2 and targets.shape[1:] == out.shape[1:]:
        if is_one_hot(targets):
            return "classification", "every row of the targets holds one 1, one column per class"
        if zeros_and_ones:
            return "multilabel", f"the targets are rows of {out.shape[1]} zeros and ones"
        return "regression", f"the targets are {out.shape[1]} numbers per sample, as the outputs"
    if out.ndim == 3 and targets.ndim == 2 and integers:
        axis = token_axis(out.shape, targets.shape[1])
        if axis is not None:
            tie = ", classes taken to be the last axis" if out.shape[1] == out.shape[2] else ""
            return "tokens", f"a class number for each of the {targets.shape[1]} positions{tie}"
        if targets.shape[1] < max(out.shape[1:]):
            return "ctc", "sequences of symbols that are shorter than the outputs"
    if out.ndim == 4 and (integers or zeros_and_ones):
        shape = targets.shape[1:] if targets.ndim == 3 else targets.shape[2:]
        if targets.ndim == 3 or (targets.ndim == 4 and targets.shape[1] == 1):
            if shape != out.shape[2:]:
                raise DataError(
                    f"{source}: masks are {'×'.join(map(str, shape))}, the model's outputs"
                    f" {'×'.join(map(str, out.shape[2:]))}",
                    tip="save masks at the size of the model's outputs (nearest neighbour)",
                )
            return "segmentation", "the targets are masks of class numbers at the size of the outputs"
    if kind == "f" and _plain(targets.shape) == _plain(out.shape):
        name = "forecasting" if out.ndim == 3 else "regression"
        return name, "the targets are numbers of the outputs' shape"
    raise _unfit(out, targets, source)


def _per_sample(
    out: Any, targets: Any, integers: bool, zeros_and_ones: bool, column: bool, source: str
) -> tuple[str, str]:
    """One number per sample."""
    if column:
        if zeros_and_ones and targets.size:
            return "binary", "one output and targets of 0 and 1"
        return "regression", "one output and one number per sample"
    if out.ndim != 2 and out.size != len(out) * out.shape[1]:
        raise _unfit(out, targets, source)
    if not integers:
        raise DataError(
            f"{source}: one number per sample ({targets.dtype}) does not fit {out.shape[1]} outputs",
            tip="for classification save class numbers as integers, or say --task classification;"
            " for several values save one target per output",
        )
    classes, largest = out.shape[1], int(targets.max())
    if int(targets.min()) < 0 or largest >= classes:
        first = int(np.flatnonzero((targets.reshape(-1) < 0) | (targets.reshape(-1) >= classes))[0])
        raise DataError(
            f"{source}: sample {first} has label {targets.reshape(-1)[first]}, but the model has {classes}"
            " outputs",
            tip=f"class numbers lie in 0..{classes - 1}; other targets need --task",
        )
    return "classification", f"{classes} outputs and one class number per sample"


def _sequences(out: Any, targets: Sequence[Any], source: str) -> tuple[str, str]:
    """A list of sequences of whole numbers."""
    arrays = [np.asarray(entry) for entry in targets]
    if out.ndim != 3 or any(a.ndim != 1 or (a.size and a.dtype.kind not in "iu") for a in arrays):
        raise _unfit(out, targets, source)
    lengths = {len(a) for a in arrays}
    if lengths == {out.shape[1]} or lengths == {out.shape[2]}:
        return "tokens", "a class number for each position"
    return "ctc", "sequences of symbols of any length"


def _plain(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape[1:] if size != 1)


def _unfit(out: Any, targets: Any, source: str) -> DataError:
    return DataError(
        f"{source}: targets {show(targets)} and outputs {show(out)} fit no task that can be inferred",
        tip=f"name it with --task ({NAMES}), or leave y out to compare with the dense model",
    )
