"""An ONNX file as a Program: read, checked, sorted, lifted to a current opset.

Guarantee: nothing outside the file's own folder is read, a name has one meaning, nodes stand in an order
in which they can run, and every refusal is one line that names the node or the value.
Elsewhere: what the nodes compute (the table), whether it is right (gate).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgeprune.errors import ModelError
from edgeprune.frontend.onnx.elementwise import CAST
from edgeprune.frontend.onnx.external import inline_external
from edgeprune.frontend.onnx.operators import TABLE
from edgeprune.frontend.onnx.quantised import require_float
from edgeprune.frontend.onnx.table import Program, Step

OPSET = 18  # files of an older opset are lifted to it
SHOWN = 6
DEFAULT = ("", "ai.onnx")
NOTHING = ("Constant", "If")  # handled by the reader and by the module


@dataclass(frozen=True)
class Port:
    """An input or output of the file: sizes as numbers, names of free sizes, or None."""

    name: str
    dtype: torch.dtype
    shape: tuple[int | str | None, ...]


@dataclass(frozen=True)
class OnnxFile:
    """What was read.

    Attributes:
        statistics: constants that batch norm reads as mean and variance.
        external: files of weights beside it.
        opset: of the file itself.
    """

    program: Program
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    statistics: frozenset[str]
    external: tuple[Path, ...]
    opset: int
    producer: str
    notes: tuple[str, ...]


def read_onnx(content: bytes, path: Path, source: str, *, dequantise: bool = False) -> tuple[OnnxFile, Any]:
    """Read the bytes of an ONNX file; gives the file and its ModelProto with all weights inside.

    Raises:
        ModelError: damaged, or holding what cannot be imported.
    """
    model = _parsed(content, source)
    external = inline_external(model, path.parent, source)
    notes: list[str] = []
    model = require_float(model, source, dequantise, notes)
    _require_names(model, source)
    model = _sorted(model, source)
    opset = next((int(o.version) for o in model.opset_import if o.domain in DEFAULT), 0)
    lifted = _lifted(model, opset, source)
    _require_operators(lifted, source)
    constants = {t.name: _tensor(t, source) for t in lifted.graph.initializer}
    inputs = tuple(_port(v, source) for v in lifted.graph.input if v.name not in constants)
    outputs = tuple(_port(v, source) for v in lifted.graph.output)
    if len(inputs) < len(lifted.graph.input) and lifted.ir_version >= 4:
        notes.append(
            f"{len(lifted.graph.input) - len(inputs)} weights that are listed as inputs too are constants"
        )
    versions = {("" if o.domain in DEFAULT else o.domain): int(o.version) for o in lifted.opset_import}
    program = _program(lifted.graph, versions, source, constants)
    if not inputs:
        raise ModelError(f"{source}: takes no input", tip="give the file of a network")
    statistics = frozenset(
        name for step in program.steps if step.op_type == "BatchNormalization" for name in step.inputs[3:5]
    )
    file = OnnxFile(program, inputs, outputs, statistics, external, opset, model.producer_name, tuple(notes))
    return file, model


def _parsed(content: bytes, source: str) -> Any:
    import onnx.inliner

    try:
        model: Any = onnx.ModelProto.FromString(content)
    except Exception as error:  # protobuf's DecodeError, whichever implementation of it is in use
        raise ModelError(
            f"{source}: truncated or damaged: its {len(content)} bytes do not parse as an ONNX model",
            tip="copy or download it again",
        ) from error
    if not model.graph.node:
        raise ModelError(f"{source}: is an ONNX file without nodes", tip="give the file of a network")
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    return model


def _require_names(model: Any, source: str) -> None:
    """Every value is given once."""
    graph = model.graph
    counts = Counter(t.name for t in graph.initializer)
    counts.update(name for node in graph.node for name in node.output if name)
    counts.update({v.name for v in graph.input} - {t.name for t in graph.initializer})
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise ModelError(
            f"{source}: the name {twice[0]!r} is given {counts[twice[0]]} times; a value has one name",
            tip="the file is damaged; export it again",
        )


def _sorted(model: Any, source: str) -> Any:
    """Nodes in an order in which they can run.

    Raises:
        ModelError: there is none, or a value is given by nothing.
    """
    graph = model.graph
    ready = {v.name for v in graph.input} | {t.name for t in graph.initializer} | {""}
    ready |= {t.values.name for t in graph.sparse_initializer}
    needs = [set(_reads(node)) for node in graph.node]
    given = {name for node in graph.node for name in node.output} | ready
    for node, names in zip(graph.node, needs, strict=True):
        if lost := sorted(names - given):
            raise ModelError(
                f"{source}: {node.op_type} node {node.name!r} reads {lost[0]!r}, which nothing gives",
                tip="the file is damaged; export it again",
            )
    order, waiting = [], list(range(len(graph.node)))
    while waiting:
        later = []
        for i in waiting:
            if needs[i] <= ready:
                order.append(i)
                ready |= set(graph.node[i].output)
            else:
                later.append(i)
        if len(later) == len(waiting):
            node = graph.node[later[0]]
            raise ModelError(
                f"{source}: {len(later)} nodes wait for each other in a circle, such as {node.op_type}"
                f" {node.name!r}",
                tip="the file is damaged; export it again",
            )
        waiting = later
    if order != list(range(len(order))):
        nodes = [graph.node[i] for i in order]
        fresh = type(model)()
        fresh.CopyFrom(model)
        del fresh.graph.node[:]
        fresh.graph.node.extend(nodes)
        return fresh
    return model


def _reads(node: Any) -> set[str]:
    """Names that a node reads, those of its bodies included."""
    names = set(node.input)
    for attribute in node.attribute:
        for body in (attribute.g, *attribute.graphs):
            inner = {v.name for v in body.input} | {t.name for t in body.initializer}
            for child in body.node:
                names |= _reads(child) - inner
                inner |= set(child.output)
            names |= {v.name for v in body.output} - inner
    return names


def _lifted(model: Any, opset: int, source: str) -> Any:
    """The model in a current opset.

    Raises:
        ModelError: the version converter cannot lift it.
    """
    import onnx

    if opset >= OPSET:
        return model
    if opset == 0:
        raise ModelError(f"{source}: names no version of the standard operators", tip="export it again")
    try:
        return onnx.version_converter.convert_version(model, OPSET)
    except Exception as error:  # the converter raises RuntimeError and its own classes
        text = str(error).splitlines()[0][:160]
        raise ModelError(
            f"{source}: opset {opset} cannot be lifted to {OPSET}: {text}",
            tip="export it again with opset 18 or newer",
        ) from error


def _require_operators(model: Any, source: str) -> None:
    """Name every node whose operator has no function, all at once.

    Raises:
        ModelError: with operators, counts and the first node of each.
    """
    missing = missing_operators(model.graph)
    if not missing:
        return
    parts = []
    for name, nodes in list(missing.items())[:SHOWN]:
        more = f" and {len(nodes) - 1} more" if len(nodes) > 1 else ""
        parts.append(f"{name} (node {nodes[0]!r}{more})")
    left = f" and {len(missing) - SHOWN} other operators" if len(missing) > SHOWN else ""
    raise ModelError(
        f"{source}: holds operators that cannot be imported: {', '.join(parts)}{left}",
        tip="give the PyTorch model that it came from, or export the network without them",
    )


def missing_operators(graph: Any) -> dict[str, list[str]]:
    """Operators without a function -> names of their nodes."""
    missing: dict[str, list[str]] = {}
    for index, node in enumerate(graph.node):
        domain = "" if node.domain in DEFAULT else node.domain
        for attribute in node.attribute:
            if attribute.g.node:
                for name, nodes in missing_operators(attribute.g).items():
                    missing.setdefault(name, []).extend(nodes)
        if (domain, node.op_type) not in TABLE and not (not domain and node.op_type in NOTHING):
            full = f"{domain}.{node.op_type}" if domain else node.op_type
            missing.setdefault(full, []).append(node.name or f"{node.op_type}_{index}")
    return missing


def _program(
    graph: Any, versions: dict[str, int], source: str, constants: dict[str, torch.Tensor]
) -> Program:
    """Nodes as steps; Constant nodes join the constants."""
    steps = []
    taken: set[str] = set()
    for index, node in enumerate(graph.node):
        attributes = {a.name: _attribute(a, versions, source) for a in node.attribute}
        if node.op_type == "Constant":
            value = next((v for v in attributes.values() if v is not None), None)
            constants[node.output[0]] = _constant(value, node, source)
            continue
        domain = "" if node.domain in DEFAULT else node.domain
        name = node.name or f"{node.op_type}_{index}"
        name = name if name not in taken else f"{name}_{index}"
        taken.add(name)
        step = Step(
            name,
            node.op_type,
            domain,
            versions.get(domain, 1),
            attributes,
            tuple(node.input),
            tuple(node.output),
        )
        steps.append(step)
    return Program(
        tuple(v.name for v in graph.input if v.name not in constants),
        tuple(v.name for v in graph.output),
        tuple(steps),
        constants,
    )


def _constant(value: Any, node: Any, source: str) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        return value
    if isinstance(value, int | float) or (
        isinstance(value, list) and all(isinstance(v, int | float) for v in value)
    ):
        kind = torch.int64 if np.asarray(value).dtype.kind == "i" else torch.float32
        return torch.tensor(value, dtype=kind)
    raise ModelError(f"{source}: Constant node {node.name!r} holds no tensor of numbers")


def _attribute(attribute: Any, versions: dict[str, int], source: str) -> Any:
    """A plain value: numbers, text, a tensor, a body."""
    import onnx

    if attribute.type == onnx.AttributeProto.GRAPH:
        inner = {t.name: _tensor(t, source) for t in attribute.g.initializer}
        return _program(attribute.g, versions, source, inner)
    if attribute.type == onnx.AttributeProto.TENSOR:
        return _tensor(attribute.t, source)
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if attribute.type == onnx.AttributeProto.STRINGS:
        return [v.decode("utf-8", "replace") for v in value]
    return list(value) if attribute.type in (6, 7) else value


def _tensor(proto: Any, source: str) -> torch.Tensor:
    """A stored tensor.

    Raises:
        ModelError: a type that PyTorch has not, or too few values.
    """
    import onnx

    kind = CAST.get(proto.data_type)
    if kind is None:
        shown = (
            onnx.TensorProto.DataType.Name(proto.data_type) if 0 < proto.data_type < 24 else proto.data_type
        )
        raise ModelError(f"{source}: weight {proto.name!r} is of type {shown}, which cannot be imported")
    try:
        array = np.array(onnx.numpy_helper.to_array(proto))
    except Exception as error:
        text = str(error).splitlines()[0][:160]
        raise ModelError(
            f"{source}: weight {proto.name!r} is damaged: {text}", tip="copy it again"
        ) from error
    if kind == torch.bfloat16:
        return torch.from_numpy(array.astype(np.float32)).to(kind)
    return torch.from_numpy(np.ascontiguousarray(array).reshape(array.shape))


def _port(value: Any, source: str) -> Port:
    """An input or output.

    Raises:
        ModelError: it is a sequence, an optional value or a map, or its type or rank is not known.
    """
    which = value.type.WhichOneof("value")
    if which != "tensor_type":
        shown = (which or "unknown").removesuffix("_type")
        raise ModelError(
            f"{source}: {value.name!r} is of type {shown}; only tensors can be inputs and outputs",
            tip="export the network without it",
        )
    kind = CAST.get(value.type.tensor_type.elem_type)
    if kind is None:
        raise ModelError(
            f"{source}: {value.name!r} has element type {value.type.tensor_type.elem_type}, which cannot be"
            " imported"
        )
    dims = value.type.tensor_type.shape.dim
    return Port(
        value.name,
        kind,
        tuple(int(d.dim_value) if d.HasField("dim_value") else d.dim_param or None for d in dims),
    )
