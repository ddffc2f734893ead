"""The Trace: one exported graph that every later stage reads.

`trace` turns a loaded model into a functional ATen graph with every shape known:
in-place operators are gone, batch norm is `aten.batch_norm.default` in evaluation
form, dropout is dropped, and what depends on no input and no parameter is folded.

Guarantee: the Trace computes what the loaded program computes in evaluation mode,
and no later stage writes to it: `copy` before you change anything.
Elsewhere: loading and vetting (load), graph helpers (graph), slicing (surgery).
"""

from __future__ import annotations

import contextlib
import copy as copying
import inspect
import io
import json
import logging
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import fx

from edgeprune.errors import TraceError
from edgeprune.graph.constant_reads import constant_reads, written_buffers
from edgeprune.graph.executor import flat_outputs
from edgeprune.graph.normalise import functional, normalise
from edgeprune.graph.refusal import explain_refusal, first_line, has_open_sizes, require_known_sizes
from edgeprune.paths import write_file
from edgeprune.records import INTERFACE_FILE, Interface, to_json

pytree = torch.utils._pytree
HELD = re.compile(r"marked L\['(\w+)'\](\S*)\.size\(\)\[0\] as dynamic but your code specialized it")


@dataclass(frozen=True)
class Trace:
    """A functional graph, its flat example inputs, and which inputs have a free batch.

    `graph` takes the user's own arguments; `run` takes the flat tensors.
    `dynamic` holds, for each flat input, whether dimension 0 is symbolic; `interface` the names that a
    file of it keeps, where it came from ONNX.
    """

    graph: fx.GraphModule
    inputs: tuple[torch.Tensor, ...]
    dynamic: tuple[bool, ...]
    interface: Interface | None = None

    def copy(self) -> fx.GraphModule:
        """A deep copy that may be changed; tied parameters stay tied."""
        return copying.deepcopy(self.graph)


def trace(
    model: torch.nn.Module | torch.export.ExportedProgram,
    inputs: tuple[Any, ...] = (),
    interface: Interface | None = None,
) -> Trace:
    """Export and normalise a model.

    Args:
        model: a module in evaluation mode, or a program that was exported in it.
        inputs: example arguments; a batch of at least 2, or the batch is specialised.
        interface: names that a file of it keeps.

    Raises:
        TraceError: torch.export refused, or a size depends on values, with the reason and the user's line.
    """
    program = model if isinstance(model, torch.export.ExportedProgram) else export_program(model, inputs)
    args, kwargs = program.example_inputs or (inputs, {})
    flat = pytree.tree_flatten((args, kwargs))[0]
    odd = [type(x).__name__ for x in flat if not isinstance(x, torch.Tensor)]
    if odd:
        raise TraceError(
            f"the model takes an argument of type {odd[0]}; only tensors can be inputs",
            tip="wrap the model in a module that fixes such arguments",
        )
    with quiet():
        graph = functional(program, tuple(flat))
        normalise(graph)
    dynamic = tuple(_free_batch(n.meta.get("val")) for n in graph.graph.nodes if n.op == "placeholder")
    if has_open_sizes(graph):
        graph = _close_sizes(graph, tuple(flat), dynamic)
    require_known_sizes(graph)
    return Trace(graph, tuple(x.detach().clone() for x in flat), dynamic, interface)


def export_program(model: torch.nn.Module, inputs: tuple[Any, ...]) -> torch.export.ExportedProgram:
    """`torch.export.export` with a free batch for every input that the model allows it for.

    Raises:
        TraceError: neither a free nor a fixed batch exports.
    """
    inputs = tuple(inputs)
    try:
        with quiet():
            program = _export(model, inputs, torch.export.Dim.AUTO)
            free = [_free_batch(val) for val in _input_values(program)]
            asked = [_has_batch(x) for x in pytree.tree_leaves(inputs)]
            # AUTO keeps a symbol that it found to be a constant: exported again, it is a number
            return program if free == asked else _export(model, inputs, torch.export.Dim.AUTO, free)
    except Exception as first:
        try:
            with quiet():
                return _export_program(model, inputs)
        except Exception as second:
            with quiet():
                reason = explain_refusal(model, inputs, second)
            raise reason from first


def _close_sizes(
    graph: fx.GraphModule, inputs: tuple[torch.Tensor, ...], dynamic: tuple[bool, ...]
) -> fx.GraphModule:
    """The graph with the sizes that follow from numbers read from constants; the same where others are open.

    The numbers are written into arguments by now, but the shapes behind them still hold symbols:
    another export computes them.
    """
    try:
        program = reexport(graph, inputs, dynamic)
        with quiet():
            closed = functional(program, inputs)
            normalise(closed)
    except (TraceError, RuntimeError):
        return graph
    return graph if has_open_sizes(closed) else closed


def why_fixed(model: torch.nn.Module, inputs: tuple[Any, ...]) -> str:
    """What torch.export says against a free batch, in one line; empty where it has nothing against it."""
    try:
        with quiet():
            _export(model, tuple(inputs), torch.export.Dim.DYNAMIC)
    except Exception as error:
        held = HELD.search(str(error))
        return f"the model's code takes no other for {held[1]}{held[2]}" if held else first_line(error)
    return ""


def _export(
    model: torch.nn.Module, inputs: tuple[Any, ...], size: Any, free: Sequence[bool] | None = None
) -> torch.export.ExportedProgram:
    """Export with `size` for the batch of every input, or of those flat inputs that `free` tells.

    torch wants the sizes nested as the signature binds the arguments: those of `*xs` as one tuple.
    It leaves its marks on the tensors, which a later export of the same ones obeys: it is given copies.
    """
    leaves, nested = pytree.tree_flatten(inputs)
    chosen = [_has_batch(x) for x in leaves] if free is None else free
    sizes = pytree.tree_unflatten([{0: size} if one else None for one in chosen], nested)
    shapes = dict(inspect.signature(model.forward).bind(*sizes).arguments)
    copies = [x.detach().clone() if isinstance(x, torch.Tensor) else x for x in leaves]
    return _export_program(model, pytree.tree_unflatten(copies, nested), shapes)


def _export_program(
    model: torch.nn.Module, inputs: tuple[Any, ...], shapes: Any = None
) -> torch.export.ExportedProgram:
    """torch.export, and where it fails or leaves numbers open, again with those of the model's constants.

    A number counts as constant unless the program writes the buffer that it was read from.
    """
    plain, refused = None, None
    try:
        plain = torch.export.export(model, inputs, dynamic_shapes=shapes)
        if not any(node.meta.get("unbacked_bindings") for node in plain.graph.nodes):
            return plain
    except Exception as error:
        refused = error
    reads = constant_reads(model)
    try:
        with reads:
            program = torch.export.export(model, inputs, dynamic_shapes=shapes)
        if reads.count and not reads.stopped and not reads.read & written_buffers(program):
            return program
    except Exception as error:
        refused = refused or error
    if plain is None:
        assert refused is not None
        raise refused
    return plain


def _has_batch(x: object) -> bool:
    return isinstance(x, torch.Tensor) and x.dim() > 0 and x.shape[0] > 1


def _input_values(program: torch.export.ExportedProgram) -> list[Any]:
    """What the graph knows of each flat input of the user."""
    known = {n.name: n.meta.get("val") for n in program.graph.nodes if n.op == "placeholder"}
    return [known.get(name) for name in program.graph_signature.user_inputs]


def run(graph: fx.GraphModule, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Run a graph on flat inputs and give its flat tensor outputs."""
    return flat_outputs(graph, inputs)


def reexport(
    graph: fx.GraphModule, inputs: tuple[torch.Tensor, ...], dynamic: tuple[bool, ...]
) -> torch.export.ExportedProgram:
    """Export a changed graph again; a batch that was free stays free.

    Raises:
        TraceError: the graph no longer exports with the batch it had.
    """
    args, kwargs = pytree.tree_unflatten(list(inputs), graph._in_spec)
    free = [({0: torch.export.Dim.DYNAMIC} if d else None) for d in dynamic]
    shapes_args, shapes_kwargs = pytree.tree_unflatten(free, graph._in_spec)
    try:
        with quiet():
            return torch.export.export(
                graph, tuple(args), dict(kwargs), dynamic_shapes=_by_name(graph, shapes_args, shapes_kwargs)
            )
    except Exception as error:
        raise TraceError(f"the changed graph does not export again: {first_line(error)}") from error


def save(traced: Trace, path: Path) -> None:
    """Write a Trace as `.pt2`; it loads without the user's class and without pickle.

    Written through memory: torch's own writer turns a full disk into a RuntimeError that names no file.

    Raises:
        OSError: the file cannot be written; then nothing of it is left.
        OutputError: something that is no regular file is in the way.
    """
    program = reexport(traced.graph, traced.inputs, traced.dynamic)
    buffer = io.BytesIO()
    kept = {} if traced.interface is None else {INTERFACE_FILE: json.dumps(to_json(traced.interface))}
    with quiet():
        torch.export.save(program, buffer, extra_files=kept)
    write_file(path, buffer.getbuffer())


def _by_name(graph: fx.GraphModule, args: Any, kwargs: Any) -> Any:
    names = graph.graph._codegen.pytree_info.orig_args
    return args if not kwargs else {**dict(zip(names, args, strict=False)), **kwargs}


class quiet:
    """Keep what the exporter warns, logs and prints, which no user can act on, off the terminal."""

    def __enter__(self) -> None:
        self._open = contextlib.ExitStack()
        self._open.enter_context(warnings.catch_warnings())
        self._open.enter_context(contextlib.redirect_stdout(io.StringIO()))
        self._open.enter_context(contextlib.redirect_stderr(io.StringIO()))
        self._open.callback(logging.disable, logging.root.manager.disable)
        warnings.simplefilter("ignore")
        logging.disable(logging.ERROR)

    def __exit__(self, *exc: Any) -> None:
        self._open.close()


def _free_batch(val: Any) -> bool:
    """Whether dimension 0 is a symbol that stands for no constant."""
    size = val.shape[0] if isinstance(val, torch.Tensor) and val.dim() > 0 else 0
    return isinstance(size, torch.SymInt) and size.node.maybe_as_int() is None
