"""The process of `profile_operators`: files take turns under onnxruntime's profiler. Not to be imported.

    python -P _profile_child.py JOB.json

Prints one JSON object: {"machine", "overhead_us", "bandwidth", "files": [...]} or {"error"}. Each file is run
three ways: unoptimised once, for the shapes of its own nodes; optimised, for the time of an inference; and
optimised under the profiler. The optimised graph is saved too, since only it says which node is which.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from edgeprune.export.onnx_nodes import GraphLayer, graph_layers
from edgeprune.measure.runner import RunnerError, emulator, limited, machine, make_feeds, pin

CHUNKS = 8  # turns of each file; the median over them resists a disturbance of one
MAX_EVENTS = 300_000  # the profiler keeps a million
INVENTED = re.compile(r"(_token_\d+|_nchwc|_fused\d*)+$")
CONSUMER = ("QuantizeLinear", "ReorderInput")  # converted for the sake of what follows
LAYER_KERNELS = ("Conv", "Gemm", "MatMul", "GRU", "LSTM", "RNN")


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Profile every file of the job."""
    if emulator():
        raise RunnerError("an emulator's times mean nothing", "profile on the processor itself")
    this_machine = machine()
    pin(job["threads"])
    with tempfile.TemporaryDirectory() as scratch:
        files = [_File(Path(path), Path(scratch) / str(n), job) for n, path in enumerate(job["files"])]
        each = job["seconds"] / len(files) / CHUNKS / 2
        for _ in range(CHUNKS):
            for file in files:
                file.turn(each)
        return {
            "machine": this_machine,
            "overhead_us": overhead(Path(scratch), job["threads"]),
            "bandwidth": bandwidth(),
            "files": [file.result() for file in files],
        }


class _File:
    def __init__(self, path: Path, folder: Path, job: dict[str, Any]) -> None:
        folder.mkdir()
        self.path, self._folder, self._threads = path, folder, job["threads"]
        self._model = onnx.load(str(path), load_external_data=False)
        if any(not node.name for node in self._model.graph.node):
            self._model = onnx.load(str(path))
            for n, node in enumerate(self._model.graph.node):
                node.name = node.name or f"{node.op_type}_{n}"
            path = folder / "named.onnx"
            onnx.save(self._model, str(path))
        settings = Namespace(**{key: job[key] for key in ("inputs", "shape", "batch", "seed")})
        with limited(self.path, job["limit_s"]):
            session = self._open(path, onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL, profile="plain")
            self._feeds = make_feeds(session, settings)
            self._run(session)
        self._sizes = {e["name"]: e["args"] for e in _kernels(session.end_profiling())}
        self._plain = self._open(path, optimised=folder / "optimised.onnx")
        self._watched = self._open(path, profile="watched")
        self.times: list[float] = []
        self._runs: list[int] = []
        for session in (self._plain, self._watched):
            for _ in range(5):
                self._run(session)
        self._skip = 5

    def _open(
        self, path: Path, level: Any = None, *, profile: str | None = None, optimised: Path | None = None
    ) -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self._threads, 1
        options.log_severity_level = 4
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if level is not None:
            options.graph_optimization_level = level
        if profile is not None:
            options.enable_profiling = True
            options.profile_file_prefix = str(self._folder / profile)
        if optimised is not None:
            options.optimized_model_filepath = str(optimised)
        try:
            return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises a dozen unrelated classes
            raise RunnerError(f"{self.path}: onnxruntime cannot load it: {_line(error)}") from None

    def _run(self, session: Any) -> None:
        try:
            session.run(None, self._feeds)
        except Exception as error:
            raise RunnerError(f"{self.path}: onnxruntime cannot run it: {_line(error)}") from None

    def turn(self, seconds: float) -> None:
        """Some inferences without the profiler, as many with it."""
        taken: list[int] = []
        until = time.perf_counter() + seconds
        most = MAX_EVENTS // CHUNKS // max(1, len(self._model.graph.node))
        while len(taken) < 5 or (time.perf_counter() < until and len(taken) < most):
            start = time.perf_counter_ns()
            self._run(self._plain)
            taken.append(time.perf_counter_ns() - start)
        self.times.append(float(np.median(taken)) / 1e3)
        for _ in taken:
            self._run(self._watched)
        self._runs.append(len(taken))

    def result(self) -> dict[str, Any]:
        """The operators of the optimised graph with their times, and the layers of the file."""
        events: dict[str, list[float]] = {}
        about: dict[str, dict[str, Any]] = {}
        for event in _kernels(self._watched.end_profiling()):
            events.setdefault(event["name"], []).append(event["dur"] + 0.5)  # whole µs, cut off
            about[event["name"]] = event["args"]
        edges = np.cumsum(self._runs)[:-1]
        spent = {
            name: float(
                np.median([_middle(part) for part in np.split(np.asarray(took[self._skip :]), edges)])
            )
            for name, took in events.items()
        }
        total = float(np.median(self.times))
        layers = graph_layers(self._model)
        optimised = onnx.load(str(self._folder / "optimised.onnx"), load_external_data=False)
        computes, serves = _owners(self._model, layers, optimised)
        weights = {layer.label: _weight_bytes(layer) for layer in layers}
        # Writing an event down costs time that is partly counted to the operator.
        cost = max(0.0, (sum(spent.values()) - total) / max(1, len(spent)))
        rows = []
        for name, us in spent.items():
            args, layer = about[name], computes.get(name)
            stored = weights[layer] if layer is not None else int(args.get("parameter_size", 0))
            moved = int(args.get("activation_size", 0)) + int(args.get("output_size", 0)) + stored
            rows.append(
                {
                    "name": name,
                    "operator": args["op_name"],
                    "layer": layer,
                    "serves": serves.get(name),
                    "us": max(us - cost, 0.1 * us),
                    "bytes": moved,
                    "shape": _shape(args, "output_type_shape"),
                }
            )
        return {
            "file": str(self.path),
            "total_us": total,
            "operators": rows,
            "layers": [
                {
                    "name": layer.label, "operator": layer.operator, "macs": self._macs(layer),
                    "inputs": layer.inputs, "width": layer.width, "weight_bytes": weights[layer.label],
                    "quantised": layer.quantised,
                }
                for layer in layers
            ],
        }  # fmt: skip

    def _macs(self, layer: GraphLayer) -> int:
        args = self._sizes.get(layer.node)
        if args is None:  # the runtime folded the node away even unoptimised
            return 0
        out, weights = _shape(args, "output_type_shape"), int(np.prod(layer.weight_shape))
        if layer.operator == "Conv":
            return int(np.prod(out)) // out[1] * weights
        if layer.operator == "ConvTranspose":
            into = _shape(args, "input_type_shape")
            return int(np.prod(into)) // into[1] * weights
        if layer.operator in ("GRU", "LSTM", "RNN"):
            steps, batch = _shape(args, "input_type_shape")[:2]
            return int(steps * batch * (weights + weights // layer.inputs * layer.width))
        return int(np.prod(out)) * layer.inputs


def _kernels(path: str) -> list[dict[str, Any]]:
    kernels = []
    for event in json.loads(Path(path).read_text()):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            kernels.append({**event, "name": event["name"].removesuffix("_kernel_time")})
    return kernels


def _middle(values: Any) -> float:
    """Mean of the middle half: times come in whole microseconds, and their median would too."""
    ordered = np.sort(values)
    quarter = len(ordered) // 4
    return float(ordered[quarter : len(ordered) - quarter].mean())


def _shape(args: dict[str, Any], key: str) -> tuple[int, ...]:
    first = (args.get(key) or [{}])[0]
    return tuple(next(iter(first.values()), ()))


def _weight_bytes(layer: GraphLayer) -> int:
    return int(np.prod(layer.weight_shape)) * (1 if layer.quantised else 4)


def _owners(
    model: onnx.ModelProto, layers: tuple[GraphLayer, ...], optimised: onnx.ModelProto
) -> tuple[dict[str, str], dict[str, str]]:
    """Optimised node → the layer that it computes, and → the layer that it serves.

    The optimiser renames what it fuses, but keeps the name of a bias, of a quantised weight, of the
    output, or of the node up to a suffix; each is tried in turn.
    """
    by_node = {layer.node: layer.label for layer in layers}
    origin = _origins(model, by_node)
    named: dict[str, str] = {}  # weights and biases → layer
    for node in model.graph.node:
        if node.name in by_node:
            for name in node.input[1:]:
                named[name.removesuffix("_DequantizeLinear_Output")] = by_node[node.name]
    for layer in layers:
        named[layer.weight] = layer.label
    computes: dict[str, str] = {}
    serves: dict[str, str] = {}
    for node in optimised.graph.node:
        stem = INVENTED.sub("", node.name)
        kernel = any(word in node.op_type for word in LAYER_KERNELS)
        layer_name = next((named[i] for i in node.input if i in named), None) if kernel else None
        guesses = [*node.output, node.name, stem]
        owner = next((origin[g] for g in guesses if g in origin), None)
        if kernel and (layer_name or owner):
            computes[node.name] = layer_name or str(owner)
        if layer_name or (owner and node.op_type not in CONSUMER):
            serves[node.name] = layer_name or str(owner)
    _spread(optimised, serves)
    return computes, serves


def _origins(model: onnx.ModelProto, by_node: dict[str, str]) -> dict[str, str]:
    """Node and tensor names of the file → the layer that they are or that comes before them."""
    origin: dict[str, str] = {}
    for node in model.graph.node:
        owner = by_node.get(node.name) or next((origin[i] for i in node.input if i in origin), None)
        if owner is not None:
            origin[node.name] = owner
            origin.update(dict.fromkeys(node.output, owner))
    return origin


def _spread(optimised: onnx.ModelProto, serves: dict[str, str]) -> None:
    """Give what the runtime added to the layer after it (conversions of inputs) or before it."""
    nodes = list(optimised.graph.node)
    source = {out: node for node in nodes for out in node.output}
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in nodes:
        for name in node.input:
            users.setdefault(name, []).append(node)
    for backward in (True, False):
        for node in reversed(nodes) if backward else nodes:
            if node.name in serves or (backward and node.op_type not in CONSUMER):
                continue
            around = [u for out in node.output for u in users.get(out, [])]
            if not backward:
                around = [source[i] for i in node.input if i in source]
            owner = next((serves[n.name] for n in around if n.name in serves), None)
            if owner is not None:
                serves[node.name] = owner
    for node in reversed(nodes):  # what comes before the first layer serves that one
        if node.name not in serves:
            around = [u for out in node.output for u in users.get(out, [])]
            owner = next((serves[n.name] for n in around if n.name in serves), None)
            if owner is not None:
                serves[node.name] = owner


def overhead(folder: Path, threads: int) -> float:
    """Microseconds that an operator costs apart from its work: a chain of 64 on one number."""
    from onnx import TensorProto, helper

    count = 64
    nodes = [helper.make_node("Tanh", [f"t{n}"], [f"t{n + 1}"]) for n in range(count)]
    ends = [helper.make_tensor_value_info(f"t{n}", TensorProto.FLOAT, [1]) for n in (0, count)]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:])
    path = folder / "chain.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), str(path))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feeds, taken = {"t0": np.ones(1, np.float32)}, []
    for _ in range(300):
        start = time.perf_counter_ns()
        session.run(None, feeds)
        taken.append(time.perf_counter_ns() - start)
    return float(np.median(taken)) / 1e3 / count


def bandwidth() -> list[tuple[int, float]]:
    """(bytes moved, GB/s) of copies that read and write that many bytes together.

    A size counts with the best rate of any larger one too: some memcpy fall into a hole where two
    buffers lie at the same offset within a page (5 GB/s between 50 and 49 was seen).
    """
    rates: list[tuple[int, float]] = []
    for exponent in range(26, 13, -2):
        half = np.ones(2**exponent // 8, np.float32)
        other, best = np.zeros_like(half), float("inf")
        for _ in range(max(5, 2**25 // 2**exponent)):
            start = time.perf_counter_ns()
            np.copyto(other, half)
            best = min(best, time.perf_counter_ns() - start)
        rates.insert(0, (2**exponent, max(2**exponent / best, rates[0][1] if rates else 0.0)))
    return rates


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


if __name__ == "__main__":
    try:
        answer = main(json.loads(Path(sys.argv[1]).read_text()))
    except RunnerError as problem:
        answer = {"error": {"message": str(problem), "tip": problem.tip}}
    print(json.dumps(answer))
