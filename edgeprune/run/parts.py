"""Prune a model of which torch.export takes only parts: a detector, whose last steps depend on the data.

    found = edgeprune.prune_parts(detector, [image, image], macs=0.5)
    found.module([photo])      the same class, narrower inside
    found.parts                what went from each part, what is pinned and why

The largest exportable submodules (backbone, heads) are traced and pruned, and their own classes are
sliced, so that other image sizes still pass and training goes on as before. Between parts nothing
narrows: what a part gives is pinned. Budgets are of the whole model: what no part holds is counted and stays.

Guarantee: the model that was given is not changed; a sliced part computes what its pruned graph computes,
in every shape in which the example called it.
Elsewhere: finding the parts (model.parts), slicing a class (surgery.apply), their ONNX files (part_files).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from edgeprune.calibration.capture import capture
from edgeprune.coupling.analysis import analyse
from edgeprune.coupling.components import Couplings, Pin
from edgeprune.criteria import Context, score
from edgeprune.criteria.registry import needs_data
from edgeprune.data import open_data
from edgeprune.errors import BudgetError, DataError, ModelError, TraceError
from edgeprune.frontend.finite import named_tensors, require_finite_weights
from edgeprune.graph.calls import macs_by_path, recorded, tensors_of
from edgeprune.graph.parts import Part, exportable_parts, put_back
from edgeprune.graph.refusal import first_line
from edgeprune.graph.trace import Trace
from edgeprune.recovery import recover_closed_form
from edgeprune.run.part_classes import Choices, CoupledPart, KeepWhole, Unusable, sliced_part
from edgeprune.search.costs import parameters, what_pins
from edgeprune.search.groups import uniform
from edgeprune.session.budget import parse_share
from edgeprune.surgery.apply import copied
from edgeprune.surgery.cut import cut
from edgeprune.tasks.registry import resolve_task

pytree = torch.utils._pytree
Batches = list[tuple[torch.Tensor, ...]]
STEPS = 50  # halvings of the share that parts are asked for


@dataclass(frozen=True)
class PrunedPart:
    """What became of one part. Pairs are before and after.

    macs: of one run on the example, all calls together. refitted: in closed form, on samples of this part.
    attributes: of the sliced class that changed. whole: submodules that keep their channels, because the
    class could not be sliced otherwise. fixed: why the graph stands there instead of the class, if it does;
    it takes the sizes of the example only.
    """

    path: str
    components: tuple[int, int]
    macs: tuple[int, int]
    params: tuple[int, int]
    pinned: tuple[Pin, ...]
    refitted: bool = False
    attributes: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    fixed: str | None = None
    whole: tuple[str, ...] = ()


@dataclass(frozen=True)
class PrunedParts:
    """The model with its parts pruned, in evaluation mode.

    missed: why modules are in no part. missed_macs: what each takes in one run on the example, less the
    parts inside it.
    outside: MACs of that run in no part, which are not pruned: the missed modules, and what forwards
    multiply themselves.
    found: the parts before they were pruned, which `export_parts` compares with.
    """

    module: nn.Module
    parts: tuple[PrunedPart, ...]
    missed: dict[str, str]
    missed_macs: dict[str, int]
    outside: int
    found: tuple[Part, ...] = field(repr=False, compare=False)

    @property
    def macs(self) -> tuple[int, int]:
        """Of the whole model, in one run on the example, before and after."""
        before, after = (sum(p.macs[i] for p in self.parts) for i in (0, 1))
        return before + self.outside, after + self.outside


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

    A part that is called in several shapes (a head on every level of a pyramid) is pruned by one plan, proven
    in each; where its class cannot be sliced, its children are the parts.

    Args:
        example_inputs: what the model is called with: a tuple of arguments, or the only one (as a
            detector's list of images). At least two samples.
        macs: share of the model's MACs to keep (0.5), or factor fewer ("3x"). A part that is pinned, and
            what no part holds, keeps more; the others give more.
        data: further inputs of the same kind, such as batches of images. Weights that stay are refitted
            on them, and criteria other than l2, fpgm and random can be asked for. A part learns from
            those that reach it in the sizes of the example.

    Raises:
        ModelError: a weight is NaN or infinite; the model does not run on the example, or no longer runs
            when it is pruned.
        TraceError: no part of it can be exported; the reasons are given.
        BudgetError: more has to stay; what pins it is named.
        DataError: a criterion that needs data, and none reached a part.
    """
    share, name = parse_share(str(macs), "macs"), type(model).__name__
    pruned = copied(model).eval()
    require_finite_weights(named_tensors(pruned), name)
    call = _caller(example_inputs)
    try:
        spent = macs_by_path(pruned, call)
    except Exception as error:
        raise ModelError(
            f"{name} does not run on example_inputs: {first_line(error)}",
            tip="give its arguments as a tuple; anything else, a list too, is the only argument",
        ) from error
    refused: dict[str, str] = {}
    choices = Choices()
    parts, missed = _found_parts(pruned, call, refused, name)
    while True:
        outside = max(0, spent.get("", 0) - sum(spent.get(part.path, 0) for part in parts))
        took = {path: _apart(path, parts, spent) for path in missed}
        try:
            coupled = [_coupled(part, choices) for part in parts]
            asked = _shares(coupled, share, outside, _dearest(missed, took))
            seen = _samples(pruned, parts, data or ())
            done = [
                _pruned(
                    pruned.get_submodule(c.part.path), c, asked[c.part.path], seen[c.part.path], criterion,
                    seed, choices,
                )
                for c in coupled
            ]  # fmt: skip
            break
        except KeepWhole as submodule:
            choices.keep(submodule)
        except BudgetError:
            if not choices.give_up_classes():
                raise
        except Unusable as part:
            refused[part.path] = part.reason
            parts, missed = _found_parts(pruned, call, refused, name)
    for small, record in done:
        put_back(pruned, record.path, small)
    try:
        with torch.no_grad():
            call(pruned)
    except Exception as error:
        raise ModelError(f"{name} does not run with its pruned parts: {first_line(error)}") from error
    return PrunedParts(pruned, tuple(record for _, record in done), missed, took, outside, tuple(parts))


def _found_parts(
    model: nn.Module, call: Callable[[nn.Module], Any], refused: dict[str, str], name: str
) -> tuple[list[Part], dict[str, str]]:
    parts, missed = exportable_parts(model, call, samples=2, refused=refused)
    if not parts:
        why = ", ".join(f"{path or name} ({reason})" for path, reason in list(missed.items())[:3])
        raise TraceError(f"no part of {name} can be exported: {why or 'it has no parameters'}")
    return parts, missed


def _caller(example: Any) -> Callable[[nn.Module], Any]:
    """Calls a model on an example: a tuple of arguments, or the only one."""
    return lambda model: model(*(example if isinstance(example, tuple) else (example,)))


def _coupled(part: Part, choices: Choices) -> CoupledPart:
    """Couplings of all ways to call a part.

    Raises:
        Unusable: a plan for one way means something else in another.
    """
    ways = tuple(analyse(traced, keep=choices.kept(part)) for traced in part.traces)
    if choices.kept(part) and not ways[0].count:  # a class that loses nothing: its graph can lose something
        choices.graphs.add(part.path)
        ways = tuple(analyse(traced) for traced in part.traces)
    if not all(_same_components(ways[0], other) for other in ways[1:]):
        raise Unusable(part.path, f"its {len(ways)} ways to be called tie different channels together")
    return CoupledPart(part, ways)


def _same_components(one: Couplings, other: Couplings) -> bool:
    """Whether component numbers mean the same indices of the same tensors."""

    def index(couplings: Couplings, name: str) -> list[Any]:
        dims = couplings.tensors[couplings.aliases[name]]
        return [None if d is None else couplings.channel_maps[d].tolist() for d in dims]

    return (
        one.count == other.count
        and set(one.aliases) == set(other.aliases)
        and all(index(one, name) == index(other, name) for name in one.aliases)
    )


def _shares(coupled: list[CoupledPart], share: float, outside: int, dearest: str) -> dict[str, float]:
    """The share of its MACs that each part is asked for, the same for all that can go so far."""
    dense_macs = {c.part.path: c.macs() for c in coupled}
    floor = {c.part.path: c.floor() for c in coupled}
    total = sum(dense_macs.values()) + outside

    def kept(asked: float) -> float:
        return outside + sum(macs * max(asked, floor[path]) for path, macs in dense_macs.items())

    if kept(0.0) > share * total:
        pins = [pin for c in coupled for pin in c.couplings.pins]
        least = kept(0.0) / total
        why = what_pins(pins)
        if outside:
            why += f"; {outside / total:.1%} are in no part: {dearest or 'what forwards multiply themselves'}"
        raise BudgetError(
            f"macs={share:.3g}: at least {least:.1%} of the model's MACs have to stay ({why})",
            tip=f"ask for {least + 0.005:.2f} or more" if least < 0.995 else "",
        )
    low, high = 0.0, 1.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if kept(middle) <= share * total else (low, middle)
    return {path: max(low, least) for path, least in floor.items()}


def _apart(path: str, parts: list[Part], spent: dict[str, int]) -> int:
    """MACs of a module, less those of the parts inside it."""
    inside = sum(spent.get(part.path, 0) for part in parts if part.path.startswith(f"{path}."))
    return max(0, spent.get(path, 0) - inside)


def _dearest(missed: dict[str, str], took: dict[str, int]) -> str:
    """The three missed modules that take most, with the reasons."""
    some = sorted((path for path in missed if took[path]), key=lambda path: -took[path])
    return ", ".join(f"{path} ({missed[path]})" for path in some[:3])


def _samples(model: nn.Module, parts: list[Part], data: Iterable[Any]) -> dict[str, Batches]:
    """What reaches each part from the data, as its graph takes it."""
    batches_of: dict[str, Batches] = {part.path: [] for part in parts}
    for item in data:
        calls = recorded(model, _caller(item))
        for part in parts:
            for called in calls.get(part.path, []):
                tensors = tensors_of(called)
                if _fits(tensors, part.trace):
                    batches_of[part.path].append(tuple(x.detach() for x in tensors))
    return batches_of


def _fits(tensors: tuple[torch.Tensor, ...], traced: Trace) -> bool:
    """Whether a graph takes tensors: its sizes, and its batch where that is fixed; at least one sample."""
    return len(tensors) == len(traced.inputs) and all(
        x.shape[1:] == y.shape[1:] and len(x) > 0 and (free or len(x) == len(y))
        for x, y, free in zip(tensors, traced.inputs, traced.dynamic, strict=True)
    )


def _pruned(
    module: nn.Module,
    coupled: CoupledPart,
    share: float,
    samples: Batches,
    criterion: str,
    seed: int,
    choices: Choices,
) -> tuple[nn.Module, PrunedPart]:
    """A part with fewer channels, and its record."""
    part, couplings = coupled.part, coupled.couplings
    size = parameters(part.trace)
    before = coupled.macs()
    unpruned = PrunedPart(
        part.path, (couplings.count,) * 2, (round(before),) * 2, (size, size), couplings.pins
    )
    if share >= 1 or not couplings.count:
        return module, unpruned
    statistics = None
    if samples and needs_data(criterion):
        joined = tuple(torch.cat(column).numpy() for column in zip(*samples, strict=True))
        dataset = open_data((joined if len(joined) > 1 else joined[0], None))
        at = np.arange(len(joined[0]))
        statistics = capture(
            part.trace, couplings, dataset, at, task=resolve_task("generic"), batch_size=len(samples[0][0]),
            seed=seed,
        )  # fmt: skip
    elif needs_data(criterion):
        raise DataError(
            f"criterion={criterion}: no data reached {part.path} in the sizes of the example",
            tip="give data, as a list of what the model is called with, or use criterion='l2'",
        )
    rank = score(criterion, Context(part.trace, couplings, statistics, seed)).rank
    removed = uniform(couplings, rank, coupled.macs, share * before)
    if samples:
        smaller, _ = recover_closed_form(part.trace, couplings, removed, samples)
    else:
        smaller = cut(part.trace, couplings, removed)
    sliced, attributes, fixed = sliced_part(module, coupled, removed, smaller, choices)
    return sliced, PrunedPart(
        part.path,
        (couplings.count, couplings.count - int(removed.sum())),
        (round(before), round(coupled.macs(removed))),
        (size, parameters(smaller)),
        couplings.pins,
        bool(samples),
        attributes,
        fixed,
        tuple(choices.kept(part)),
    )
