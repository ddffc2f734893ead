"""Accelerators: choosing one, and every room that computes on data with its tensors on a second device."""

from __future__ import annotations

import nets
import numpy as np
import pytest
import torch
from second_device import DEVICE, There, second_device

from edgeprune.calibration.capture import capture
from edgeprune.coupling.analysis import analyse
from edgeprune.data import open_data
from edgeprune.errors import OptionError
from edgeprune.graph.compute import CPU, in_memory, open_compute
from edgeprune.graph.execution import outputs
from edgeprune.graph.trace import trace
from edgeprune.recovery import FineTune, finetune, penultimate, recover_closed_form
from edgeprune.search.ablation import ablated, losses
from edgeprune.tasks.registry import resolve_task

NETS = ("chain", "residual", "lstm", "attention", "depthwise")
TASK = resolve_task("classification")


def prepared(name="chain", samples=70):
    """Trace, couplings and a dataset of noise for a tiny network of classes."""
    net, inputs = nets.build(name, seed=0, dtype=torch.float32)
    traced = trace(net, inputs)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(samples, *inputs[0].shape[1:])).astype(np.float32)
    with torch.no_grad():
        classes = net(torch.from_numpy(x[:2])).shape[1]
    return traced, analyse(traced), open_data((x, rng.integers(0, classes, samples)))


def some_removed(couplings):
    """One component of every group that has several."""
    removed = np.zeros(couplings.count, bool)
    for group in range(len(couplings.group_names)):
        rows = np.flatnonzero(couplings.group == group)
        if len(rows) > 2:
            removed[rows[0]] = True
    return removed


def test_the_second_device_refuses_what_a_gpu_refuses():
    """Tensors of two devices do not meet, NumPy does not see the device, and values come back by .cpu()."""
    with second_device() as compute:
        (x,) = compute.put((torch.arange(3.0),))
        assert isinstance(x, There) and x.device == DEVICE
        with pytest.raises(RuntimeError, match="second device"):
            x + torch.ones(3)
        with pytest.raises(TypeError, match="NumPy"):
            x.numpy()
        assert (x * 2).cpu().tolist() == [0.0, 2.0, 4.0]


@pytest.mark.parametrize("name", NETS)
def test_capture_on_another_device_gives_the_same_statistics(name):
    """All of them equal the CPU's, and none is left on the device."""
    traced, couplings, data = prepared(name)
    here = capture(traced, couplings, data, np.arange(70), task=TASK)
    with second_device() as compute:
        there = capture(traced, couplings, data, np.arange(70), task=TASK, compute=compute)
    np.testing.assert_allclose(there.other_readings, here.other_readings, rtol=1e-5)
    for node, layer in here.layers.items():
        for field in ("mean", "second", "reduced", "taylor", "slopes", "output_std"):
            mine, other = getattr(layer, field), getattr(there.layers[node], field)
            np.testing.assert_allclose(other, mine, rtol=1e-4, atol=1e-6 * np.abs(mine).max(), err_msg=field)


@pytest.mark.parametrize("name", NETS)
def test_closed_form_recovery_on_another_device_gives_the_same_weights(name):
    """And they lie on the CPU, where surgery and export need them."""
    traced, couplings, data = prepared(name)
    removed, batches = some_removed(couplings), [tuple(map(torch.from_numpy, data.batch(np.arange(70))))]
    here, fits = recover_closed_form(traced, couplings, removed, batches)
    with second_device() as compute:
        there, again = recover_closed_form(traced, couplings, removed, batches, compute=compute)
    assert [fit.layer for fit in again] == [fit.layer for fit in fits] != []
    for key, value in here.graph.state_dict().items():
        other = there.graph.state_dict()[key]
        assert not isinstance(other, There)
        torch.testing.assert_close(other, value, rtol=1e-3, atol=1e-4)


def test_measured_removals_and_outputs_on_another_device_are_the_same():
    """Divergences of ablated variants and the outputs that validation reads."""
    traced, couplings, data = prepared()
    found = capture(traced, couplings, data, np.arange(70), task=TASK)
    variant = ablated(traced.graph, couplings, found, some_removed(couplings))
    batches = [tuple(map(torch.from_numpy, data.batch(np.arange(20))))]
    here = losses(traced, [variant], batches, TASK), outputs(traced.graph, data, np.arange(70), 32)
    with second_device() as compute:
        there = (
            losses(traced, [variant], batches, TASK, compute=compute),
            outputs(traced.graph, data, np.arange(70), 32, compute=compute),
        )
    np.testing.assert_allclose(there[0], here[0], rtol=1e-5)
    np.testing.assert_allclose(there[1][0], here[1][0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("extras", [{}, {"ib_beta": 0.1, "features": 0.1}, {"norms": "training"}])
def test_fine_tuning_on_another_device_gives_the_same_network(extras):
    """Also with the entropy penalty, feature distillation and batch norms that learn."""
    traced, _, data = prepared()
    teacher = outputs(traced.graph, data, np.arange(70), 32)
    features = penultimate(traced.graph, data, np.arange(70))
    settings = FineTune(epochs=2, batch_size=32, **extras)

    def tuned(compute):
        def validate(graph):
            return -float(np.square(outputs(graph, data, np.arange(20), 20, compute=compute)[0]).mean())

        return finetune(traced, data, np.arange(70), teacher, TASK, validate, settings,
                        teacher_features=features, compute=compute)  # fmt: skip

    here, history = tuned(CPU)
    with second_device() as compute:
        there, again = tuned(compute)
    np.testing.assert_allclose([e.loss for e in again[1:]], [e.loss for e in history[1:]], rtol=1e-4)
    for key, value in here.graph.state_dict().items():
        torch.testing.assert_close(there.graph.state_dict()[key], value, rtol=1e-3, atol=1e-4)


def test_auto_is_the_cpu_where_torch_reports_no_accelerator():
    """Nothing changes on such a machine."""
    if torch.accelerator.is_available():
        pytest.skip("this machine has an accelerator")
    assert open_compute("auto") == CPU == open_compute("cpu")


@pytest.mark.parametrize(
    ("spec", "words"),
    [("gpu", "not one of auto, cpu"), ("mps:1", "not one of"), ("cuda:x", "not one of"), ("xpu", "reports")],
)
def test_an_accelerator_that_is_not_there_is_refused_in_one_line(spec, words):
    """The message says what was asked and what torch reports."""
    if spec == "xpu" and torch.accelerator.is_available():
        pytest.skip("this machine has an accelerator")
    with pytest.raises(OptionError, match=words) as raised:
        open_compute(spec)
    assert raised.value.message.startswith(f"--accelerator {spec}: ")


def test_out_of_memory_halves_the_batch_and_says_so():
    """Down to what fits; a size of 1 that does not fit is the caller's trouble."""
    tried = []

    def attempt(size):
        tried.append(size)
        if size > 8:
            raise torch.OutOfMemoryError("out of memory")
        return size

    with pytest.warns(UserWarning, match="outputs: the accelerator is out of memory; going on with"):
        assert in_memory(attempt, 32, "outputs") == 8
    assert tried == [32, 16, 8]
    with pytest.raises(torch.OutOfMemoryError), pytest.warns(UserWarning, match="going on with 1"):
        in_memory(lambda size: attempt(9), 2, "outputs")
