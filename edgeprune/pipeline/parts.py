"""Prune a model of which torch.export takes only parts: a detector, whose last steps depend on the data.

    found = edgeprune.prune_parts(detector, [image, image], macs=0.5)
    found.module([photo])      the same class, narrower inside
    found.parts                what went from each part, what is pinned and why

The largest exportable submodules (backbone, heads) are traced and pruned, and their own classes are
sliced, so that other image sizes still pass and training goes on as before. Between parts nothing
narrows: what a part gives is pinned.

Guarantee: the model that was given is not changed; a sliced part computes what its pruned graph computes.
Elsewhere: finding the parts (model.parts), slicing a class (surgery.apply), whole models (compress).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from edgeprune.capture import capture
from edgeprune.coupling.components import Couplings, Pin
from edgeprune.criteria import Context, score
from edgeprune.criteria.registry import needs_data
from edgeprune.data import open_data
from edgeprune.errors import BudgetError, DataError, ModelError, TraceError
from edgeprune.model.graph import state_tensors
from edgeprune.model.parts import Part, exportable_parts, put_back, recorded
from edgeprune.model.refusal import first_line
from edgeprune.model.trace import Trace
from edgeprune.pipeline.costs import parameters, what_pins
from edgeprune.planning import parse_share, uniform
from edgeprune.planning.groups import largest
from edgeprune.recovery import compensate, recalibrate
from edgeprune.surgery import analyse, cut
from edgeprune.surgery.apply import apply_recipe
from edgeprune.surgery.recipe import recipe

pytree = torch.utils._pytree
Batches = list[tuple[torch.Tensor, ...]]
STEPS = 50  # halvings of the share that parts are asked for


@dataclass(frozen=True)
class PrunedPart:
    """What became of one part. Pairs are before and after.

    macs: of one run on the example. refitted: in closed form, on samples of this part.
    attributes: of the sliced class that changed. fixed: why the graph stands there instead of the
    class, if it does; it takes the sizes of the example only.
    """

    path: str
    components: tuple[int, int]
    macs: tuple[int, int]
    params: tuple[int, int]
    pinned: tuple[Pin, ...]
    refitted: bool = False
    attributes: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    fixed: str | None = None


@dataclass(frozen=True)
class PrunedParts:
    """The model with its parts pruned, in evaluation mode; `missed` holds why modules are in no part."""

    module: nn.Module
    parts: tuple[PrunedPart, ...]
    missed: dict[str, str]

    @property
    def macs(self) -> tuple[int, int]:
        """Of all parts, in one run on the example, before and after."""
        return sum(p.macs[0] for p in self.parts), sum(p.macs[1] for p in self.parts)


def prune_parts(
    model: nn.Module,
    example_inputs: Any,
    *,
    macs: float | str = 0.5,
    criterion: str = "l2",
    data: Iterable[Any] | None = None,
    seed: int = 0,
) -> PrunedParts:
    """Prune the exportable parts of a model, each by the same share of every group of channels.

    Args:
        example_inputs: what the model is called with: a tuple of arguments, or the only one (as a
            detector's list of images). At least two samples.
        macs: share of the parts' MACs to keep together (0.5), or factor fewer ("3x"). A part that is
            pinned keeps more, the others give more.
        data: further inputs of the same kind, such as batches of images. Weights that stay are refitted
            on them, and criteria other than l2, fpgm and random can be asked for. A part learns from
            those that reach it in the sizes of the example.

    Raises:
        ModelError: the model does not run on the example, or no longer runs when it is pruned.
        TraceError: no part of it can be exported; the reasons are given.
        BudgetError: more has to stay; what pins it is named.
        DataError: a criterion that needs data, and none reached a part.
    """
    share, name = parse_share(str(macs), "macs"), type(model).__name__
    own = copy.deepcopy(model).eval()
    try:
        parts, missed = exportable_parts(own, _caller(example_inputs), samples=2)
    except Exception as error:
        raise ModelError(
            f"{name} does not run on example_inputs: {first_line(error)}",
            tip="give its arguments as a tuple; anything else, a list too, is the only argument",
        ) from error
    if not parts:
        why = ", ".join(f"{path or name} ({reason})" for path, reason in list(missed.items())[:3])
        raise TraceError(f"no part of {name} can be exported: {why or 'it has no parameters'}")
    couplings = {part.path: analyse(part.trace) for part in parts}
    asked = _shares(parts, couplings, share)
    seen = _samples(own, parts, data or ())
    done = []
    for part in parts:
        small, record = _pruned(
            own.get_submodule(part.path), part, couplings[part.path], asked[part.path],
            seen[part.path], criterion, seed,
        )  # fmt: skip
        put_back(own, part.path, small)
        done.append(record)
    try:
        with torch.no_grad():
            _caller(example_inputs)(own)
    except Exception as error:
        raise ModelError(f"{name} does not run with its pruned parts: {first_line(error)}") from error
    return PrunedParts(own, tuple(done), missed)


def _caller(example: Any) -> Callable[[nn.Module], Any]:
    """Calls a model on an example: a tuple of arguments, or the only one."""
    return lambda model: model(*(example if isinstance(example, tuple) else (example,)))


def _shares(parts: list[Part], couplings: dict[str, Couplings], share: float) -> dict[str, float]:
    """The share of its MACs that each part is asked for, the same for all that can go so far."""
    whole = {p.path: p.rows * couplings[p.path].macs() for p in parts}
    floor = {path: _floor(found) for path, found in couplings.items()}
    total = sum(whole.values())

    def kept(asked: float) -> float:
        return sum(macs * max(asked, floor[path]) for path, macs in whole.items())

    if kept(0.0) > share * total:
        pins = [pin for found in couplings.values() for pin in found.pins]
        raise BudgetError(
            f"macs={share:.3g}: at least {kept(0.0) / total:.1%} of the parts' MACs have to stay"
            f" ({what_pins(pins)})",
            tip=f"ask for {kept(0.0) / total + 0.005:.2f} or more",
        )
    low, high = 0.0, 1.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if kept(middle) <= share * total else (low, middle)
    return {path: max(low, least) for path, least in floor.items()}


def _floor(couplings: Couplings) -> float:
    """The share of a part's MACs that stays when everything removable is gone."""
    if not couplings.count or not couplings.macs():
        return 1.0
    return couplings.macs(largest(couplings, np.arange(couplings.count))) / couplings.macs()


def _samples(own: nn.Module, parts: list[Part], data: Iterable[Any]) -> dict[str, Batches]:
    """What reaches each part from the data, as its graph takes it."""
    found: dict[str, Batches] = {part.path: [] for part in parts}
    for item in data:
        calls = recorded(own, _caller(item))
        for part in parts:
            called = calls.get(part.path, [])
            given = tuple(pytree.tree_leaves(called[0])) if len(called) == 1 else ()
            if given and _fits(given, part.trace):
                found[part.path].append(tuple(x.detach() for x in given))
    return found


def _fits(given: tuple[torch.Tensor, ...], traced: Trace) -> bool:
    """Whether a graph takes tensors: its sizes, and its batch where that is fixed; at least one sample."""
    return len(given) == len(traced.inputs) and all(
        x.shape[1:] == y.shape[1:] and len(x) > 0 and (free or len(x) == len(y))
        for x, y, free in zip(given, traced.inputs, traced.dynamic, strict=True)
    )


def _pruned(
    module: nn.Module,
    part: Part,
    couplings: Couplings,
    share: float,
    samples: Batches,
    criterion: str,
    seed: int,
) -> tuple[nn.Module, PrunedPart]:
    """A part with fewer channels, and its record."""
    size = parameters(part.trace)
    before = part.rows * couplings.macs()
    whole = PrunedPart(part.path, (couplings.count,) * 2, (round(before),) * 2, (size, size), couplings.pins)
    if share >= 1 or not couplings.count:
        return module, whole
    statistics = None
    if samples and needs_data(criterion):
        joined = tuple(torch.cat(column).numpy() for column in zip(*samples, strict=True))
        dataset = open_data((joined if len(joined) > 1 else joined[0], None))
        at = np.arange(len(joined[0]))
        statistics = capture(part.trace, couplings, dataset, at, batch_size=len(samples[0][0]), seed=seed)
    elif needs_data(criterion):
        raise DataError(
            f"criterion={criterion}: no data reached {part.path} in the sizes of the example",
            tip="give data, as a list of what the model is called with, or use criterion='l2'",
        )
    rank = score(criterion, Context(part.trace, couplings, statistics, seed)).rank
    removed = uniform(couplings, rank, couplings.macs, share * couplings.macs())
    if samples:
        smaller = recalibrate(compensate(part.trace, couplings, removed, samples)[0], samples)
    else:
        smaller = cut(part.trace, couplings, removed)
    sliced, attributes, fixed = _sliced(module, part, recipe(part.trace, couplings, removed), smaller)
    return sliced, PrunedPart(
        part.path,
        (couplings.count, couplings.count - int(removed.sum())),
        (round(before), round(part.rows * couplings.macs(removed))),
        (size, parameters(smaller)),
        couplings.pins,
        bool(samples),
        attributes,
        fixed,
    )


def _sliced(
    module: nn.Module, part: Part, plan: dict[str, Any], smaller: Trace
) -> tuple[nn.Module, dict[str, tuple[Any, Any]], str | None]:
    """The part's own class with the weights of its pruned graph; where that cannot be, the graph and why."""
    inputs = pytree.tree_map(lambda x: x[: len(part.trace.inputs[0])], part.inputs)
    try:
        applied = apply_recipe(module, plan, inputs, part.trace)
    except TraceError as error:
        return smaller.graph, {}, error.message
    held = {**dict(applied.module.named_parameters()), **dict(applied.module.named_buffers())}
    with torch.no_grad():
        for name, tensor in state_tensors(smaller.graph).items():
            if name in held:
                held[name].copy_(tensor)
    return applied.module, applied.attributes, None
