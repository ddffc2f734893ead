"""What loading gives, from a file or from Python.

`from_module` is the way in for a module that is already in memory.
Guarantee: a LoadedModel holds finite weights, whoever makes it.
Elsewhere: files (load), the graph that later stages read (trace).
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from edgeprune.errors import ModelError
from edgeprune.frontend.examples import fixed_batch_note
from edgeprune.frontend.export_form import use_export_form
from edgeprune.frontend.finite import named_tensors, require_finite_weights
from edgeprune.records import Interface


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode with example inputs.

    Attributes:
        kind: "exported" (then `program` is set) or "module" (then `module` is).
        example_inputs: flat tensors with batch; for a program in the order of its inputs.
        sha256: of the file, or of the module's tensors when it came from Python.
        source: the file name, or the module's class.
        parameters_bytes: of all parameters and buffers, each storage counted once.
        notes: what a person should know about how it was loaded, one sentence each.
        extra: the text files that a `.pt2` carries beside the program.
        interface: names and batch that the shipped file keeps, for a model that came from ONNX.

    Raises:
        ModelError: a weight is NaN or infinite.
    """

    kind: Literal["exported", "module"]
    program: Any
    module: torch.nn.Module | None
    example_inputs: tuple[torch.Tensor, ...]
    sha256: str
    source: str
    parameters_bytes: int
    notes: tuple[str, ...] = ()
    extra: dict[str, str] = field(default_factory=dict)
    interface: Interface | None = None

    def __post_init__(self) -> None:
        if self.module is not None:
            require_finite_weights(named_tensors(self.module), self.source)
        if self.program is not None:
            signature = self.program.graph_signature
            tensors = {**self.program.state_dict, **self.program.constants}
            require_finite_weights(tensors, self.source, parameters=signature.parameters)


def from_module(
    module: torch.nn.Module, example_inputs: torch.Tensor | Sequence[torch.Tensor]
) -> LoadedModel:
    """Take a module from Python; the caller's own stays as it is (a copy is put in evaluation mode).

    Args:
        example_inputs: one tensor or several, with batch.

    Raises:
        ModelError: not a module, TorchScript, inputs that are not tensors.
    """
    if isinstance(module, torch.jit.ScriptModule):
        raise ModelError("a TorchScript module cannot be pruned", tip="give the module that it was made from")
    if not isinstance(module, torch.nn.Module):
        raise ModelError(f"a {type(module).__name__} is not a torch.nn.Module")
    inner = module.module if isinstance(module, torch.nn.DataParallel) else module
    single = isinstance(example_inputs, torch.Tensor)
    inputs: tuple[Any, ...] = (example_inputs,) if single else tuple(example_inputs)
    odd = [type(x).__name__ for x in inputs if not isinstance(x, torch.Tensor)]
    if odd or not inputs:
        raise ModelError(f"example inputs must be tensors with batch, not {odd[0] if odd else 'none at all'}")
    try:
        copied = copy.deepcopy(inner).eval()
    except Exception as exc:
        raise ModelError(f"{type(inner).__name__}: cannot be copied: {exc}") from exc
    require_finite_weights(named_tensors(copied), type(inner).__qualname__)
    flags = use_export_form(copied)
    digest = hashlib.sha256(type(inner).__qualname__.encode())
    for name, tensor in copied.state_dict().items():
        if isinstance(tensor, torch.Tensor):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return LoadedModel(
        kind="module",
        program=None,
        module=copied,
        example_inputs=inputs,
        sha256=digest.hexdigest(),
        source=type(inner).__qualname__,
        parameters_bytes=tensor_bytes([*copied.parameters(), *copied.buffers()]),
        notes=(*fixed_batch_note(inputs), *flags),
    )


def tensor_bytes(tensors: Sequence[torch.Tensor]) -> int:
    """The bytes of these tensors, tied ones counted once."""
    return sum({(t.data_ptr(), t.nbytes): t.nbytes for t in tensors}.values())
