"""The module that computes an ONNX graph node by node, with the file's weights as its parameters.

Every node is a submodule, so that what torch.export records of a node leads back to its name in the file.
Weights keep their ONNX names wherever PyTorch can hold them (`conv1.weight`, `onnx::Conv_193`).
Guarantee: nodes that depend on constants alone, and arithmetic on sizes, leave nothing in the graph.
Elsewhere: what an operator computes (the table), reading the file (reading).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from edgeprune.errors import EdgepruneError, ModelError
from edgeprune.frontend.onnx.shape_arithmetic import arithmetic
from edgeprune.frontend.onnx.table import TABLE, Call, Operand, Program, Step

KNOWN = 4096  # elements of a constant that is kept as numbers too
FOLDED = 1 << 29  # bytes that one node of constants may give
LEGAL = re.compile(r"[A-Za-z0-9_\-+/:@ .]+")


class OnnxNode(torch.nn.Module):  # type: ignore[misc]  # torch is untyped here
    """One node; torch.export notes its path for what it computes."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        self.step = step

    def forward(self, call: Call) -> Any:
        """What the operator's function gives."""
        return TABLE[self.step.domain, self.step.op_type](call)


class OnnxModule(torch.nn.Module):  # type: ignore[misc]  # torch is untyped here
    """An ONNX graph as a module that takes its inputs in order and gives a tuple of its outputs."""

    def __init__(self, program: Program, statistics: frozenset[str]) -> None:
        """Hold the constants and fold what depends on nothing else.

        Args:
            statistics: constants that are buffers whatever their type, as batch norm's are.
        """
        super().__init__()
        self.program = program
        self.names: dict[str, str] = {}  # value of the file -> attribute path
        self._numbers: dict[str, Any] = {}
        self._statistics = statistics
        for name, tensor in program.constants.items():
            self._hold(name, tensor)
        self._live = self._fold(program)
        self._bodies = {
            id(body): {name: Operand(t, _known(t)) for name, t in body.constants.items()}
            for step in self._all(self._live)
            for body in step.attributes.values()
            if isinstance(body, Program)
        }
        self.nodes = torch.nn.Module()
        self._paths: dict[int, str] = {}
        for step in self._all(self._live):
            path = _unused(step.name.replace(".", "_"), self.nodes._modules)
            self.nodes.add_module(path, OnnxNode(step))
            self._paths[id(step)] = path
        self._forget_unused()

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run every node in order."""
        outputs = self._run(self._live, self.program.outputs, self._fed(inputs))
        return tuple(value.tensor() for value in outputs)

    def intermediate(self, inputs: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        """Every tensor of the main graph by its name in the file, in the order in which they are computed."""
        values = self._fed(inputs)
        self._run(self._live, self.program.outputs, values)
        return {name: v.stored for name, v in values.items() if v.stored is not None}

    def _fed(self, inputs: Sequence[torch.Tensor]) -> dict[str, Operand]:
        return {name: Operand(x) for name, x in zip(self.program.inputs, inputs, strict=True)}

    def _run(
        self, steps: Sequence[Step], outputs: Sequence[str], values: dict[str, Operand]
    ) -> list[Operand]:
        for step in steps:
            call = Call(step, tuple(self._operand(n, values) for n in step.inputs))
            if step.op_type == "If" and not step.domain:
                results: Any = self._branch(call, values)
            else:
                results = self._results(call, self.nodes.get_submodule(self._paths[id(step)]))
            values.update(zip(step.outputs, results, strict=False))
        return [self._required(name, values) for name in outputs]

    def _branch(self, call: Call, values: dict[str, Operand]) -> list[Operand]:
        """The side of an If that its condition, which must be known early, chooses."""
        condition = call.numbers(0)
        assert condition is not None
        body: Program = call.attr("then_branch" if bool(condition.reshape(-1)[0]) else "else_branch")
        return self._run(body.steps, body.outputs, {**values, **self._bodies[id(body)]})

    def _results(self, call: Call, node: Any) -> list[Operand]:
        held = [o for o in call.operands if o is not None]
        if held and all(o.numbers is not None for o in held) and any(o.stored is None for o in held):
            numbers = arithmetic(call)
            if numbers is not None:
                return [Operand(None, n) for n in numbers]
        return _as_operands(_computed(call, node))

    def _operand(self, name: str, values: dict[str, Operand]) -> Operand | None:
        return self._required(name, values) if name else None

    def _required(self, name: str, values: dict[str, Operand]) -> Operand:
        if name in values:
            return values[name]
        if name not in self.names:
            raise ModelError(f"value {name!r} is used before any node gives it")
        return Operand(self._tensor(name), self._numbers.get(name))

    def _tensor(self, name: str) -> torch.Tensor:
        value: Any = self
        for part in self.names[name].split("."):
            value = getattr(value, part)
        tensor: torch.Tensor = value
        return tensor

    def _hold(self, name: str, tensor: torch.Tensor) -> None:
        """Register a constant under its name; floats of more than one element can be trained."""
        owner, last = self._place(name)
        trained = tensor.is_floating_point() and tensor.numel() > 1 and name not in self._statistics
        if trained:
            owner.register_parameter(last, torch.nn.Parameter(tensor))
        else:
            owner.register_buffer(last, tensor)
        numbers = _known(tensor)
        if numbers is not None:
            self._numbers[name] = numbers

    def _place(self, name: str) -> tuple[torch.nn.Module, str]:
        """The module and the attribute for a name; a name that PyTorch cannot hold is changed."""
        parts = name.split(".")
        if not LEGAL.fullmatch(name) or not all(parts):
            parts = [re.sub(r"[^A-Za-z0-9_]", "_", name)]
        owner: torch.nn.Module = self
        for part in parts[:-1]:
            inner = owner._modules.get(part)
            if inner is None and hasattr(owner, part):
                parts = [re.sub(r"[^A-Za-z0-9_]", "_", name)]
                owner = self
                break
            if inner is None:
                inner = torch.nn.Module()
                owner.add_module(part, inner)
            owner = inner
        last = _unused(parts[-1], dict.fromkeys(dir(owner)))
        prefix = [] if owner is self else parts[:-1]
        self.names[name] = ".".join([*prefix, last])
        return owner, last

    def _fold(self, program: Program) -> tuple[Step, ...]:
        """Compute the nodes that depend on constants alone; the others stay, in order."""
        live = []
        readers: dict[str, int] = {}
        for step in program.steps:
            for name in step.inputs:
                readers[name] = readers.get(name, 0) + 1
        for step in program.steps:
            known = all(name in self.names for name in step.inputs if name)
            if not known or _random(step) or step.op_type == "If":
                live.append(step)
                continue
            source = step.inputs[0] if step.inputs else ""
            if step.op_type == "Identity":
                self.names[step.outputs[0]] = self.names[source]
                if source in self._numbers:
                    self._numbers[step.outputs[0]] = self._numbers[source]
                continue
            call = Call(step, tuple(self._operand(n, {}) for n in step.inputs))
            _refuse_bomb(call)
            with torch.no_grad():
                results = _as_operands(_computed(call, TABLE[step.domain, step.op_type]))
            for name, result in zip(step.outputs, results, strict=False):
                if name:
                    self._hold_folded(name, source, result, readers)
        return tuple(live)

    def _hold_folded(self, name: str, source: str, result: Operand, readers: dict[str, int]) -> None:
        """Keep the name of a weight that is turned or reshaped once on its way to its only reader."""
        tensor = result.tensor().detach().clone()
        original = self.names.get(source, "")
        alone = readers.get(source) == 1 and original and isinstance(self._tensor(source), torch.nn.Parameter)
        if alone and tensor.is_floating_point() and tensor.numel() == self._tensor(source).numel():
            owner = self.get_submodule(original.rpartition(".")[0])
            owner.register_parameter(original.rpartition(".")[2], torch.nn.Parameter(tensor))
            self.names[name] = original
            del self.names[source]
            self._numbers.pop(source, None)
            numbers = _known(tensor)
            if numbers is not None:
                self._numbers[name] = numbers
            return
        self._hold(name, tensor)

    def _all(self, steps: Sequence[Step]) -> list[Step]:
        """Steps with those of the bodies in them."""
        listed = []
        for step in steps:
            listed.append(step)
            for value in step.attributes.values():
                if isinstance(value, Program):
                    listed += self._all(value.steps)
        return listed

    def _forget_unused(self) -> None:
        """Drop constants that no node reads."""
        read = {name for step in self._all(self._live) for name in step.inputs} | set(self.program.outputs)
        for step in self._all(self._live):
            for value in step.attributes.values():
                read |= set(value.outputs) if isinstance(value, Program) else set()
        kept = {self.names[name] for name in read if name in self.names}
        for path in set(self.names.values()) - kept:
            owner = self.get_submodule(path.rpartition(".")[0])
            delattr(owner, path.rpartition(".")[2])
        self.names = {name: path for name, path in self.names.items() if path in kept}


def _computed(call: Call, function: Any) -> Any:
    """Run a function; what goes wrong names the node."""
    try:
        return function(call)
    except EdgepruneError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError) as error:
        if isinstance(error, RuntimeError) and "torch._dynamo" in type(error).__module__:
            raise
        text = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise ModelError(f"{call.step.label}: {text}", tip="check the file with onnx.checker") from error


def _as_operands(results: Any) -> list[Operand]:
    """What a function gave, as operands: one or several, tensors or operands."""
    listed = results if isinstance(results, tuple | list) else (results,)
    return [r if isinstance(r, Operand) else Operand(r) for r in listed]


def _known(tensor: torch.Tensor | None) -> Any:
    """The numbers of a small constant."""
    if tensor is None or tensor.numel() > KNOWN or tensor.dtype == torch.bfloat16:
        return None
    return np.array(tensor.detach().numpy())


def _unused(name: str, taken: Any) -> str:
    """The name itself, or with a number that nothing else has."""
    name = name or "_"
    number, tried = 1, name
    while tried in taken:
        tried, number = f"{name}_{number}", number + 1
    return tried


def _random(step: Step) -> bool:
    return step.op_type.startswith("Random") or step.op_type in ("Bernoulli", "Multinomial")


def _refuse_bomb(call: Call) -> None:
    """Refuse constants that a few bytes blow up to more than memory should hold.

    Raises:
        ModelError: with the size.
    """
    kind, elements = call.step.op_type, 0.0
    if kind in ("ConstantOfShape", "Expand", "Tile"):
        shape = np.asarray(call.numbers(0 if kind == "ConstantOfShape" else 1), dtype=np.float64)
        elements = float(shape.prod()) * (call.tensor(0).numel() if kind == "Tile" else 1)
    elif kind == "Range":
        start, stop, step = (float(np.asarray(call.numbers(i)).reshape(-1)[0]) for i in range(3))
        elements = abs((stop - start) / step) if step else 0.0
    elif kind == "OneHot":
        elements = call.tensor(0).numel() * float(np.asarray(call.numbers(1)).reshape(-1)[0])
    elif kind == "Pad" and call.has(1):
        shape = np.asarray(call.numbers(1), dtype=np.float64).reshape(2, -1).sum(0)
        elements = float((shape + list(call.tensor(0).shape)).prod()) if not call.has(3) else 0.0
    if elements * 4 > FOLDED:
        raise ModelError(
            f"{call.step.label}: gives a constant of {elements * 4:.3g} bytes; at most {FOLDED} are folded",
            tip="the file is damaged or was made to fill memory",
        )
