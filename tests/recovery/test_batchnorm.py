"""Recalibration gives the pooled statistics; nothing else changes."""

from __future__ import annotations

import nets
import torch
from cutting import prepared

from edgeprune.graph.module import state_tensors
from edgeprune.graph.trace import run
from edgeprune.recovery import recalibrate
from edgeprune.recovery.batchnorm import MOMENTUM, TRAINING, batch_norms, set_training


def chain(**kw):
    net, inputs = nets.build("chain")
    return net, *prepared(net, *inputs[0].shape[1:], **kw)


def test_running_statistics_are_those_of_all_batches_pooled():
    """mean and (unbiased) variance equal NumPy's over every batch, a short last one included."""
    net, traced, _, inputs = chain()
    inputs.append((inputs[0][0][:5] * 3 + 1,))
    state = state_tensors(recalibrate(traced, inputs).graph)
    with torch.no_grad():
        seen = torch.cat([net.a(x) for (x,) in inputs]).movedim(1, -1).reshape(-1, 6)
    torch.testing.assert_close(state["bn.running_mean"], seen.mean(0))
    torch.testing.assert_close(state["bn.running_var"], seen.var(0))


def test_evaluation_form_and_momentum_come_back():
    """The result normalises by its running statistics, and each node keeps its momentum."""
    _, traced, _, inputs = chain()
    before = [n.args[MOMENTUM] for n in batch_norms(traced.graph)]
    found = recalibrate(traced, inputs)
    nodes = batch_norms(found.graph)
    assert [n.args[MOMENTUM] for n in nodes] == before
    assert all(n.args[TRAINING] is False for n in nodes)
    with torch.no_grad():
        alone, together = run(found.graph, (inputs[0][0][:2],))[0], run(found.graph, inputs[0])[0][:2]
    torch.testing.assert_close(alone, together)


def test_the_trace_that_was_given_keeps_its_statistics():
    """Recalibration works on a copy."""
    _, traced, _, inputs = chain()
    before = state_tensors(traced.graph)["bn.running_mean"].clone()
    recalibrate(traced, inputs)
    assert torch.equal(state_tensors(traced.graph)["bn.running_mean"], before)


def test_a_network_without_batch_norm_comes_back_as_it_is():
    """Nothing to recalibrate, nothing copied."""
    net, inputs = nets.build("mlp")
    traced, _, batches = prepared(net, *inputs[0].shape[1:])
    assert recalibrate(traced, batches) is traced


def test_a_cumulative_average_trains_with_a_momentum():
    """momentum=None exports as 0.0, which would freeze the statistics: training uses 0.1."""
    net, inputs = nets.build("chain")
    net.bn.momentum = None
    traced, _, batches = prepared(net, *inputs[0].shape[1:])
    graph = traced.copy()
    set_training(graph, True)
    before = state_tensors(graph)["bn.running_mean"].clone()
    with torch.no_grad():
        run(graph, batches[0])
    assert not torch.equal(state_tensors(graph)["bn.running_mean"], before)
