"""The user's own training loop: what it is called with, and the checks of what it gives back.

    def train(pruned, dense, data):
        for inputs, targets in data.batches("train", 64, shuffle_seed=0):
            loss = data.task.loss((pruned(*inputs),), targets)
            ...

`pruned` and `dense` are modules on the CPU in evaluation form. The function trains `pruned` in place, or
returns another module with the same tensors; it is called once per round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import fx, nn

from edgeprune.data import iterate
from edgeprune.errors import ModelError, OptionError
from edgeprune.graph.execution import tensors
from edgeprune.graph.trace import Trace
from edgeprune.importing import import_object
from edgeprune.session.dense import RunData
from edgeprune.tasks.base import Outputs, Targets, Task

SHOWN = 3
TrainFunction = Callable[[Any, Any, Any], Any]


@dataclass(frozen=True)
class TrainingData:
    """What a training function may use; validation and test samples judge the result and are not in it."""

    data: RunData

    @property
    def task(self) -> Task:
        """Loss, distillation and score of the run's task."""
        return self.data.task

    def indices(self, part: str) -> npt.NDArray[np.int64]:
        """Samples of "train" or "calibration".

        Raises:
            OptionError: another part.
        """
        if part not in ("train", "calibration"):
            raise OptionError(f"training asked for the part {part!r}", tip="train and calibration are given")
        return self.data.indices(part)

    def batches(
        self, part: str, batch_size: int, *, shuffle_seed: int | None = None
    ) -> Iterator[tuple[tuple[torch.Tensor, ...], Targets | None]]:
        """Input tensors with their targets."""
        rows = iterate(self.data.dataset, self.indices(part), batch_size, shuffle_seed=shuffle_seed)
        for inputs, targets in rows:
            yield tensors(inputs), targets

    def teacher(self) -> Outputs:
        """The dense model's outputs on "train", in the order of `indices`."""
        return self.data.dense["train"]


def import_train(spec: str) -> TrainFunction:
    """The function of --train MODULE:FUNCTION.

    Raises:
        OptionError: it cannot be imported or called.
    """
    function = import_object(spec, option="--train", error=OptionError)
    if not callable(function):
        raise OptionError(f"--train {spec}: a {type(function).__name__}, not a function")
    return function  # type: ignore[no-any-return]


def train_by_user(train: TrainFunction, pruned: Trace, dense: Trace, data: RunData) -> Trace:
    """Call a training function on copies and take the weights that it leaves.

    Raises:
        ModelError: it raised, or what it gave has other tensors, or weights that are not finite.
    """
    module, teacher = pruned.copy(), dense.copy()
    for parameter in module.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    name = getattr(train, "__qualname__", type(train).__name__)
    try:
        returned = train(module, teacher, TrainingData(data))
    except Exception as error:
        raise ModelError(f"--train {name}: raised {type(error).__name__}: {error}") from error
    result = module if returned is None else returned
    if not isinstance(result, nn.Module):
        raise ModelError(
            f"--train {name}: returned a {type(result).__name__}",
            tip="train the first argument in place and return nothing, or return a module",
        )
    trained = pruned.copy()
    fill_checked(trained, result.state_dict(), f"--train {name}")
    return replace(pruned, graph=trained)


def fill_checked(graph: fx.GraphModule, state: dict[str, torch.Tensor], source: str) -> None:
    """Put trained weights into a pruned network that they fit exactly.

    Raises:
        ModelError: another architecture (missing, further or differently shaped tensors are named), or
            weights that are not finite.
    """
    expected = graph.state_dict()
    missing = [k for k in expected if k not in state]
    further = [k for k in state if k not in expected and not k.endswith("num_batches_tracked")]
    shaped = [
        f"{k} {tuple(state[k].shape)} for {tuple(v.shape)}"
        for k, v in expected.items()
        if k in state and state[k].shape != v.shape
    ]
    faults = [
        f"{len(names)} {what} ({', '.join(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''})"
        for what, names in (("missing", missing), ("unknown", further), ("of another shape", shaped))
        if names
    ]
    if faults:
        raise ModelError(
            f"{source}: gave another architecture: of {len(expected)} tensors, {'; '.join(faults)}",
            tip="train the pruned network itself; its shapes are in the recipe",
        )
    for name in expected:
        value = state[name]
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise ModelError(f"{source}: {name} holds NaN or infinity after training", tip="lower the rate")
    graph.load_state_dict({name: state[name].detach().cpu() for name in expected})
