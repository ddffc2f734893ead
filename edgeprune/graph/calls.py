"""What the submodules of a model are called with while it runs, and what each call costs.

A module may be called several times in one run: a head on every level of a pyramid. Calls that differ
only in how many samples they bring are one Way to call it; other shapes, or another constant beside
the tensors (`neck(feat=f, scale=2)`), are another.

Guarantee: a Way's module takes tensors alone, in one shape each, and calls the module as it was called.
Elsewhere: which modules make a part (parts), tracing (trace).
"""

from __future__ import annotations

import copy as copying
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from edgeprune.errors import TraceError

pytree = torch.utils._pytree
ModuleCall = tuple[tuple[Any, ...], dict[str, Any]]
CONSTANTS = (bool, int, float, str, torch.dtype, torch.device, type(None))
NOT_READABLE = object()
NOT_CARRIED = frozenset(dir(nn.Module()))


@dataclass(frozen=True)
class Way:
    """One way in which a module is called.

    inputs: its arguments, whole where they hold tensors alone and are positional, else the tensors in order.
    rows: samples that came this way in one run; where the fullest call had fewer than two, `inputs` is noise.
    spec, fixed: the tree of (args, kwargs); its constants by position, None where there is nothing to bind.
    """

    inputs: tuple[Any, ...]
    rows: int
    spec: Any = None
    fixed: dict[int, Any] | None = None

    def around(self, module: nn.Module) -> nn.Module:
        """The module as something that takes `inputs`."""
        return module if self.fixed is None else TensorCall(module, self.spec, self.fixed)

    def instead(self, graph: nn.Module, module: nn.Module) -> nn.Module:
        """A graph of `around(module)` as something that is called, and read, as the module was."""
        stand_in = graph if self.fixed is None else Standing(graph, self.fixed)
        carry_attributes(module, stand_in)
        return stand_in


class TensorCall(nn.Module):  # type: ignore[misc]
    """A module that takes tensors alone; the rest of its call is fixed."""

    def __init__(self, module: nn.Module, spec: Any, fixed: dict[int, Any]) -> None:
        super().__init__()
        self.module, self._spec, self._fixed = module, spec, fixed
        self.training = module.training

    def forward(self, *tensors: torch.Tensor) -> Any:
        remaining = iter(tensors)
        leaves = [
            self._fixed[i] if i in self._fixed else next(remaining) for i in range(self._spec.num_leaves)
        ]
        args, kwargs = pytree.tree_unflatten(leaves, self._spec)
        return self.module(*args, **kwargs)

    def _get_name(self) -> str:
        return str(self.module._get_name())


class Standing(nn.Module):  # type: ignore[misc]
    """A graph of a Bound module in the place of that module: it takes the constants that it was made with."""

    def __init__(self, graph: nn.Module, fixed: dict[int, Any]) -> None:
        super().__init__()
        self.graph, self._fixed = graph, fixed

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        leaves = pytree.tree_leaves((args, kwargs))
        for i, wanted in self._fixed.items():
            if i >= len(leaves) or isinstance(leaves[i], torch.Tensor) or leaves[i] != wanted:
                raise TraceError(f"a pruned part was traced with {wanted!r} as its argument {i + 1}")
        return self.graph(*(x for i, x in enumerate(leaves) if i not in self._fixed))


def carry_attributes(module: nn.Module, stand_in: nn.Module) -> None:
    """Give a stand-in the plain values that the module kept on itself or on its class for others to read.

    A detector's forward asks each of its layers where its input comes from (`layer.f`). Parameters,
    submodules and methods are not carried: the graph has its own. Numbers keep the values that they had.
    """
    for name in dir(module):
        if name.startswith("_") or name in NOT_CARRIED or hasattr(stand_in, name):
            continue
        value = _read(module, name)
        if value is not NOT_READABLE and _is_plain(value):
            setattr(stand_in, name, copying.deepcopy(value))


def _read(module: nn.Module, name: str) -> Any:
    try:
        return getattr(module, name)
    except Exception:  # a property of the user's class that fails: nobody could read it before either
        return NOT_READABLE


def _is_plain(value: Any) -> bool:
    """Constants, tensors that are no parameters, and containers of these."""
    if isinstance(value, dict):
        return all(_is_plain(k) and _is_plain(v) for k, v in value.items())
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(_is_plain, value))
    if isinstance(value, torch.Tensor):
        return not isinstance(value, nn.Parameter) and value.is_leaf
    return isinstance(value, CONSTANTS)


def recorded(model: nn.Module, run: Callable[[nn.Module], Any]) -> dict[str, list[ModuleCall]]:
    """What every submodule is called with while `run` calls the model once: path -> (args, kwargs)."""
    calls: dict[str, list[ModuleCall]] = {}
    hooks = []
    for path, module in model.named_modules():

        def keep(_: nn.Module, args: Any, kwargs: Any, path: str = path) -> None:
            calls.setdefault(path, []).append((args, kwargs))

        hooks.append(module.register_forward_pre_hook(keep, with_kwargs=True))
    try:
        with torch.no_grad():
            run(model)
    finally:
        for hook in hooks:
            hook.remove()
    return calls


def macs_by_path(model: nn.Module, run: Callable[[nn.Module], Any]) -> dict[str, int]:
    """Multiply-accumulates that every submodule takes in one run, with all that it calls; "" is the model.

    Counted as operators run, traced or not. torch's fused transformer layers, which count as nothing, are
    switched off meanwhile.
    """
    spent: dict[str, int] = {}
    open_at: list[int] = []
    counter = FlopCounterMode(display=False, custom_mapping=_uncounted())
    hooks = []
    for path, module in model.named_modules():

        def enter(_: nn.Module, __: Any) -> None:
            open_at.append(counter.get_total_flops())

        def leave(_: nn.Module, __: Any, ___: Any, path: str = path) -> None:
            spent[path] = spent.get(path, 0) + counter.get_total_flops() - open_at.pop()

        hooks += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), counter:
            run(model)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        for hook in hooks:
            hook.remove()
    return {path: flops // 2 for path, flops in spent.items()}


def _uncounted() -> dict[Any, Any]:
    """Operators of the CPU that torch's counter leaves out: FLOPs from the shapes of their arguments."""

    def attention(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
        return int(sdpa_flop_count(q, k, v))

    def recurrent(x: Any, w_input: Any, w_hidden: Any, *_: Any, **__: Any) -> int:
        return 2 * math.prod(map(int, x[:2])) * sum(math.prod(map(int, w)) for w in (w_input, w_hidden))

    aten = torch.ops.aten
    return {aten._scaled_dot_product_flash_attention_for_cpu: attention, aten.mkldnn_rnn_layer: recurrent}


def tensors_of(call: ModuleCall) -> tuple[torch.Tensor, ...]:
    """The tensors that a call brings, in order."""
    return tuple(x for x in pytree.tree_leaves(call) if isinstance(x, torch.Tensor))


def ways(calls: list[ModuleCall], samples: int) -> list[Way] | str:
    """The ways in which a module is called, that with the largest tensors first; or why it has none."""
    if not calls:
        return "not called in the run"
    alike: list[list[ModuleCall]] = []
    for call in calls:
        problem = _problem(call)
        if problem:
            return problem
        for others in alike:
            if _shape(call) == _shape(others[0]):
                others.append(call)
                break
        else:
            alike.append([call])
    ways_or_reasons = [_way(group, samples) for group in alike]
    if not all(isinstance(way, Way) for way in ways_or_reasons):
        return next(way for way in ways_or_reasons if isinstance(way, str))
    return sorted((w for w in ways_or_reasons if isinstance(w, Way)), key=lambda w: -_volume(w))


def _problem(call: ModuleCall) -> str:
    leaves, tensors = pytree.tree_leaves(call), tensors_of(call)
    odd = [type(x).__name__ for x in leaves if not isinstance(x, (torch.Tensor, *CONSTANTS))]
    if odd:
        return f"takes more than tensors and constants: {odd[0]}"
    if not tensors:
        return "takes no tensor"
    if any(not x.dim() for x in tensors) or len({len(x) for x in tensors}) != 1:
        return "its arguments share no batch"
    return ""


def _shape(call: ModuleCall) -> tuple[Any, ...]:
    """All that a trace depends on: the tree, the constants with their types, the shape of each sample."""
    leaves, spec = pytree.tree_flatten(call)
    return str(spec), tuple(
        (x.shape[1:], x.dtype) if isinstance(x, torch.Tensor) else (type(x), x) for x in leaves
    )


def _way(calls: list[ModuleCall], samples: int) -> Way | str:
    """From calls that are alike: an example from the fullest of them, noise where that is too small."""
    fullest = max(calls, key=lambda call: len(tensors_of(call)[0]))
    tensors = tensors_of(fullest)
    if len(tensors[0]) < 2 and not all(x.is_floating_point() for x in tensors):
        return "the example gave it fewer than two samples of whole numbers"

    def several(x: torch.Tensor) -> torch.Tensor:
        if len(x) > 1:
            return x[:samples].detach().clone()
        return torch.randn(samples, *x.shape[1:], dtype=x.dtype, device=x.device)

    rows = sum(len(tensors_of(call)[0]) for call in calls)
    args, kwargs = fullest
    leaves, spec = pytree.tree_flatten(fullest)
    fixed = {i: x for i, x in enumerate(leaves) if not isinstance(x, torch.Tensor)}
    if not fixed and not kwargs:
        return Way(pytree.tree_map(several, tuple(args)), rows)
    return Way(tuple(several(x) for x in tensors), rows, spec, fixed)


def _volume(way: Way) -> int:
    return sum(x[0].numel() for x in pytree.tree_leaves(way.inputs))
