"""Static 8-bit quantisation: what it guarantees about the file, the choice of layers and the errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeprune.errors import BudgetError, DataError, ExportError, ParityError, TargetError
from edgeprune.export.onnx_nodes import graph_layers
from edgeprune.export.quantisation import quantise
from edgeprune.export.quantisation_policy import int8_settings, require_gain
from edgeprune.export.quantising import Quantiser, RunFile
from edgeprune.targets import load_target


def network(path: Path, *, wild: bool = False, seed: int = 0) -> Path:
    """Conv, ReLU, pool, Conv, Add, mean, Gemm on 3×8×8; `wild` makes layer b hard for 8 bits."""
    rng = np.random.default_rng(seed)
    b = rng.standard_normal((8, 8, 3, 3)).astype(np.float32) / 8
    if wild:  # one huge output value spoils the range of all the others
        b[0] *= 300
    weights = {
        "a.weight": rng.standard_normal((8, 3, 3, 3)).astype(np.float32) / 5,
        "a.bias": np.zeros(8, np.float32),
        "b.weight": b,
        "b.bias": np.zeros(8, np.float32),
        "c.weight": rng.standard_normal((4, 8)).astype(np.float32),
        "c.bias": np.zeros(4, np.float32),
        "axes": np.array([2, 3]),
    }
    if wild:
        weights["c.weight"][:, 0] /= 300
    nodes = [
        helper.make_node("Conv", ["x", "a.weight", "a.bias"], ["h1"], pads=[1] * 4, name="n1"),
        helper.make_node("Relu", ["h1"], ["h2"], name="n2"),
        helper.make_node("MaxPool", ["h2"], ["h3"], kernel_shape=[2, 2], strides=[2, 2], name="n3"),
        helper.make_node("Conv", ["h3", "b.weight", "b.bias"], ["h4"], pads=[1] * 4, name="n4"),
        helper.make_node("Add", ["h4", "h3"], ["h5"], name="n5"),
        helper.make_node("ReduceMean", ["h5", "axes"], ["h6"], keepdims=0, name="n6"),
        helper.make_node("Gemm", ["h6", "c.weight", "c.bias"], ["y"], transB=1, name="n7"),
    ]
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 8, 8]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4]),
    ]
    stored = [numpy_helper.from_array(v, n) for n, v in weights.items()]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def batches(count: int = 4, size: int = 16) -> list[tuple[np.ndarray]]:
    rng = np.random.default_rng(1)
    return [(rng.standard_normal((size, 3, 8, 8)).astype(np.float32),) for _ in range(count)]


def agreement(reference: Path) -> Callable[[Path], float]:
    """Points of samples whose largest output is that of the float file."""
    x = batches(1, 256)[0]
    wanted = RunFile(reference)(x)[0].argmax(1)
    return lambda path: 100.0 * float((RunFile(path)(x)[0].argmax(1) == wanted).mean())


def test_a_way_of_finding_ranges_that_fails_does_not_stop_the_others(tmp_path):
    """Where values span all of float32 no histogram holds them: percentile drops out, minmax serves."""
    source = network(tmp_path / "net.onnx")
    model = onnx.load(source)
    bias = next(t for t in model.graph.initializer if t.name == "a.bias")
    bias.CopyFrom(numpy_helper.from_array(np.full(8, -3e38, np.float32), "a.bias"))
    onnx.save(model, source)
    maker = Quantiser(source, tmp_path, "uint8", True, 300)
    maker.calibrate(batches(), ("minmax", "percentile"))
    assert maker.methods == ["minmax"]
    assert "bins" in maker.failed["percentile"]
    with pytest.raises(ExportError, match="bins"):
        maker.calibrate(batches(), ("percentile",))


def test_the_file_computes_in_8_bits_and_is_proven(tmp_path):
    """Every layer has 8-bit weights, opset and free batch stay, outputs move little, parity is recorded."""
    source = network(tmp_path / "net.onnx")
    made = quantise(source, batches(), tmp_path / "q.onnx", methods=["minmax"])
    layers = graph_layers(onnx.load(tmp_path / "q.onnx"))
    assert [x.label for x in layers] == ["a", "b", "c"] and all(x.quantised for x in layers)
    assert made.artifact.opset == 18 and made.artifact.dynamic_batch and made.samples == 64
    assert made.artifact.parity is not None and made.artifact.parity.max_abs <= made.artifact.parity.atol
    assert 0 < made.output_error < 0.01
    assert not list(tmp_path.glob(".q*"))
    assert RunFile(tmp_path / "q.onnx")((batches()[0][0][:1],))[0].shape == (1, 4)


def test_the_method_that_moves_the_outputs_least_is_used(tmp_path):
    """Without an accuracy the three calibrations are compared by the outputs; the note tells all three."""
    made = quantise(network(tmp_path / "net.onnx"), batches(), tmp_path / "q.onnx")
    errors = {}
    for method in ("minmax", "percentile", "entropy"):
        alone = quantise(tmp_path / "net.onnx", batches(), tmp_path / f"{method}.onnx", methods=[method])
        errors[method] = alone.output_error
    assert made.output_error == pytest.approx(min(errors.values()))
    assert all(method in made.notes[0] for method in errors)


def test_a_layer_that_spoils_a_channel_stays_in_float_whatever_is_measured(tmp_path):
    """An outlier takes the range of all others: the layer is named with its harm, with no bound given."""
    source = network(tmp_path / "net.onnx", wild=True)
    made = quantise(source, batches(), tmp_path / "q.onnx", methods=["minmax"])
    floats = [x for x in made.layers if not x.quantised]
    harm = {x.name: x.harm for x in made.layers if x.harm is not None}
    assert agreement(source)(tmp_path / "q.onnx") >= 98
    assert any("alone moves the outputs" in x.reason for x in floats)
    assert max(harm, key=harm.get) in {x.name for x in floats}


def test_layers_stay_in_float_until_the_bound_holds(tmp_path):
    """`max_drop`: a measure that only layer b in 8 bits lowers puts b in float, and no more than needed."""
    source = network(tmp_path / "net.onnx")
    score = lambda path: 100.0 if path == source or not _eight(path, "b") else 90.0  # noqa: E731
    made = quantise(source, batches(), tmp_path / "q.onnx", methods=["minmax"], evaluate=score, max_drop=2.0)
    floats = {x.name: x for x in made.layers if not x.quantised}
    assert "b" in floats and len(floats) < 3
    harm = {x.name: x.harm for x in made.layers}
    assert all(harm[name] >= harm[x] for name in floats for x in harm if x not in floats)
    assert (made.before, made.after) == (100.0, 100.0)


def test_a_bound_that_cannot_hold_is_an_error_and_leaves_nothing(tmp_path):
    """A drop below every possible one is refused; the path holds what it held before."""
    source = network(tmp_path / "net.onnx")
    (tmp_path / "q.onnx").write_text("old")
    scores = iter([100.0, *([0.0] * 50)])
    with pytest.raises(BudgetError, match="most harmful layers in float do not mend it"):
        quantise(
            source, batches(), tmp_path / "q.onnx", methods=["minmax"],
            evaluate=lambda _: next(scores), max_drop=1.0, evaluations=8,
        )  # fmt: skip
    assert (tmp_path / "q.onnx").read_text() == "old"


class Slow:
    """A timer that says that layer a takes three times as long in 8 bits, and files without it are faster."""

    def __init__(self) -> None:
        self.files: list[list[bool]] = []

    def layer_times(self, paths):
        return [{"a": 3.0 if _eight(p, "a") else 1.0, "b": 1.0, "c": 1.0} for p in paths]

    def ratios(self, paths):
        return [1.0, *(1.5 if _eight(p, "a") else 0.7 for p in paths[1:])]


def _eight(path: Path, label: str) -> bool:
    return next(x.quantised for x in graph_layers(onnx.load(path)) if x.label == label)


def test_a_slow_layer_stays_in_float_where_the_file_gets_faster(tmp_path):
    """The layer is left out with its measured ratio; the file's own ratio is recorded."""
    made = quantise(
        network(tmp_path / "net.onnx"), batches(), tmp_path / "q.onnx", methods=["minmax"], timer=Slow()
    )
    by_name = {x.name: x for x in made.layers}
    assert not by_name["a"].quantised and "3.00 times as long" in by_name["a"].reason
    assert by_name["b"].quantised and by_name["a"].time_ratio == 3.0 and made.time_ratio == 0.7


def test_a_conversion_behind_a_float_pool_is_held_there_and_changes_nothing(tmp_path):
    """With the first layer in float a Relu stands before the conversion; outputs equal those without it."""
    source = network(tmp_path / "net.onnx")
    quantise(source, batches(), tmp_path / "q.onnx", methods=["minmax"], keep_float={"a": "asked"})
    model = onnx.load(tmp_path / "q.onnx")
    held = [n for n in model.graph.node if n.name.endswith("_held")]
    assert len(held) == 1 and held[0].op_type == "Relu"
    for node in model.graph.node:
        for n, name in enumerate(node.input):
            if name == held[0].output[0]:
                node.input[n] = held[0].input[0]
    model.graph.node.remove(held[0])
    onnx.save(model, tmp_path / "plain.onnx")
    x = batches(1)[0]
    assert np.array_equal(RunFile(tmp_path / "q.onnx")(x)[0], RunFile(tmp_path / "plain.onnx")(x)[0])


def test_an_addition_with_a_float_branch_stays_in_float(tmp_path):
    """Layer a in float: the Add of its pooled output and layer b's must not be wrapped in conversions."""
    quantise(
        network(tmp_path / "net.onnx"), batches(), tmp_path / "q.onnx",
        methods=["minmax"], keep_float={"a": "asked"},
    )  # fmt: skip
    graph = onnx.load(tmp_path / "q.onnx").graph
    add = next(n for n in graph.node if n.op_type == "Add")
    quantised = {n.input[0] for n in graph.node if n.op_type == "QuantizeLinear"}
    assert add.output[0] not in quantised


def test_kernels_that_compute_another_thing_are_refused(tmp_path, monkeypatch):
    """A file whose optimised outputs leave those of its graph is not kept; the tip names 7-bit weights."""
    import edgeprune.export.quantisation as module

    class Wrong(RunFile):
        def __call__(self, call):
            return tuple(1.2 * y for y in super().__call__(call))

    monkeypatch.setattr(module, "RunFile", Wrong)
    with pytest.raises(ParityError, match=r"kernels compute another thing.*7-bit weights"):
        quantise(
            network(tmp_path / "net.onnx"), batches(), tmp_path / "q.onnx",
            methods=["minmax"], reduce_range=False,
        )  # fmt: skip
    assert not (tmp_path / "q.onnx").exists()


def test_bad_requests_are_one_line(tmp_path):
    """No data, a wrong number of inputs, an unknown layer, nothing left, a bound without a measure."""
    source = network(tmp_path / "net.onnx")
    out = tmp_path / "q.onnx"
    with pytest.raises(DataError, match="no calibration data"):
        quantise(source, [], out, methods=["minmax"])
    with pytest.raises(DataError, match="takes 1 inputs; calibration gave 2"):
        quantise(source, [(*batches()[0], np.zeros(1))], out, methods=["minmax"])
    with pytest.raises(ExportError, match="no layer 'nope'"):
        quantise(source, batches(), out, methods=["minmax"], keep_float={"nope": ""})
    with pytest.raises(ExportError, match="no layer to quantise"):
        quantise(source, batches(), out, methods=["minmax"], keep_float=dict.fromkeys("abc", ""))
    with pytest.raises(DataError, match="needs `evaluate`"):
        quantise(source, batches(), out, max_drop=1.0)
    (tmp_path / "broken.onnx").write_bytes(source.read_bytes()[:100])
    with pytest.raises(ExportError, match="broken"):
        quantise(tmp_path / "broken.onnx", batches(), out)


def test_a_file_in_8_bits_is_refused_in_one_line(tmp_path):
    """Quantising twice gains nothing and fails inside the runtime; the float file is asked for."""
    quantise(network(tmp_path / "net.onnx"), batches(), tmp_path / "q.onnx", methods=["minmax"])
    with pytest.raises(
        ExportError, match=r"q\.onnx: is in 8 bits already, it has DequantizeLinear"
    ) as caught:
        quantise(tmp_path / "q.onnx", batches(), tmp_path / "twice.onnx")
    assert "float file" in caught.value.tip and "\n" not in str(caught.value)
    assert not (tmp_path / "twice.onnx").exists()


def test_the_quantiser_failing_is_one_line(tmp_path):
    """A graph that the child cannot take ends in an ExportError that names the step."""
    source = network(tmp_path / "net.onnx")
    calls = [(np.zeros((2, 5, 8, 8), np.float32),)]
    with pytest.raises((ExportError, ParityError), match=r"net\.onnx"):
        quantise(source, calls, tmp_path / "q.onnx", methods=["minmax"])


def test_the_rule_of_types_follows_the_target():
    """x86 without VNNI: uint8 with 7-bit weights; ARM: int8; cores without dot product are refused."""
    vnni, avx2 = load_target("x86-avx512"), load_target("x86-avx2")
    assert int8_settings(avx2, host=vnni) == {"activations": "uint8", "reduce_range": True}
    assert int8_settings(vnni, host=vnni) == {"activations": "uint8", "reduce_range": False}
    assert int8_settings(load_target("rpi5"), host=vnni) == {"activations": "int8", "reduce_range": False}
    require_gain(load_target("rpi5"))
    with pytest.raises(TargetError, match=r"rpi4: 8 bits gain little on Cortex-A72.*--anyway"):
        require_gain(load_target("rpi4"))


def test_a_machine_that_saturates_makes_7_bit_weights_for_every_target():
    """What is proven here must be computable here, also where the target itself could do more."""
    settings = int8_settings(load_target("rpi5"), host=load_target("x86-avx2"))
    assert settings == {"activations": "int8", "reduce_range": True}


def test_signed_activations_are_held_by_a_clip(tmp_path):
    """int8 with a layer in float computes the same as its graph, whatever the zero point is."""
    made = quantise(
        network(tmp_path / "net.onnx"), batches(), tmp_path / "q.onnx", methods=["minmax"],
        activations="int8", keep_float={"a": "asked"}, reduce_range=True,
    )  # fmt: skip
    assert made.artifact.parity is not None and made.output_error < 0.01


def detector(path: Path, *, last: bool = False) -> Path:
    """Two convolutions, then a box and a score convolution; output cat([boxes·640, scores]), as YOLO's."""
    rng = np.random.default_rng(0)

    def weight(name: str, *shape: int, scale: float = 1.0):
        values = rng.standard_normal(shape) * scale / np.sqrt(np.prod(shape[1:]))
        return numpy_helper.from_array(values.astype(np.float32), name)

    stored = [
        weight("a.weight", 16, 3, 3, 3), weight("b.weight", 16, 16, 3, 3),
        weight("box.weight", 4, 16, 1, 1), weight("score.weight", 2, 16, 1, 1, scale=0.5),
        numpy_helper.from_array(np.full(2, -3, np.float32), "score.bias"),
        numpy_helper.from_array(np.array(640, np.float32), "size"),
        numpy_helper.from_array(np.array([0, 0, -1]), "flat"),
    ]  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["x", "a.weight"], ["h1"], pads=[1] * 4, name="n1"),
        helper.make_node("Relu", ["h1"], ["h2"], name="n2"),
        helper.make_node("Conv", ["h2", "b.weight"], ["h3"], pads=[1] * 4, name="n3"),
        helper.make_node("Relu", ["h3"], ["h4"], name="n4"),
        helper.make_node("Conv", ["h4", "box.weight"], ["b0"], name="n5"),
        helper.make_node("Sigmoid", ["b0"], ["b1"], name="n6"),
        helper.make_node("Mul", ["b1", "size"], ["b2"], name="n7"),
        helper.make_node("Conv", ["h4", "score.weight", "score.bias"], ["s0"], name="n8"),
        helper.make_node("Sigmoid", ["s0"], ["s1"], name="n9"),
        helper.make_node("Concat", ["b2", "s1"], ["c"], axis=1, name="n10"),
        helper.make_node("Reshape", ["c", "flat"], ["y" if not last else "r"], name="n11"),
    ]
    if last:
        nodes.append(helper.make_node("Transpose", ["r"], ["y"], perm=[0, 2, 1], name="n12"))
    shape = ["batch", 6, 64] if not last else ["batch", 64, 6]
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 8, 8]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, shape),
    ]
    graph = helper.make_graph(nodes, "detector", ends[:1], ends[1:], stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


@pytest.mark.parametrize("last", [False, True])
def test_a_detectors_scores_survive_beside_its_boxes(tmp_path, last):
    """cat([boxes·640, scores]): no score collapses, and each channel keeps most of its own variance.

    One scale up to 640 for the trailing Concat made every score exactly 0 with good figures throughout.
    """
    source = detector(tmp_path / "det.onnx", last=last)
    made = quantise(source, batches(), tmp_path / "q.onnx", methods=["minmax"])
    x = batches(1, 32)[0]
    wanted, found = RunFile(source)(x)[0], RunFile(tmp_path / "q.onnx")(x)[0]
    if last:
        wanted, found = wanted.transpose(0, 2, 1), found.transpose(0, 2, 1)
    for channel in range(6):
        a, b = wanted[:, channel], found[:, channel]
        assert b.std() > 0.5 * a.std() and ((a - b) ** 2).mean() < 0.25 * a.var()
    assert sum(layer.quantised for layer in made.layers) >= 2
    graph = onnx.load(tmp_path / "q.onnx").graph
    converted = {n.input[0] for n in graph.node if n.op_type == "QuantizeLinear"}
    assert not converted & {"y", "c", "r", "s1", "b2"}


def test_a_channel_that_collapses_is_seen_whatever_the_whole_output_says(tmp_path):
    """Scores set to 0 beside boxes: 0.00% of the output's variance, all of the scores' own."""
    source = detector(tmp_path / "det.onnx")
    maker = Quantiser(source, tmp_path, "uint8", True, 300)
    maker.calibrate(batches(), ("minmax",))
    model = onnx.load(source)
    bias = next(t for t in model.graph.initializer if t.name == "score.bias")
    bias.CopyFrom(numpy_helper.from_array(np.full(2, -1e4, np.float32), "score.bias"))
    onnx.save(model, tmp_path / "zero.onnx")
    difference = maker.difference(tmp_path / "zero.onnx")
    assert difference.share < 1e-5 and difference.channel.collapsed and not difference.holds
    assert "index 4 of axis 1: its values collapse" in difference.text.replace("index 5", "index 4")


class AlwaysSlower:
    """A timer that finds every 8-bit file slower, and counts the files that it is asked about."""

    asked = 0

    def layer_times(self, paths):
        return [{"a": 1.0, "b": 1.0, "c": 1.0} for _ in paths]

    def ratios(self, paths):
        self.asked += len(paths) - 1
        return [1.0, *([1.14] * (len(paths) - 1))]


def test_a_file_that_is_not_faster_is_not_written_unless_asked(tmp_path):
    """The stage stops at the first clear loss, with the reason in one line; write_slower insists."""
    source, timer = network(tmp_path / "net.onnx"), AlwaysSlower()
    scored = []
    with pytest.raises(ExportError, match=r"takes 1\.14 of its float time here, so no 8-bit file") as caught:
        quantise(
            source, batches(), tmp_path / "q.onnx", timer=timer, evaluate=lambda p: scored.append(p) or 1
        )
    assert "\n" not in str(caught.value) and not (tmp_path / "q.onnx").exists()
    assert timer.asked == 1 and not scored
    made = quantise(
        source, batches(), tmp_path / "q.onnx", timer=timer, methods=["minmax"], write_slower=True
    )
    assert made.time_ratio == 1.14 and (tmp_path / "q.onnx").exists()


def test_the_time_limit_counts_all_that_is_tried(tmp_path):
    """Not each child process by itself: with the time used up the next step is refused in one line."""
    maker = Quantiser(network(tmp_path / "net.onnx"), tmp_path, "uint8", True, 300)
    maker.calibrate(batches(), ("minmax",))
    maker._until = 0.0
    with pytest.raises(ExportError, match="the 300 s for 8 bits were up"):
        maker.file("minmax", [])


def test_outputs_that_are_not_finite_are_never_agreed_on(tmp_path):
    """A float file that gives NaN on calibration data is refused, not quantised."""
    source = network(tmp_path / "net.onnx")
    model = onnx.load(source)
    bias = next(t for t in model.graph.initializer if t.name == "c.bias")
    bias.CopyFrom(numpy_helper.from_array(np.full(4, np.nan, np.float32), "c.bias"))
    onnx.save(model, source)
    with pytest.raises((ParityError, ExportError)):
        quantise(source, batches(), tmp_path / "q.onnx", methods=["minmax"])
    assert not (tmp_path / "q.onnx").exists()
