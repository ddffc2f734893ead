"""Let torch.export read numbers from buffers and constant tensors.

    with constant_reads(model):
        torch.export.export(model, inputs)

A model may take a stride, a size or a flag from a tensor of its own: `int(self.size)`,
`x.new_full((n, 1), self.stride[i])`, `if self.causal:`. While it exports, such tensors hold no
values, so torch treats the number as one that depends on the data. Here each tensor that is computed
from buffers and constants alone is computed on the real values beside it, and the number is read there.

Guarantee: a number is read only where the operators from the buffer to the number are known to depend
on nothing else, and from the first write to such a tensor on nothing more is read.
`stopped`, and `written_buffers` for what the operators wrote, tell when numbers that were read are no
constants: then the export must be discarded.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils.weak import WeakIdKeyDictionary

pytree = torch.utils._pytree
# What gives a Python number, or several.
READS = {"item", "tolist", "__int__", "__float__", "__bool__", "__index__"}
# What gives a tensor that depends on the operands alone: no random numbers, no uninitialised memory.
_DETERMINISTIC = """
__getitem__ select narrow unbind chunk split flatten reshape view squeeze unsqueeze permute transpose t
index_select flip clone detach contiguous to type cpu int long short float double half bool clamp
max min amax amin sum prod mean cumsum all any argmax argmin numel stack cat round floor ceil trunc sqrt
abs neg exp log pow add sub mul div true_divide floor_divide remainder fmod maximum minimum where
eq ne gt ge lt le logical_and logical_or logical_not
__add__ __radd__ __sub__ __rsub__ __mul__ __rmul__ __truediv__ __rtruediv__ __floordiv__ __rfloordiv__
__mod__ __pow__ __neg__ __abs__ __eq__ __ne__ __gt__ __ge__ __lt__ __le__ __and__ __or__ __invert__
"""
DETERMINISTIC = frozenset(_DETERMINISTIC.split())
MAKES = {"tensor", "arange", "zeros", "ones", "full", "linspace"}
_INPLACE = """
__iadd__ __isub__ __imul__ __itruediv__ __ifloordiv__ __imod__ __ipow__ __iand__ __ior__ __ixor__
__ilshift__ __irshift__ __imatmul__
"""
WRITES = frozenset({"__setitem__", "__set__", "batch_norm", "instance_norm", *_INPLACE.split()})


class constant_reads(TorchFunctionMode):  # type: ignore[misc]  # torch leaves it untyped
    """While active, numbers read from buffers and constants of `model` are Python numbers."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.read: set[str] = set()  # buffers that numbers were read from
        self.count = 0  # numbers read
        self.stopped = False  # something that numbers may come from was written
        self._model = model
        self._stored = {name: tensor.detach().clone() for name, tensor in model.named_buffers()}
        self._known: Any = WeakIdKeyDictionary()  # tensor of the export -> (real value, buffers behind it)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = str(getattr(func, "__name__", "")).partition(".")[0]
        tensors = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        known = [] if self.stopped else [self._value(x) for x in tensors]
        sources = [value for value in known if value is not None]
        constant = len(sources) == len(known) and (bool(known) or _makes(name, args, kwargs))
        if sources and _writes(func, name, kwargs):
            self.stopped = True
        elif constant and known and name in READS:
            self.read.update(*(names for _, names in sources))
            self.count += 1
            return self._on_real(func, args, kwargs)
        out = func(*args, **kwargs)
        if constant and not self.stopped and (name in DETERMINISTIC or not known):
            names = frozenset[str]().union(*(names for _, names in sources))
            self._remember(out, self._on_real(func, args, kwargs), names)
        return out

    def _value(self, tensor: torch.Tensor) -> tuple[torch.Tensor, frozenset[str]] | None:
        """The real value of a tensor of the export and the buffers behind it; None where it is unknown."""
        if tensor in self._known:
            value: tuple[torch.Tensor, frozenset[str]] = self._known[tensor]
            return value
        if type(tensor) is torch.Tensor:  # an attribute of a module that is no buffer is met as it is
            return tensor, frozenset()
        if not isinstance(tensor, FakeTensor):
            return None
        for name, buffer in self._model.named_buffers():
            if buffer is tensor and name in self._stored:
                self._known[tensor] = (self._stored[name], frozenset({name}))
                return self._stored[name], frozenset({name})
        return None

    def _on_real(self, func: Any, args: Any, kwargs: Any) -> Any:
        def real(x: Any) -> Any:
            if not isinstance(x, torch.Tensor):
                return x
            value = self._value(x)
            assert value is not None
            return value[0]

        args, kwargs = pytree.tree_map(real, (args, kwargs))
        with _disable_current_modes(), torch._C.DisableTorchFunction(), torch.no_grad():
            return func(*args, **kwargs)

    def _remember(self, out: Any, value: Any, sources: frozenset[str]) -> None:
        pairs = zip(pytree.tree_leaves(out), pytree.tree_leaves(value), strict=True)
        for fake, real in pairs:
            if isinstance(fake, torch.Tensor):
                self._known[fake] = (real, sources)


def _makes(name: str, args: Any, kwargs: dict[str, Any]) -> bool:
    """Whether a call makes a constant tensor from numbers alone."""
    symbolic = (torch.SymInt, torch.SymFloat, torch.SymBool)
    return name in MAKES and not any(isinstance(x, symbolic) for x in pytree.tree_leaves((args, kwargs)))


def _writes(func: Any, name: str, kwargs: dict[str, Any]) -> bool:
    """Whether a call may change one of its operands."""
    if isinstance(func, torch._ops.OpOverload):
        return bool(func._schema.is_mutable)
    inplace = name.endswith("_") and not name.endswith("__")
    return inplace or name in WRITES or kwargs.get("out") is not None


def written_buffers(program: torch.export.ExportedProgram) -> set[str]:
    """Buffers that a program writes, by functional outputs or in place."""
    signature = program.graph_signature
    written = set(signature.buffers_to_mutate.values())
    names = dict(signature.inputs_to_buffers)
    for node in program.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if node.op == "call_function" and schema is not None and schema.is_mutable:
            written |= {names[n.name] for n in _origins(node.args[0]) if n.name in names}
    return written


def _origins(node: Any) -> Iterator[torch.fx.Node]:
    """The node and, through first operands, what it may be a view of."""
    while isinstance(node, torch.fx.Node):
        yield node
        node = node.args[0] if node.args else None
