"""Why torch.export refused a model: one sentence with the user's own line and operator.

    TraceError: Net cannot be exported: net.py:11 decides in Python by the value of aten.gt,
    `if x.sum() > 0:`; write it with tensor operations alone (torch.where, a mask), ...

The model is run once more, without export, to tell a model that does not run on its example
inputs from one that runs and cannot be exported, and to name the operators of each line.
Elsewhere: trying to export (trace), which parts of the model do export (parts).
"""

from __future__ import annotations

import linecache
import re
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import fx
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols
from torch.utils._python_dispatch import TorchDispatchMode

from edgeprune.errors import TraceError
from edgeprune.graph.module import source_line

pytree = torch.utils._pytree
FOREIGN = (f"{Path(torch.__file__).parent}/", f"{Path(__file__).parents[1]}/")
STDLIB = f"{sysconfig.get_paths()['stdlib']}/"
SITE = ("/site-packages/", "/dist-packages/")
BY_VALUE = ("data-dependent", "DataDependent", "DynamicOutputShape")
SILENT = {"aten._local_scalar_dense", "aten.detach", "aten.alias", "aten._to_copy", "aten.lift_fresh"}
OPEN = (
    "torch.export.export(model, example_inputs) shows where; a module around it that calls it with tensors"
    " alone, and returns tensors, often exports"
)
ODD_OUTPUT = re.compile(r"Found <class '([^']+)'> in output")
Place = tuple[str, int]


def explain_refusal(model: torch.nn.Module, inputs: tuple[Any, ...], error: BaseException) -> TraceError:
    """What torch.export's `error` comes down to, for someone who knows only their own code."""
    name = type(model).__name__
    operators = _Operators()
    try:
        with operators, torch.no_grad():
            model(*inputs)
    except Exception as failed:
        return TraceError(
            f"{name} does not run on its example inputs ({_shown(inputs)}): {_at(_place(failed))}"
            f"{type(failed).__name__}: {first_line(failed)}",
            tip="check the example inputs (--input-shape: one sample without batch, once per input, with the"
            " type first where it is not float32, as in int64:64)",
        )
    if odd := _odd_output(name, error):
        return odd
    place = _place(error)
    names = operators.at.get(place, ()) if place else ()
    if place and any(word in f"{type(e).__name__} {e}" for e in _chain(error) for word in BY_VALUE):
        what = f"the value of {names[-1]}" if names else "a value"
        return TraceError(
            f"{name} cannot be exported: {_file(place)} decides in Python by {what}, `{_code(place)}`",
            tip="write it with tensor operations alone (torch.where, a mask), or move it out of forward",
        )
    after = f" ({', '.join(names)})" if names else ""
    return TraceError(
        f"torch.export refused {name}: {_at(place, after)}{first_line(error)}",
        tip="write that line with tensor operations alone" if place else OPEN,
    )


def _odd_output(name: str, error: BaseException) -> TraceError | None:
    """The model returns an object that is no tensor and no container, as language models do their cache."""
    match = next((m for e in _chain(error) if (m := ODD_OUTPUT.search(str(e)))), None)
    if match is None:
        return None
    kind, wrapper = match[1].rpartition(".")[2], "wrap it in a module whose forward returns tensors only"
    cache = "Cache" in kind
    return TraceError(
        f"{name} cannot be exported: it returns a {kind}, which torch.export does not know",
        tip=f"set model.config.use_cache = False, or {wrapper}" if cache else wrapper,
    )


def require_known_sizes(graph: fx.GraphModule) -> None:
    """Refuse sizes and outputs that only the values of an input decide: nothing could be planned on them.

    Raises:
        TraceError: the first such operator and its line; an output that is no tensor.
    """
    for node in graph.graph.nodes:
        val = node.meta.get("val")
        if node.op == "output":
            _require_tensors(node)
        elif val is not None and free_unbacked_symbols(val):
            raise TraceError(
                f"{str(node.target).removesuffix('.default')} at {source_line(node)} gives a size or a number"
                " that depends on the values of the input",
                tip="write it with a mask of fixed size in place of nonzero, boolean indexing, .item() or"
                " .tolist(), or move it out of forward",
            )


def has_open_sizes(graph: fx.GraphModule) -> bool:
    """Whether a shape or a number of the graph is decided by values."""
    values = (n.meta.get("val") for n in graph.graph.nodes if n.op != "output")
    return any(free_unbacked_symbols(val) for val in values if val is not None)


def _require_tensors(output: fx.Node) -> None:
    leaves = pytree.tree_leaves(output.args)
    odd = [x for x in leaves if not isinstance(x, fx.Node) and x is not None]
    if odd:
        raise TraceError(
            f"the model returns {odd[0]!r} (a {type(odd[0]).__name__}) beside its tensors; no ONNX file can",
            tip="return tensors only, or wrap the model in a module that does",
        )
    if not any(isinstance(x, fx.Node) for x in leaves):
        raise TraceError("the model returns no tensor", tip="return its result from forward")


class _Operators(TorchDispatchMode):  # type: ignore[misc]  # torch leaves it untyped
    """Records the operators that each line of the user's own code runs, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.at: dict[Place, tuple[str, ...]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        place = _innermost((f.f_code.co_filename, f.f_lineno) for f in _outwards(sys._getframe()))
        name = str(func.overloadpacket).replace("::", ".")
        if place and name not in SILENT:
            self.at[place] = (*self.at.get(place, ()), name)[-3:]
        return func(*args, **(kwargs or {}))


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    """Frames from the inside out, up to the call in `explain`."""
    while frame is not None and frame.f_code is not explain_refusal.__code__:
        yield frame
        frame = frame.f_back


def _innermost(frames: Iterator[Place]) -> Place | None:
    """Of frames from the inside out, the first of the user's own; of an installed package if none is."""
    installed = None
    for name, line in frames:
        if any(site in name for site in SITE):
            if not name.startswith(FOREIGN):
                installed = installed or (name, line)
        elif not name.startswith(("<", *FOREIGN, STDLIB)):
            return name, line
    return installed


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def _place(error: BaseException) -> Place | None:
    """Where in the user's own code the error, or what caused it, was raised."""
    places = []
    for part in _chain(error):
        frames = [(f.filename, f.lineno or 0) for f in traceback.extract_tb(part.__traceback__)]
        places.append(_innermost(iter(reversed(frames))))
    return next((p for p in reversed(places) if p), None)


def _file(place: Place) -> str:
    return f"{Path(place[0]).name}:{place[1]}"


def _code(place: Place) -> str:
    return linecache.getline(*place).strip()[:80]


def _at(place: Place | None, after: str = "") -> str:
    return f"{_file(place)} `{_code(place)}`{after}: " if place else ""


def _shown(inputs: tuple[Any, ...]) -> str:
    leaves = pytree.tree_leaves(inputs)
    return ", ".join(
        f"{str(x.dtype).removeprefix('torch.')} {'×'.join(map(str, x.shape)) or 'scalar'}"
        if isinstance(x, torch.Tensor)
        else type(x).__name__
        for x in leaves
    )


def first_line(error: BaseException) -> str:
    """What an error says, in one line of at most 200 characters; its name where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:200]
