"""Small questions that every stage asks of a graph: shapes, tensors, places.

Shapes are those of the example batch: symbolic sizes give way to the sizes that
the example had, so a rule sees integers only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import fx

ONNX_NODE = "frontend.onnx.module.OnnxNode"  # the module that an imported file has for each of its nodes


def concrete(value: Any) -> Any:
    """Replace symbolic sizes by the example's sizes, in any nesting."""
    if isinstance(value, torch.SymInt):
        return int(value.node.hint)
    if isinstance(value, list | tuple):
        return type(value)(concrete(v) for v in value)
    return value


def shape_of(val: Any) -> Any:
    """Shape of a `meta["val"]`; a list for several values, None where there is no tensor."""
    if isinstance(val, torch.Tensor):
        return tuple(concrete(tuple(val.shape)))
    if isinstance(val, list | tuple):
        return [shape_of(v) for v in val]
    return None


def attribute(graph: fx.GraphModule, target: str) -> Any:
    """The parameter, buffer or constant that a `get_attr` node names."""
    value: Any = graph
    for part in target.split("."):
        value = getattr(value, part)
    return value


def set_attribute(graph: fx.GraphModule, target: str, value: torch.Tensor) -> None:
    """Put a new tensor where `target` points; a parameter must be given as a Parameter."""
    *path, name = target.split(".")
    owner: Any = graph
    for part in path:
        owner = getattr(owner, part)
    setattr(owner, name, value)


def state_tensors(graph: fx.GraphModule) -> dict[str, torch.Tensor]:
    """Every tensor that a `get_attr` node names; tied ones appear under each name."""
    names = [str(n.target) for n in graph.graph.nodes if n.op == "get_attr"]
    tensors = {name: attribute(graph, name) for name in names}
    return {name: t for name, t in tensors.items() if isinstance(t, torch.Tensor)}


def source_line(node: fx.Node) -> str:
    """`file.py:41` of the innermost frame of the user's own code, or the node's name.

    For a network that came from an ONNX file it is the name of the file's node.
    Frames of code that torch made itself (`<eval_with_key>`) are in no file that anyone could open.
    """
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    if stack and str(stack[-1][1]).endswith(ONNX_NODE):
        return layer_path(node)
    lines = [ln.strip() for ln in (node.meta.get("stack_trace") or "").splitlines()]
    frames = [ln for ln in lines if ln.startswith("File ") and 'File "<' not in ln]
    user_frames = [f for f in frames if "/torch/" not in f]
    for frame in reversed(user_frames or frames):
        parts = frame.split('"')
        if len(parts) > 2 and "line " in parts[2]:
            return f"{Path(parts[1]).name}:{parts[2].split('line ')[1].split(',')[0]}"
    return str(node.name)


def layer_of(node: fx.Node) -> str:
    """` 'blocks.2.norm'`, with a leading blank: the submodule that made the node; empty if unknown."""
    path = layer_path(node)
    return f" {path!r}" if path else ""


def layer_path(node: fx.Node) -> str:
    """`blocks.2.norm`: the innermost submodule that made the node; empty for the model itself or unknown."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path = str(stack[-1][0]).removeprefix("L['self']").removeprefix(".") if stack else ""
    return path.removeprefix("nodes.") if stack and str(stack[-1][1]).endswith(ONNX_NODE) else path
