"""State dicts: find the tensors in what was saved, and put them into a fresh module.

A checkpoint may wrap its state dict (`{"state_dict": …, "epoch": …}`) or carry a prefix
from DataParallel or torch.compile; both are undone and said. Everything else must fit
the factory's module name by name and shape by shape, or the error lists what does not.
"""

from __future__ import annotations

from typing import Any

import torch

from edgeprune.errors import ModelError
from edgeprune.frontend.pickles import WRAPPERS
from edgeprune.importing import import_object

PREFIXES = ("module.", "_orig_mod.")
SHOWN = 3


def build(factory: str) -> torch.nn.Module:
    """Call `package.module:factory` without arguments.

    Raises:
        ModelError: not importable, not callable, it raised, or it gave no module.
    """
    made = import_object(factory, option="--model", error=ModelError)
    if isinstance(made, torch.nn.Module):
        return made
    if not callable(made):
        raise ModelError(
            f"--model {factory}: a value of type {type(made).__name__}, not a function that builds a module"
        )
    try:
        module = made()
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


def tensors_in(saved: Any, source: str) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """The state dict in a loaded object, its names without wrapper prefixes, and notes on what was undone.

    Raises:
        ModelError: no dictionary of tensors in it.
    """
    notes = []
    state = saved
    if isinstance(saved, dict) and not _is_state(saved):
        inner = [key for key in WRAPPERS if _is_state(saved.get(key))]
        if not inner:
            inner = [str(key) for key, value in saved.items() if _is_state(value)]
        if len(inner) > 1:
            raise ModelError(
                f"{source}: holds several state dicts: {', '.join(inner)}",
                tip=f"save the one to use alone: torch.save(checkpoint[{inner[0]!r}], path)",
            )
        if inner:
            state = saved[inner[0]]
            notes.append(f"took the state dict under {inner[0]!r}")
    if not _is_state(state):
        what = f"a {type(saved).__name__}"
        if isinstance(saved, dict):
            what = (
                f"a dictionary with {', '.join(repr(str(k)) for k in list(saved)[:SHOWN]) or 'nothing in it'}"
            )
        raise ModelError(
            f"{source}: holds {what}, not a state dict",
            tip="save it with torch.save(model.state_dict(), path)",
        )
    names = dict(state)
    for prefix in PREFIXES:
        if names and all(name.startswith(prefix) for name in names):
            names = {name.removeprefix(prefix): value for name, value in names.items()}
            notes.append(f"dropped the prefix {prefix!r} of every name")
    return names, tuple(notes)


def fill(module: torch.nn.Module, state: dict[str, torch.Tensor], source: str, factory: str) -> None:
    """Copy a state dict into a module that it fits exactly.

    Batch norm's `num_batches_tracked` may be missing (checkpoints older than it have none).

    Raises:
        ModelError: keys missing, unexpected or of another shape: counts and the first few of each.
    """
    own = module.state_dict()
    missing = [k for k in own if k not in state and not k.endswith("num_batches_tracked")]
    unexpected = [k for k in state if k not in own]
    shaped = [
        f"{k} ({_shape(state[k])} in the file, {_shape(own[k])} in the model)"
        for k in own
        if k in state and isinstance(own[k], torch.Tensor) and _shape(own[k]) != _shape(state[k])
    ]
    parts = [
        f"{len(keys)} {what} ({', '.join(keys[:SHOWN])}{', …' if len(keys) > SHOWN else ''})"
        for what, keys in (("missing", missing), ("unexpected", unexpected), ("of another shape", shaped))
        if keys
    ]
    if parts:
        raise ModelError(
            f"{source}: does not fit --model {factory}: of {len(own)} tensors, {'; '.join(parts)}",
            tip="give the factory of the network that these weights were trained in",
        )
    module.load_state_dict(state, strict=False)


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
