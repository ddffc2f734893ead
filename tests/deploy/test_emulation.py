"""The real aarch64 onnxruntime under QEMU: parity on three cores, instruction counts, honest refusals."""

import json

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from device_samples import write_cnn
from onnx import numpy_helper

from edgeprune.cli.device import verify
from edgeprune.deploy import emulation
from edgeprune.deploy.emulation import CPUS, core_name, count_instructions
from edgeprune.deploy.remote import Board
from edgeprune.deploy.ssh import Remote
from edgeprune.deploy.verify import (
    is_quantised,
    reference_session,
    verify_emulated,
    verify_for_target,
    verify_on_board,
)
from edgeprune.errors import DeviceError, ParityError
from edgeprune.targets import load_target


@pytest.mark.parametrize("cpu", CPUS)
def test_every_core_agrees_with_this_machine(sandbox, cnn, cpu):
    """On each emulated core the outputs are those of x86 within rounding, and they move with the input."""
    found = verify_emulated(cnn, cpu, count=False)
    assert found.emulated
    assert found.parity.max_abs < 1e-6
    assert found.parity.output_spread > found.parity.atol
    assert found.parity.samples == 4


def test_instructions_follow_the_work_and_repeat(sandbox, tmp_path):
    """Four times the multiplications take two to six times the instructions; a recount agrees to 0.5%."""
    small, large = (write_cnn(tmp_path / f"w{width}.onnx", width) for width in (16, 32))
    counts = [count_instructions(model, "a72").per_inference for model in (small, large, small)]
    assert 2 < counts[1] / counts[0] < 6
    assert abs(counts[2] / counts[0] - 1) < 0.005
    assert counts[0] > 12 * 12 * 16 * 16 * 9 / 8  # no fewer than the multiply-adds, eight lanes at most


def test_a_model_whose_output_stands_still_proves_nothing(sandbox, tmp_path):
    """With a zeroed first layer any comparison would pass, so it is refused."""
    model = onnx.load(write_cnn(tmp_path / "dead.onnx", 4))
    for weight in model.graph.initializer:
        weight.CopyFrom(numpy_helper.from_array(np.zeros_like(numpy_helper.to_array(weight)), weight.name))
    onnx.save(model, tmp_path / "dead.onnx")
    with pytest.raises(ParityError, match=r"emulated cortex-a53.*no output moves"):
        verify_emulated(tmp_path / "dead.onnx", "a53", count=False)


def test_other_outputs_are_a_parity_error(sandbox, cnn, monkeypatch):
    """A core that computed something else would be caught: its answer is shifted on the way here."""
    from edgeprune.deploy import verify as module

    honest = module._arrays
    monkeypatch.setattr(module, "_arrays", lambda reply: tuple(a + 0.01 for a in honest(reply)))
    with pytest.raises(ParityError, match=r"differs from the reference by 0\.01"):
        verify_emulated(cnn, "a72", count=False)


def test_a_file_that_does_not_run_there_is_one_line(sandbox, tmp_path):
    """What onnxruntime refuses is said in its words, with the file's name."""
    model = onnx.load(write_cnn(tmp_path / "odd.onnx", 4))
    model.graph.node[1].op_type = "Nonsense"
    onnx.save(model, tmp_path / "odd.onnx")
    with pytest.raises(DeviceError, match="cannot load it"):
        verify_emulated(tmp_path / "odd.onnx", "a72")


def test_without_a_sandbox_it_says_how_to_get_one(tmp_path, monkeypatch, cnn):
    """verify raises with the command; the check of `compress --target` gives the reason instead."""
    monkeypatch.setenv("EDGEPRUNE_ARM64", str(tmp_path))
    with pytest.raises(DeviceError, match="sandbox is not there") as caught:
        verify_emulated(cnn, "a72")
    assert "make arm64" in caught.value.tip
    said = verify_for_target(cnn, load_target("rpi4"))
    assert "no arm64 sandbox" in said
    assert "not checked on ARM" in verify_for_target(cnn, load_target("x86-avx2"))


def test_the_target_decides_the_core(sandbox, cnn):
    """compress --target rpi4 is checked on a Cortex-A72 by itself."""
    assert verify_for_target(cnn, load_target("rpi4"), count=False).where == "emulated cortex-a72"


def test_core_names():
    """a72, A72 and cortex-a72 are one core; one that was not tried out is refused with the list."""
    assert {core_name(n) for n in ("a72", "A72", "cortex-a72")} == {"cortex-a72"}
    with pytest.raises(DeviceError, match="no emulation of 'cortex-m4'") as caught:
        core_name("cortex-m4")
    assert "cortex-a53" in caught.value.tip


def test_a_quantised_file_is_told_by_its_operators(cnn, tmp_path):
    """Only files with integer kernels get the wider tolerance."""
    assert not is_quantised(cnn)
    model = onnx.load(cnn)
    model.graph.node[1].op_type = "QuantizeLinear"
    onnx.save(model, tmp_path / "q.onnx")
    assert is_quantised(tmp_path / "q.onnx")


def test_the_command_shows_instructions_and_no_time(sandbox, cnn):
    """`verify --emulate` prints agreement and emulated instructions, and JSON with the same."""
    done = CliRunner().invoke(verify, [str(cnn), "--emulate", "a72", "--json"], catch_exceptions=False)
    (found,) = json.loads(done.output)
    assert found["instructions"]["per_inference"] > 1e5
    assert "_ms" not in done.output
    done = CliRunner().invoke(verify, [str(cnn), "--emulate", "a72", "--no-count"], catch_exceptions=False)
    assert "outputs agree within" in done.output


def test_verify_through_the_server_into_aarch64(arm, cnn):
    """`verify --board` compares a board's outputs; this board is emulated and the record says so."""
    with Remote("arm") as remote:
        found = verify_on_board(cnn, Board(remote), samples=2)
    assert found.emulated
    assert found.where == "arm"
    assert 0 < found.parity.max_abs < 1e-6


def test_an_emulator_that_hangs_is_given_up(sandbox):
    """A stuck guest becomes one error."""
    with pytest.raises(DeviceError, match="took more than"):
        emulation.need_sandbox().run("cortex-a72", ["-c", "import time; time.sleep(60)"], limit=3)


def write_saturating(path):
    """A quantised 1x1 convolution whose byte products sum beyond 16 bits: 127 * 255 + 127 * 255."""
    from onnx import TensorProto, helper

    rows = np.full((2, 16, 1, 1), 127, np.int8)
    rows[1, ::2] = -127
    constants = [
        numpy_helper.from_array(np.float32(0.01), "s"),
        numpy_helper.from_array(np.int8(0), "z"),
        numpy_helper.from_array(np.float32(0.2), "t"),
        numpy_helper.from_array(rows, "w"),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["wd"]),
        helper.make_node("Conv", ["xd", "wd"], ["c"]),
        helper.make_node("QuantizeLinear", ["c", "t", "z"], ["cq"]),
        helper.make_node("DequantizeLinear", ["cq", "t", "z"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 16, 2, 2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2, 2, 2])
    graph = helper.make_graph(nodes, "q", [x], [y], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def test_integer_kernels_are_judged_by_the_unoptimised_graph(sandbox, tmp_path):
    """Sums that saturate in x86 byte kernels are right on ARM; the judge knows, and still finds a shift."""
    model = write_saturating(tmp_path / "q.onnx")
    x = np.full((1, 16, 2, 2), 1.2, np.float32) * np.float32([1, 0.9, 0.8, 0.7]).reshape(1, 1, 2, 2)
    found = verify_emulated(model, "a72", samples=4, count=False)
    assert found.parity.max_abs <= 0.2  # one step of the output's grid
    session = reference_session(model)
    (plain,) = session.run(None, {"x": x})
    assert plain.max() == pytest.approx(16 * 1.27 * 1.2, abs=0.2)  # nothing saturates in the reference


def test_a_quantised_file_that_differs_is_refused(sandbox, tmp_path, monkeypatch):
    """More than 5% of the largest output is no rounding."""
    from edgeprune.deploy import verify as module

    model, honest = write_saturating(tmp_path / "q.onnx"), module._arrays
    monkeypatch.setattr(module, "_arrays", lambda reply: tuple(a * 1.5 for a in honest(reply)))
    with pytest.raises(ParityError, match="differs from the reference"):
        verify_emulated(model, "a72", count=False)
