"""simplify and produce: what onnxsim may do, and that nothing it does wrong gets through."""

from __future__ import annotations

import textwrap

import numpy as np
import onnx
import pytest
from onnx_programs import Still, cnn, cnn_file, export, images, reference

from edgeprune.errors import DataError, ParityError
from edgeprune.export import simplification
from edgeprune.export.parity import check_parity
from edgeprune.export.production import produce
from edgeprune.export.simplification import simplify


@pytest.fixture
def foldable(tmp_path):
    """y = x · (2 + 3) with the sum spelled as nodes, and an Identity in the way."""
    text = """<ir_version: 8, opset_import: ["" : 18]> g (float[n, 3] x) => (float[n, 3] y) {
        a = Constant<value_float = 2.0>() b = Constant<value_float = 3.0>()
        c = Add(a, b) d = Identity(x) y = Mul(d, c) }"""
    path = tmp_path / "m.onnx"
    onnx.save(onnx.parser.parse_model(text), str(path))
    return path


@pytest.fixture
def child(tmp_path, monkeypatch):
    """Replace the guarded program by another one, given as source text."""

    def use(source: str) -> None:
        script = tmp_path / "child.py"
        script.write_text(textwrap.dedent(source))
        monkeypatch.setattr(simplification, "CHILD", script)

    return use


def test_constants_are_folded_into_a_candidate_that_still_agrees(foldable):
    """Five nodes become fewer in a second file; the given file keeps its bytes."""
    before = foldable.read_bytes()
    result = simplify(foldable)
    assert result.nodes_before == 5
    assert result.nodes_after is not None
    assert result.nodes_after < 3
    assert result.note == f"simplified: 5 → {result.nodes_after} nodes"
    assert foldable.read_bytes() == before
    x = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    assert check_parity(lambda c: (c[0] * 5,), result.path, [(x,)]).max_abs == 0


def test_a_time_limit_that_passes_keeps_the_file(foldable):
    """Ten milliseconds are not enough to start Python; the record says so and no candidate remains."""
    result = simplify(foldable, timeout_s=0.01)
    assert (result.path, result.nodes_before, result.nodes_after) == (None, 5, None)
    assert result.note == "not simplified: onnxsim took longer than 0.01 s"
    assert [p.name for p in foldable.parent.iterdir()] == ["m.onnx"]


def test_a_memory_limit_that_is_too_small_keeps_the_file(foldable):
    """An address space of 96 MiB cannot hold onnxsim; the note names the limit.

    Which allocation fails first, and whether its library survives that, is chance: it may be a signal.
    """
    result = simplify(foldable, memory_mb=96)
    assert result.path is None
    assert "needed more than 96 MiB" in result.note or "limited to 96 MiB, was ended by SIG" in result.note


def test_any_failure_at_the_memory_limit_is_one_of_memory(foldable, tmp_path, monkeypatch):
    """An extension that raises a nameless error where memory ended is reported as memory."""
    own = tmp_path / "onnxsim.py"
    own.write_text("raise SystemError('error return without exception set')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert "needed more than 40 MiB" in simplify(foldable, memory_mb=40).note
    assert "onnxsim failed: SystemError" in simplify(foldable).note


def test_a_corrupt_file_keeps_the_file(tmp_path):
    """Bytes that are no model give a reason, not an exception."""
    path = tmp_path / "bad.onnx"
    path.write_bytes(b"hello, I am no protobuf")
    result = simplify(path)
    assert result.path is None
    assert "not an ONNX model, or cut short" in result.note
    assert path.read_bytes() == b"hello, I am no protobuf"


def test_a_model_that_onnxsim_refuses_keeps_the_file(tmp_path):
    """A graph that uses an undefined value parses, fails inside onnxsim, and the cause is one line."""
    text = """<ir_version: 8, opset_import: ["" : 18]> g (float[n, 3] x) => (float[n, 3] y) {
        y = Add(x, nowhere) }"""
    path = tmp_path / "m.onnx"
    onnx.save(onnx.parser.parse_model(text), str(path))
    result = simplify(path)
    assert result.path is None
    assert result.note.startswith("not simplified: ")
    assert "\n" not in result.note


def test_external_data_is_left_alone(tmp_path):
    """A model with weights outside its file is skipped with that reason."""
    assert "outside the model file" in simplify(cnn_file(tmp_path, external=True)).note


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ended by SIGSEGV"),
        ("import sys; print('boom', file=sys.stderr); sys.exit(3)", "onnxsim failed: boom"),
        ("print('all is well')", "no readable answer"),
        ("import sys; open(sys.argv[2], 'w').write('x'); print('{\"after\": 1}')", "onnx.checker refused"),
    ],
)
def test_a_process_that_crashes_or_lies_keeps_the_file(foldable, child, source, text):
    """A segmentation fault, an exit code, no answer and a broken result each give their reason."""
    child(source)
    result = simplify(foldable)
    assert result.path is None
    assert text in result.note
    assert not foldable.with_name("m.onnx.simplified").exists()


def test_produce_gives_a_proven_file_and_nothing_else(tmp_path):
    """The folder holds one file; its record carries hash, node counts and parity on every sample."""
    module, program = cnn(dynamic=True)
    artifact = produce(program, reference(module), images(4, 3), tmp_path / "out" / "m.onnx")
    assert [p.name for p in artifact.path.parent.iterdir()] == ["m.onnx"]
    assert artifact.simplified
    assert (artifact.nodes, artifact.nodes_exported) == (5, 5)
    assert artifact.parity is not None
    assert artifact.parity.samples == 4 + 3 + 1  # a dynamic batch is also run on a single sample
    assert artifact.parity.max_abs < artifact.parity.atol


def test_produce_drops_a_simplified_graph_that_computes_something_else(tmp_path, child):
    """A simplifier that doubles one weight passes the checker and fails parity; the plain file ships."""
    child(
        """
        import json, sys
        import onnx
        from onnx import numpy_helper

        model = onnx.load(sys.argv[1])
        for tensor in model.graph.initializer:
            if tensor.name.endswith("weight"):
                tensor.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(tensor), tensor.name))
        onnx.save(model, sys.argv[2])
        print(json.dumps({"after": len(model.graph.node)}))
        """
    )
    module, program = cnn(dynamic=True)
    artifact = produce(program, reference(module), images(4), tmp_path / "m.onnx")
    assert not artifact.simplified
    assert "failed parity" in artifact.note
    assert check_parity(reference(module), artifact.path, images(5)).top1_agreement == 1.0


def test_produce_without_onnxsim_still_ships(tmp_path, child):
    """Where onnxsim cannot be imported the plain file is proven and shipped, with the reason."""
    child("raise ModuleNotFoundError(\"No module named 'onnxsim'\")")
    module, program = cnn(dynamic=True)
    artifact = produce(program, reference(module), images(4), tmp_path / "m.onnx")
    assert not artifact.simplified
    assert artifact.note == "not simplified: onnxsim failed: ModuleNotFoundError: No module named 'onnxsim'"


def test_produce_leaves_the_old_file_when_parity_fails(tmp_path):
    """A reference that disagrees, or an output that does not move, leaves what was there before."""
    path = tmp_path / "m.onnx"
    path.write_bytes(b"before")
    module, program = cnn(dynamic=True)
    with pytest.raises(ParityError, match="differs from the reference"):
        produce(program, lambda c: tuple(y + 1 for y in reference(module)(c)), images(4), path)
    import torch

    still = export(Still(), (torch.randn(2, 4),), dynamic=False)
    calls = [(np.random.default_rng(s).standard_normal((2, 4)).astype(np.float32),) for s in range(2)]
    with pytest.raises(ParityError, match="no output moves"):
        produce(still, reference(Still()), calls, path)
    with pytest.raises(DataError, match="at least two samples"):
        produce(still, reference(Still()), [], path)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_produce_keeps_a_fixed_batch(tmp_path):
    """A program for two images is proven on two images at a time and not on one."""
    module, program = cnn(dynamic=False)
    artifact = produce(program, reference(module), images(2, 2), tmp_path / "m.onnx", simplify_graph=False)
    assert not artifact.dynamic_batch
    assert artifact.parity is not None
    assert artifact.parity.samples == 4
    assert artifact.note == "not simplified: not asked for"


def test_without_onnxsim_the_file_ships_as_exported(foldable, monkeypatch):
    """onnxsim is optional: where it is not installed, the record says how to get it; nothing raises."""
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxsim" else find(name))
    result = simplify(foldable)
    assert result.path is None
    assert result.note == "not simplified: onnxsim is not installed (pip install edgeprune[simplify])"
