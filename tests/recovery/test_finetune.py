"""Fine-tuning keeps the best checkpoint, trains what should train, and gives a graph in evaluation form."""

from __future__ import annotations

import math

import nets
import numpy as np
import pytest
import torch
from cutting import apart, prepared, squared

from edgeprune.data import open_data
from edgeprune.errors import CriterionError
from edgeprune.graph.execution import outputs
from edgeprune.graph.module import state_tensors
from edgeprune.graph.trace import run, trace
from edgeprune.recovery import FineTune, finetune, penultimate, recover_closed_form
from edgeprune.recovery.batchnorm import TRAINING, batch_norms
from edgeprune.recovery.blocks import BlockTraining, train_blocks
from edgeprune.recovery.bottleneck import Observed, noise_scales, penalty, reading_axes, similarity_loss
from edgeprune.surgery.cut import cut
from edgeprune.tasks.registry import resolve_task

N = 96
TASK = resolve_task("classification")


def task(*, labelled=True, momentum=0.1):
    """A small convolutional network, noise for inputs, and the decisions of another network as labels."""
    net, inputs = nets.build("chain", dtype=torch.float32)
    net.bn.momentum = momentum
    other, _ = nets.build("chain", seed=5, dtype=torch.float32)
    x = np.random.default_rng(0).normal(size=(N, *inputs[0].shape[1:])).astype(np.float32)
    with torch.no_grad():
        teacher = 3 * other(torch.from_numpy(x)).numpy()
    data = open_data((x, teacher.argmax(1) if labelled else None))
    return trace(net, inputs), data, teacher


def agreement(data, teacher):
    """Larger is better: minus the squared distance to the teacher on all samples."""
    return lambda graph: -float(((outputs(graph, data, np.arange(N), 32)[0] - teacher) ** 2).mean())


def tuned(traced, data, teacher, **settings):
    """Fine-tuned trace and history."""
    settings = {"epochs": 3, "batch_size": 32, "learning_rate": 5e-3, **settings}
    arguments = (traced, data, np.arange(N), (teacher,), TASK, agreement(data, teacher))
    return finetune(*arguments, FineTune(**settings))


@pytest.mark.parametrize("labelled", [True, False])
def test_training_brings_the_outputs_nearer_to_the_teacher(labelled):
    """Validation rises above the start, and the trace that comes back is the best of the history."""
    traced, data, teacher = task(labelled=labelled)
    found, history = tuned(traced, data, teacher)
    best = max(e.validation for e in history)
    assert best > history[0].validation
    assert agreement(data, teacher)(found.graph) == pytest.approx(best)
    assert [e.epoch for e in history] == [0, 1, 2, 3]
    assert all(math.isfinite(e.loss) for e in history[1:])


def test_a_harmful_training_returns_the_start():
    """With an absurd learning rate the weights that come back are those that went in."""
    traced, data, teacher = task()
    found, history = tuned(traced, data, teacher, learning_rate=30.0)
    assert max(e.validation for e in history[1:]) < history[0].validation
    before = state_tensors(traced.graph)
    for name, tensor in state_tensors(found.graph).items():
        assert torch.equal(tensor.detach(), before[name].detach()), name


def test_only_the_best_checkpoint_comes_back():
    """When validation prefers the first epoch, later epochs leave no trace in the result."""
    traced, data, teacher = task()
    seen = []

    def validate(graph):
        seen.append({n: t.detach().clone() for n, t in state_tensors(graph).items()})
        return {1: 0.0, 2: 1.0}.get(len(seen), -1.0)

    settings = FineTune(epochs=3, batch_size=32)
    found, _ = finetune(traced, data, np.arange(N), (teacher,), TASK, validate, settings)
    for name, tensor in state_tensors(found.graph).items():
        assert torch.equal(tensor.detach(), seen[1][name]), name
    assert any(not torch.equal(seen[1][n], seen[3][n]) for n in seen[1])


def test_what_comes_back_is_in_evaluation_form():
    """Batch norm uses running statistics: one sample gives what it gives within a batch."""
    traced, data, teacher = task()
    found, _ = tuned(traced, data, teacher, epochs=1)
    assert all(n.args[TRAINING] is False for n in batch_norms(found.graph))
    x = torch.from_numpy(data.batch(np.arange(8))[0])
    with torch.no_grad():
        torch.testing.assert_close(run(found.graph, (x[:2],))[0], run(found.graph, (x,))[0][:2])
    assert all(p.grad is None for p in found.graph.parameters())


def test_a_cumulative_batch_norm_learns_its_statistics():
    """momentum=None, exported as 0.0, does not freeze the running statistics while the weights move."""
    traced, data, teacher = task(momentum=None)
    found, history = tuned(traced, data, teacher, norms="training")
    assert max(e.validation for e in history[1:]) > history[0].validation
    before, after = (state_tensors(t.graph)["bn.running_mean"] for t in (traced, found))
    assert not torch.equal(before, after)


def test_the_trace_that_was_given_keeps_its_weights():
    """Training works on a copy."""
    traced, data, teacher = task()
    before = {n: t.detach().clone() for n, t in state_tensors(traced.graph).items()}
    tuned(traced, data, teacher, epochs=1)
    assert all(torch.equal(t.detach(), before[n]) for n, t in state_tensors(traced.graph).items())


def test_no_epochs_do_nothing():
    """The trace comes back as it is, with the start as its history."""
    traced, data, teacher = task()
    found, history = tuned(traced, data, teacher, epochs=0)
    assert found is traced
    assert len(history) == 1


def test_the_same_seed_trains_the_same_weights():
    """Shuffling follows the seed."""
    traced, data, teacher = task()
    first, same, other = (tuned(traced, data, teacher, epochs=1, seed=s)[0] for s in (0, 0, 1))
    a, b, c = (state_tensors(t.graph)["a.weight"] for t in (first, same, other))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def rising():
    """A validation under which every epoch is better than the one before: training alone decides."""
    turns = iter(range(100))
    return lambda graph: float(next(turns))


def test_ib_beta_lowers_the_conditional_entropy_and_not_by_shrinking():
    """At equal noise, a network trained with the penalty has less H(T|Y) than one trained without."""
    traced, data, teacher = task()
    found = {}
    for beta in (0.0, 1.0):
        settings = FineTune(epochs=6, batch_size=48, learning_rate=5e-3, distil=0.0, ib_beta=beta)
        small, history = finetune(traced, data, np.arange(N), (teacher,), TASK, rising(), settings)
        assert all(math.isfinite(e.loss) for e in history[1:])
        inputs = (torch.from_numpy(data.batch(np.arange(N))[0]),)
        axes = reading_axes(traced.graph, inputs)
        watcher = Observed(small.graph, axes)
        with torch.no_grad():
            watcher.outputs(inputs)
            scales = noise_scales(traced.graph, axes, [inputs])
            found[beta] = float(penalty(watcher.seen, torch.from_numpy(data.labels), scales))
    assert found[1.0] < found[0.0] - 0.05


def test_feature_distillation_brings_the_arrangement_nearer():
    """With its weight the student's features arrange the samples more like the teacher's."""
    traced, data, teacher = task()
    other, _ = nets.build("chain", seed=5, dtype=torch.float32)
    example = torch.from_numpy(data.batch(np.arange(2))[0])
    wanted = penultimate(trace(other, (example,)).graph, data, np.arange(N))
    assert wanted.shape == (N, 5)
    far = []
    for weight in (0.0, 300.0):
        settings = FineTune(epochs=6, batch_size=32, learning_rate=5e-3, features=weight)
        small, _ = finetune(
            traced, data, np.arange(N), (teacher,), TASK, rising(), settings,
            teacher_features=wanted,
        )  # fmt: skip
        mine = penultimate(small.graph, data, np.arange(N))
        far.append(float(similarity_loss(torch.from_numpy(mine), torch.from_numpy(wanted))))
    assert far[1] < far[0]


@pytest.mark.parametrize("settings", [{"ib_beta": -0.1}, {"features": -1.0}, {"features": 1.0}])
def test_weights_that_cannot_be_meant_are_refused(settings):
    """Negative weights, and feature distillation without features."""
    traced, data, teacher = task()
    with pytest.raises(CriterionError):
        tuned(traced, data, teacher, **settings)


def test_frozen_norms_keep_the_statistics_that_they_came_with():
    """The default: weights move, running statistics do not, and the history says so."""
    traced, data, teacher = task(labelled=False)
    found, history = tuned(traced, data, teacher, epochs=2)
    before, after = (state_tensors(t.graph) for t in (traced, found))
    assert torch.equal(before["bn.running_mean"], after["bn.running_mean"])
    assert torch.equal(before["bn.running_var"], after["bn.running_var"])
    assert not torch.equal(before["a.weight"], after["a.weight"])
    assert {e.norms for e in history[1:]} == {"frozen"}


def test_a_trial_goes_on_with_the_form_and_rate_that_validate_best():
    """An absurd rate loses to a sensible one; the history is the winner's, epochs counted once."""
    traced, data, teacher = task()
    _, history = tuned(traced, data, teacher, norms="trial", learning_rate=30.0, rates=(5e-3,))
    assert [e.epoch for e in history] == [0, 1, 2, 3]
    assert {(e.norms, e.learning_rate) for e in history[1:]} == {("frozen", 5e-3)}
    alone = tuned(traced, data, teacher)[1]
    assert history[1].validation == pytest.approx(alone[1].validation, rel=1e-4)
    _, history = tuned(traced, data, teacher, learning_rate=30.0, rates=(5e-3,))
    assert history[1].validation == pytest.approx(alone[1].validation, rel=1e-4)
    _, history = tuned(traced, data, teacher, norms="trial", rates=(1e-9,))
    assert {(e.norms, e.learning_rate) for e in history[1:]} == {("training", 5e-3)}


def blocks_case(batches=10):
    """A residual network that lost channels, its closed form, and inputs."""
    net, inputs = nets.build("residual", dtype=torch.float32)
    traced, couplings, calls = prepared(net, *inputs[0].shape[1:], batches=batches + 3, dtype=torch.float32)
    removed = couplings.exact & (np.arange(couplings.count) % 3 == 0)
    small, _ = recover_closed_form(traced, couplings, removed, calls[:batches])
    return traced, couplings, removed, small, calls[:batches], calls[batches:]


def test_blocks_learn_what_the_dense_blocks_put_out():
    """From a bare cut, outputs on fresh inputs come nearer to the dense ones; batch norms stay frozen."""
    traced, couplings, removed, _, calls, fresh = blocks_case()
    bare = cut(traced, couplings, removed)
    trained = train_blocks(traced, bare, couplings, removed, calls, BlockTraining(epochs=20))
    assert squared(traced, trained, fresh) < 0.7 * squared(traced, bare, fresh)
    before, after = (state_tensors(t.graph) for t in (bare, trained))
    running = [n for n in before if "running" in n]
    assert running
    assert all(torch.equal(before[n], after[n]) for n in running)


def test_blocks_that_get_worse_on_held_out_images_keep_their_weights():
    """With an absurd step size every block ends worse, and the network comes back as it was."""
    traced, couplings, removed, small, calls, _ = blocks_case()
    trained = train_blocks(traced, small, couplings, removed, calls, BlockTraining(4, 10.0))
    assert apart(small, trained, calls) == 0


def test_blocks_of_a_network_that_lost_nothing_do_not_move():
    """Nothing to learn, nothing done."""
    traced, couplings, removed, _, calls, _ = blocks_case()
    assert train_blocks(traced, traced, couplings, removed & False, calls, BlockTraining()) is traced
