"""State dicts: find the tensors in what was saved, and put them into a fresh module.

A checkpoint may wrap its state dict (`{"state_dict": …, "epoch": …}`), hold an averaged one beside it
(EMA, which is what its authors evaluated), or carry prefixes from DataParallel, torch.compile, Lightning
or AveragedModel; all are undone and said. Everything else must fit the factory's module name by name and
shape by shape, or the error lists what does not.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch

from edgeprune.errors import ModelError
from edgeprune.frontend.pickles import WRAPPERS
from edgeprune.importing import import_object

COMPILED, AVERAGED = "_orig_mod.", "n_averaged"
WRAPPING = ("module", "model", "net", "network", "_forward_module")  # DataParallel, Lightning, DeepSpeed
DEEPEST = 6
SHOWN = 3


def build(factory: str) -> torch.nn.Module:
    """Call `package.module:factory` without arguments.

    Raises:
        ModelError: not importable, not callable, it raised, or it gave no module.
    """
    target = import_object(factory, option="--model", error=ModelError)
    if isinstance(target, torch.nn.Module):
        return target
    if not callable(target):
        raise ModelError(
            f"--model {factory}: a value of type {type(target).__name__}, not a function that builds a module"
        )
    try:
        module = target()
    except Exception as exc:
        raise ModelError(
            f"--model {factory}: raised {type(exc).__name__}: {exc}",
            tip="it is called without arguments; give a function that needs none",
        ) from exc
    if not isinstance(module, torch.nn.Module):
        raise ModelError(
            f"--model {factory}: returned a value of type {type(module).__name__}, not a torch.nn.Module"
        )
    return module


def tensors_in(
    saved: Any, source: str, key: str | None = None
) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """The state dict in a loaded object, and notes on what was chosen.

    Args:
        key: which of several state dicts to take (`--state`); None takes the only one, or the averaged one.

    Raises:
        ModelError: no dictionary of tensors in it, several without an averaged one, or none under `key`.
    """
    inside = _states(saved)
    if key is not None:
        if key not in inside:
            listed = ", ".join(inside) or "none by name"
            raise ModelError(
                f"{source}: has no state dict under {key!r}", tip=f"--state takes one of: {listed}"
            )
        return inside[key], (f"took the state dict under {key!r}",)
    if _is_state(saved):
        return dict(saved), ()
    if not inside:
        holds = f"a {type(saved).__name__}"
        if isinstance(saved, dict):
            listed = ", ".join(repr(str(k)) for k in list(saved)[:SHOWN])
            holds = f"a dictionary with {listed or 'nothing in it'}"
        raise ModelError(
            f"{source}: holds {holds}, not a state dict",
            tip="save it with torch.save(model.state_dict(), path)",
        )
    chosen, others = _choice(inside, source)
    note = f"took the state dict under {chosen!r}"
    if others:
        note += f", the averaged weights; {', '.join(map(repr, others))} hold others (--state chooses)"
    return inside[chosen], (note,)


def _choice(inside: dict[str, dict[str, torch.Tensor]], source: str) -> tuple[str, list[str]]:
    """The state dict to take, and the others of a network's size that were left."""
    if len(inside) == 1:
        return next(iter(inside)), []
    averaged = [key for key in inside if "ema" in key.lower().replace(".", "_").split("_") or "averag" in key]
    known = [key for key in inside if key.partition(".")[0] in WRAPPERS]
    if len(averaged) == 1:
        return averaged[0], [key for key in inside if key != averaged[0]]
    if not averaged and len(known) == 1:
        return known[0], []
    several = known if len(known) > 1 and not averaged else list(inside)
    raise ModelError(
        f"{source}: holds several state dicts: {', '.join(several)}",
        tip=f"choose one, as in --state {several[0]}",
    )


def _states(saved: Any) -> dict[str, dict[str, torch.Tensor]]:
    """State dicts in a dictionary, up to two levels down, by dotted key."""
    states: dict[str, dict[str, torch.Tensor]] = {}
    if isinstance(saved, dict) and not _is_state(saved):
        for key, value in saved.items():
            if _is_state(value):
                states[str(key)] = dict(value)
            elif isinstance(value, dict):
                states.update({f"{key}.{k}": dict(v) for k, v in value.items() if _is_state(v)})
    return states


def matched(state: Mapping[str, Any], wanted: Collection[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Names of a file -> names of a module, wrappers undone in any order, and notes on what was undone.

    Names that fit already stay. What is beside a prefix that fits (a loss, a metric) is left out.
    """
    names = {name: name for name in state}
    if set(wanted) <= set(names):
        return names, ()
    notes: list[str] = []
    if any(COMPILED in name for name in names):
        names = {old: new.replace(COMPILED, "") for old, new in names.items()}
        notes.append(f"dropped {COMPILED!r} of torch.compile from the names")
    prefix = ""
    needed = {name for name in wanted if not name.endswith("num_batches_tracked")}
    while not needed <= {new.removeprefix(prefix) for new in names.values() if new.startswith(prefix)}:
        steps = {new[len(prefix) :].partition(".")[0] for new in names.values() if new.startswith(prefix)}
        steps = {step for step in steps if any(new.startswith(f"{prefix}{step}.") for new in names.values())}
        common = [step for step in steps if step in WRAPPING] or (list(steps) if len(steps) == 1 else [])
        if len(common) != 1 or prefix.count(".") >= DEEPEST:
            return {name: name for name in state}, ()
        prefix += f"{common[0]}."
    inside = {old: new.removeprefix(prefix) for old, new in names.items() if new.startswith(prefix)}
    if prefix:
        notes.append(f"dropped the prefix {prefix!r} of every name")
    left = [old for old in names if old not in inside and old != AVERAGED]
    if left:
        notes.append(f"left out {len(left)} tensors beside it ({', '.join(left[:SHOWN])})")
    return inside, tuple(notes)


def fill(
    module: torch.nn.Module, state: dict[str, torch.Tensor], source: str, factory: str
) -> tuple[str, ...]:
    """Copy a state dict into a module that it fits once wrappers are undone; notes on what was undone.

    Batch norm's `num_batches_tracked` may be missing (checkpoints older than it have none).

    Raises:
        ModelError: keys missing, unexpected or of another shape: counts and the first few of each.
    """
    expected = module.state_dict()
    names, notes = matched(state, expected)
    renamed_from, state = state, {new: state[old] for old, new in names.items()}
    missing = [k for k in expected if k not in state and not k.endswith("num_batches_tracked")]
    unexpected = [k for k in state if k not in expected]
    shaped = [
        f"{k} ({_shape(state[k])} in the file, {_shape(expected[k])} in the model)"
        for k in expected
        if k in state and isinstance(expected[k], torch.Tensor) and _shape(expected[k]) != _shape(state[k])
    ]
    parts = [
        f"{len(keys)} {what} ({', '.join(keys[:SHOWN])}{', …' if len(keys) > SHOWN else ''})"
        for what, keys in (("missing", missing), ("unexpected", unexpected), ("of another shape", shaped))
        if keys
    ]
    if parts:
        prefix = _common_prefix(renamed_from)
        shared = f"; all names in the file begin with {prefix!r}" if prefix else ""
        raise ModelError(
            f"{source}: does not fit --model {factory}: of {len(expected)} tensors, {'; '.join(parts)}"
            f"{shared}",
            tip="give the factory of the network that these weights were trained in",
        )
    module.load_state_dict(state, strict=False)
    return notes


def _common_prefix(names: Collection[str]) -> str:
    """The submodules that all names have in common, with the last dot."""
    shared = []
    for steps in zip(*(name.split(".")[:-1] for name in names), strict=False):
        if len(set(steps)) != 1:
            break
        shared.append(f"{steps[0]}.")
    return "".join(shared)


def _is_state(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(k, str) for k in value)
        and all(isinstance(v, torch.Tensor) for k, v in value.items() if not k.endswith("_extra_state"))
        and any(isinstance(v, torch.Tensor) for v in value.values())
    )


def _shape(value: Any) -> str:
    return "×".join(map(str, value.shape)) or "scalar" if isinstance(value, torch.Tensor) else "not a tensor"
