"""Every operator of an ONNX file computes what ONNX Runtime computes; the gate of `load_model` judges."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from onnx_files import imported, normal, parsed

from edgeprune.frontend.onnx.operators import TABLE

X = "(float[2,4,6,6] x) => (float[a,b,c,d] y)"
CASES = {
    "conv with unequal padding":
        (X, "y = Conv <pads=[0,1,2,1], strides=[2,1]> (x, w)", {"w": normal(5, 4, 3, 3)}),
    "conv same lower":
        (X, 'y = Conv <auto_pad="SAME_LOWER", strides=[2,2]> (x, w)', {"w": normal(5, 4, 3, 3)}),
    "grouped dilated conv": (X, "y = Conv <group=2, dilations=[2,2]> (x, w, b)",
                             {"w": normal(6, 2, 2, 2), "b": normal(6)}),
    "transposed conv": (X, "y = ConvTranspose <strides=[2,2], pads=[1,0,0,1], output_padding=[1,1]> (x, w)",
                        {"w": normal(4, 3, 3, 3)}),
    "transposed conv to a shape": (X, "y = ConvTranspose <strides=[2,2], output_shape=[12,12]> (x, w)",
                                   {"w": normal(4, 3, 3, 3)}),
    "max pool with ceil": (X, "y = MaxPool <kernel_shape=[3,3], strides=[2,2], ceil_mode=1> (x)", {}),
    "max pool with unequal padding": (X, "y = MaxPool <kernel_shape=[2,2], pads=[0,0,1,1]> (x)", {}),
    "average pool without its padding": (X, "y = AveragePool <kernel_shape=[3,3], pads=[0,1,1,2]> (x)", {}),
    "average pool with its padding":
        (X, "y = AveragePool <kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1> (x)", {}),
    "batch norm": (X, "y = BatchNormalization (x, s, b, m, v)",
                   {"s": normal(4), "b": normal(4), "m": normal(4), "v": np.abs(normal(4)) + 0.5}),
    "instance norm": (X, "y = InstanceNormalization (x, s, b)", {"s": normal(4), "b": normal(4)}),
    "group norm by groups": (X, "y = GroupNormalization <num_groups=2> (x, s, b)",
                             {"s": normal(2), "b": normal(2)}),
    "layer norm": (X, "y = LayerNormalization <axis=-1> (x, s, b)", {"s": normal(6), "b": normal(6)}),
    "local response norm": (X, "y = LRN <size=3, alpha=0.1> (x)", {}),
    "prelu": (X, "y = PRelu (x, s)", {"s": normal(4, 1, 1)}),
    "hard sigmoid": (X, "y = HardSigmoid <alpha=0.3, beta=0.4> (x)", {}),
    "selu": (X, "y = Selu (x)", {}),
    "clip from one side": (X, "y = Clip (x, low)", {"low": np.float32(0.2)}),
    "resize nearest": (X, 'y = Resize <mode="nearest", nearest_mode="ceil"> (x, , s)',
                       {"s": np.array([1, 1, 1.5, 1.5], np.float32)}),
    "resize nearest half": (X, 'y = Resize <mode="nearest"> (x, , s)',
                            {"s": np.array([1, 1, 2, 2], np.float32)}),
    "resize linear": (X, 'y = Resize <mode="linear"> (x, , , n)', {"n": np.array([2, 4, 9, 5])}),
    "resize linear asymmetric":
        (X, 'y = Resize <mode="linear", coordinate_transformation_mode="asymmetric"> (x, , s)',
         {"s": np.array([1, 1, 2, 2], np.float32)}),
    "resize linear aligned":
        (X, 'y = Resize <mode="linear", coordinate_transformation_mode="align_corners"> (x, , , n)',
         {"n": np.array([2, 4, 11, 12])}),
    "resize cubic":
        (X, 'y = Resize <mode="cubic", cubic_coeff_a=-0.5> (x, , , n)', {"n": np.array([2, 4, 9, 13])}),
    "resize antialiased":
        (X, 'y = Resize <mode="linear", antialias=1> (x, , , n)', {"n": np.array([2, 4, 3, 4])}),
    "slice with steps": (X, "y = Slice (x, st, en, ax, sp)",
                         {"st": np.array([1, -1]), "en": np.array([6, -7]), "ax": np.array([3, 2]),
                          "sp": np.array([2, -2])}),
    "pad reflected": (X, 'y = Pad <mode="reflect"> (x, p)', {"p": np.array([0, 0, 1, 2, 0, 0, 2, 1])}),
    "pad edge": (X, 'y = Pad <mode="edge"> (x, p)', {"p": np.array([0, 0, 1, 0, 0, 0, 0, 3])}),
    "pad constant": (X, "y = Pad (x, p, v)", {"p": np.array([0, 1, 0, -1, 0, 0, 2, 0]), "v": np.float32(3)}),
    "gather by negative indices": (X, "y = Gather <axis=1> (x, i)", {"i": np.array([-1, 0])}),
    "gather nd": ("(float[2,4,6,6] x) => (float[a,b,c] y)", "y = GatherND (x, i)",
                  {"i": np.array([[0, 1], [1, 3]])}),
    "scatter nd": (X, "y = ScatterND (x, i, u)", {"i": np.array([[0, 1]]), "u": normal(1, 6, 6)}),
    "scatter elements": (X, 'y = ScatterElements <axis=1, reduction="add"> (x, i, u)',
                         {"i": np.zeros((1, 2, 1, 1), np.int64), "u": normal(1, 2, 1, 1)}),
    "depth to space": (X, "y = DepthToSpace <blocksize=2> (x)", {}),
    "depth to space by columns": (X, 'y = DepthToSpace <blocksize=2, mode="CRD"> (x)', {}),
    "space to depth": (X, "y = SpaceToDepth <blocksize=2> (x)", {}),
    "where": (X, "z = Constant <value=float {0.0}> ()\n c = Less (x, z)\n y = Where (c, z, x)", {}),
    "top k": (X, "y, i = TopK <axis=3> (x, k)", {"k": np.array([2])}),
    "cumulative sum from the end": (X, "y = CumSum <reverse=1, exclusive=1> (x, a)", {"a": np.int64(2)}),
    "einsum": (X, 'y = Einsum <equation="nchw,dc->ndhw"> (x, w)', {"w": normal(3, 4)}),
    "reduce by log sum exp": (X, "y = ReduceLogSumExp <keepdims=1> (x, a)", {"a": np.array([1, 3])}),
    "reduce l2": (X, "y = ReduceL2 <keepdims=1> (x, a)", {"a": np.array([-1])}),
    "split in unequal parts": (X, "y, z = Split <axis=1> (x, n)", {"n": np.array([3, 1])}),
    "tile": (X, "y = Tile (x, n)", {"n": np.array([1, 2, 1, 1])}),
    "grid sample": (X, "y = GridSample (x, g)", {"g": normal(2, 3, 3, 2) / 3}),
    "arithmetic on shapes": (
        X,
        """s = Shape (x)
           h = Gather <axis=0> (s, two)
           d = Mul (h, six)
           u = Unsqueeze (d, zero)
           b = Slice (s, zero, one)
           t = Concat <axis=0> (b, u, minus, one)
           y = Reshape (x, t)""",
        {"two": np.int64(2), "six": np.int64(6), "zero": np.array([0]), "one": np.array([1]),
         "minus": np.array([-1])},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_an_operator_computes_what_onnx_runtime_computes(name: str, tmp_path: Path):
    """The module of a file with this operator passes the gate, which refuses what differs by 1e-4."""
    signature, body, weights = CASES[name]
    loaded = imported(parsed(f"{signature} {{ {body} }}", **weights), tmp_path)
    assert loaded.module is not None and "agrees with ONNX Runtime" in loaded.notes[0]


def _recurrent(kind: str, gates: int, direction: str, attributes: str, layout: int = 0) -> str:
    outputs = "h, s, c" if kind == "LSTM" else "h, s"
    shape = "3,2,4" if not layout else "2,3,4"
    return f"""(float[{shape}] x) => (float[a,b,c,d] h, float[e,f,g] s) {{
        {outputs} = {kind} <hidden_size=5, direction="{direction}" {attributes}> (x, w, r, b)
    }}"""


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(
    ("kind", "gates", "attributes"),
    [("LSTM", 4, ""), ("GRU", 3, ", linear_before_reset=1"), ("GRU", 3, ""), ("RNN", 1, "")],
)
def test_recurrent_layers_keep_their_gates_in_order(
    kind: str, gates: int, attributes: str, direction: str, tmp_path: Path
):
    """Gates are reordered, both biases used, and a GRU without linear_before_reset is written out."""
    count = 2 if direction == "bidirectional" else 1
    model = parsed(
        _recurrent(kind, gates, direction, attributes),
        w=normal(count, gates * 5, 4, seed=1), r=normal(count, gates * 5, 5, seed=2),
        b=normal(count, gates * 10, seed=3),
    )  # fmt: skip
    assert imported(model, tmp_path).module is not None


def test_a_wrong_function_is_caught_by_the_gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An import that computes something else is refused, and the node is named."""
    from edgeprune.errors import ModelError

    monkeypatch.setitem(TABLE, ("", "Selu"), lambda call: torch.relu(call.tensor(0)))
    model = parsed("(float[2,4] x) => (float[2,4] y) { z = Selu (x)\n y = Neg (z) }")
    model.graph.node[0].name = "the_node"
    with pytest.raises(ModelError, match=r"differs from ONNX Runtime .* first at Selu node 'the_node'"):
        imported(model, tmp_path)
