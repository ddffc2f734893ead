"""check_parity: what agrees, what differs, and what cannot be told."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import onnx
import pytest
import torch
from onnx_programs import Still, TokensAndFeatures, cnn, cnn_file, export, images, reference

from edgeprune.errors import DataError, ParityError
from edgeprune.export.channels import allowed_gap
from edgeprune.export.export import export_onnx
from edgeprune.export.parity import check_parity
from edgeprune.measure import runner


def _text_model(tmp_path, body: str, signature: str = "(float[n, 3] x) => (float[n, 3] y)"):
    text = f'<ir_version: 8, opset_import: ["" : 18]> g {signature} {{ {body} }}'
    path = tmp_path / "m.onnx"
    onnx.save(onnx.parser.parse_model(text), str(path))
    return path


def _rows(*rows: list[float]) -> list[tuple[np.ndarray]]:
    return [(np.array(rows, np.float32),)]


def test_numbers_are_those_of_a_hand_computation(tmp_path):
    """max_abs, tolerance, spread and ratio follow their definitions on a two-sample identity."""
    path = _text_model(tmp_path, "y = Identity(x)")
    inputs = _rows([0, 2, 10], [2, 0, 0])  # std over samples: 1, 1, 5; RMS = sqrt(27/3)
    result = check_parity(lambda c: (c[0] + np.float32(0.0005),), path, inputs)
    output = result.outputs[0]
    assert result.max_abs == pytest.approx(0.0005, rel=1e-3)
    assert result.atol == pytest.approx(1e-4 * 10.0005)
    assert result.output_spread == pytest.approx(np.sqrt(27 / 3), rel=1e-6)
    assert result.spread_ratio == pytest.approx(output.spread / output.max_abs)
    assert (result.samples, result.top1_agreement) == (2, 1.0)
    assert result.runtime.startswith("onnxruntime 1.")


def test_a_dynamic_program_agrees_at_several_batch_sizes(tmp_path):
    """The exported network matches its module far inside the tolerance, top-1 included."""
    module, _ = cnn(dynamic=True)
    result = check_parity(reference(module), cnn_file(tmp_path), images(1, 2, 7))
    assert result.max_abs < result.atol / 10
    assert result.top1_agreement == 1.0
    assert result.spread_ratio > 100
    assert result.samples == 10


def test_several_inputs_and_outputs_with_integers(tmp_path):
    """Token ids enter as int64, and the integer output must be equal."""
    torch.manual_seed(0)
    module = TokensAndFeatures()
    program = export(module, (torch.randint(0, 11, (2, 4)), torch.randn(2, 3)), dynamic=True)
    artifact = export_onnx(program, tmp_path / "m.onnx")
    rng = np.random.default_rng(0)
    call = (rng.integers(0, 11, (16, 4)), rng.standard_normal((16, 3)).astype(np.float32))
    scores, choice = check_parity(reference(module), artifact.path, [call]).outputs
    assert scores.top1_agreement == 1.0
    assert (choice.atol, choice.max_abs, choice.top1_agreement) == (0.0, 0.0, None)


def test_one_changed_weight_is_found(tmp_path):
    """A weight that moves by a hundredth of the output's size breaks parity; both numbers are named."""
    module = deepcopy(cnn(dynamic=True)[0])
    with torch.no_grad():
        module.head.bias[3] += 0.01
    with pytest.raises(ParityError, match=r"differs from the reference by 0\.01; allowed .*max\|y\|"):
        check_parity(reference(module), cnn_file(tmp_path), images(4))


def test_an_output_that_does_not_move_proves_nothing(tmp_path):
    """A network that ignores its input agrees with anything, so it is refused and told so."""
    program = export(Still(), (torch.randn(2, 4),), dynamic=True)
    artifact = export_onnx(program, tmp_path / "m.onnx")
    x = np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)
    with pytest.raises(ParityError, match="no output moves with the input") as caught:
        check_parity(reference(Still()), artifact.path, [(x,)])
    assert "calibrate" in caught.value.tip


def test_one_still_output_beside_a_moving_one_is_accepted(tmp_path):
    """Anchors that are constant by design pass, and their spread is on record as zero."""
    path = _text_model(
        tmp_path,
        "c = Constant<value_floats = [1.0, 2.0]>() y = Identity(x)",
        "(float[n, 3] x) => (float[n, 3] y, float[2] c)",
    )
    constant = np.array([1, 2], np.float32)
    y, c = check_parity(lambda call: (call[0], constant), path, _rows([1, 2, 3], [4, 5, 7])).outputs
    assert y.spread > 1
    assert c.max_abs == 0


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ([], "at least two samples; got 0"),
        (_rows([1, 2, 3]), "at least two samples; got 1"),
        (_rows([1, 2, 3], [1, 2, 3]), "all 2 samples are equal"),
        ([*_rows([1, 2, 3]), (np.zeros((1, 3)), np.zeros((1, 3)))], "different numbers of inputs"),
    ],
)
def test_inputs_that_cannot_prove_anything_are_refused(tmp_path, inputs, text):
    """No samples, one sample, equal samples or ragged calls are a DataError."""
    path = _text_model(tmp_path, "y = Identity(x)")
    with pytest.raises(DataError, match=text):
        check_parity(lambda c: c, path, inputs)


def test_outputs_that_are_not_finite_prove_nothing(tmp_path):
    """log(0) = -inf on both sides agrees and says nothing; NaN for -inf is refused too."""
    path = _text_model(tmp_path, "y = Log(x)")
    inputs = _rows([0, 1, 2], [0, 2, 5])
    with np.errstate(divide="ignore"):
        with pytest.raises(ParityError, match="not finite"):
            check_parity(lambda c: (np.log(c[0]),), path, inputs)
        with pytest.raises(ParityError, match="not finite"):
            check_parity(lambda c: (np.where(c[0] == 0, np.nan, np.log(c[0])),), path, inputs)


def test_top1_agreement_is_the_share_of_equal_argmax(tmp_path):
    """With the tolerance opened to a fifth of the outputs, one flipped row in four gives 0.75."""
    path = _text_model(tmp_path, "y = Identity(x)")
    rows = np.array([[9, 0, 0], [0, 2, 1], [0, 0, 9], [-9, 0, -9]], np.float32)  # spread is 5 and more
    flipped = rows.copy()
    flipped[1] = [0, 1, 2]
    result = check_parity(lambda c: (flipped,), path, [(rows,)], rtol=0.2)
    assert (result.max_abs, result.top1_agreement) == (1.0, 0.75)


def test_wrong_arity_type_and_shape_are_one_line(tmp_path):
    """Each mismatch between the call, the file and the reference is named without a traceback's newlines."""
    path = _text_model(tmp_path, "y = Identity(x)")
    good = _rows([1, 2, 3], [4, 5, 6])
    cases = [
        ([(good[0][0], good[0][0])], lambda c: (c[0],), "takes 1 inputs; 2 were given"),
        ([(good[0][0].astype(np.float64),)], lambda c: c, "cannot run m.onnx"),
        (good, lambda c: (c[0][:, :2],), r"has shape \[2, 3\]; the reference gives \[2, 2\]"),
        (good, lambda c: (c[0], c[0]), "has 1 outputs; the reference gave 2"),
    ]
    for inputs, run, text in cases:
        with pytest.raises(ParityError, match=text) as caught:
            check_parity(run, path, inputs)
        assert "\n" not in str(caught.value)


def test_a_file_the_runtime_cannot_load_is_a_parity_error(tmp_path):
    """A damaged file says which runtime refused it."""
    path = tmp_path / "bad.onnx"
    path.write_bytes(b"nothing")
    with pytest.raises(ParityError, match=r"ONNX Runtime 1\.\d+.* cannot load bad.onnx"):
        check_parity(lambda c: c, path, _rows([1, 2, 3], [4, 5, 6]))


@pytest.mark.parametrize("axis", [1, 2])
def test_scores_beside_boxes_are_judged_by_their_own_range(tmp_path, axis):
    """Boxes up to 640 and scores up to 1 in one output: scores that are all zero do not agree."""
    shape = "float[n, 6, 20]" if axis == 1 else "float[n, 20, 6]"
    text = f"""<ir_version: 8, opset_import: ["" : 18]> g ({shape} x) => ({shape} y) {{ y = Identity(x) }}"""
    path = tmp_path / "m.onnx"
    onnx.save(onnx.parser.parse_model(text), str(path))
    rng = np.random.default_rng(0)
    boxes, scores = rng.uniform(0, 640, (4, 4, 20)), rng.uniform(0, 0.05, (4, 2, 20))
    out = np.concatenate([boxes, scores], 1).astype(np.float32)
    out = out if axis == 1 else out.transpose(0, 2, 1).copy()
    zeroed = out.copy()
    zeroed[(slice(None), slice(4, 6)) if axis == 1 else (slice(None), slice(None), slice(4, 6))] = 0
    assert np.abs(zeroed - out).max() < 1e-4 * out.max()  # within one tolerance for the whole output
    with pytest.raises(ParityError, match=r"allowed 0\.000638"):
        check_parity(lambda c: (zeroed,), path, [(out,)])
    assert check_parity(lambda c: (out,), path, [(out,)]).max_abs == 0


def test_constant_outputs_and_single_columns_certify_no_decisions(tmp_path):
    """An argmax over one column, or of an output that never moves, agrees whatever the file does."""
    text = """<ir_version: 8, opset_import: ["" : 18]> g (float[n, 3] x) => (float[n, 3] y, float[n, 3] z) {
        y = Identity(x) z = Mul(x, k) }"""
    model = onnx.parser.parse_model(text)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(3, np.float32), "k"))
    path = tmp_path / "m.onnx"
    onnx.save(model, str(path))
    result = check_parity(lambda c: (c[0], 0 * c[0]), path, _rows([1, 2, 3], [3, 2, 1]))
    assert [o.top1_agreement for o in result.outputs] == [1.0, None]


def test_the_board_allows_what_parity_allows_here(tmp_path):
    """The runner compares with the recorded allowance per channel; without one, by the whole output."""
    rng = np.random.default_rng(0)
    out = np.concatenate([rng.uniform(0, 640, (2, 4, 8)), rng.uniform(0, 0.05, (2, 2, 8))], 1)
    zeroed = out.copy()
    zeroed[:, 4:] = 0
    recorded = {"output_0": out, "allowed_0": allowed_gap(out, 1e-4)}
    assert "differs by" in runner.compare([zeroed], recorded, 1e-4)["why"]
    assert runner.compare([out], recorded, 1e-4)["why"] == ""
    assert runner.compare([zeroed], {"output_0": out}, 1e-4)["why"] == ""
    for hostile in (np.inf, np.nan, 1e30):  # a recorded allowance never widens the tolerance
        recorded["allowed_0"] = np.full_like(out, hostile)
        assert "differs by" in runner.compare([out + 1], recorded, 1e-4)["why"]
