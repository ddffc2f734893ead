"""Fine-tuning within a round: settings from the options, epochs chosen on held-out training samples.

The validation part judges networks against the budget; choosing an epoch by it too would make that judgement
too kind. So a tenth of the training samples is held out of fine-tuning and chooses the epoch.
"""

from __future__ import annotations

import numpy as np
from torch import fx

from edgeprune.data.targets import take
from edgeprune.graph.compute import open_compute
from edgeprune.graph.execution import outputs
from edgeprune.graph.trace import Trace
from edgeprune.recovery import FineTune, finetune, penultimate
from edgeprune.recovery.finetune import Epoch
from edgeprune.session.dense import DenseNetwork, RunData
from edgeprune.session.exporting import BATCH
from edgeprune.session.options import Options
from edgeprune.session.progress import Clock
from edgeprune.tasks.comparison import compare

HELD_SHARE, HELD_MOST, HELD_LEAST = 0.1, 1024, 16  # of the training samples, for the choice of the epoch

GENTLER = 8  # the second learning rate that is tried: weights that were trained for long want small steps


def fine_tune(
    dense: DenseNetwork, data: RunData, pruned: Trace, number: int, options: Options, clock: Clock
) -> tuple[Trace, tuple[Epoch, ...]]:
    """Fine-tune a pruned network with the dense model as teacher; the best epoch is kept."""
    compute = open_compute(options.accelerator)
    dataset, train, teacher = data.dataset, data.splits.train, data.dense["train"]
    order = np.random.default_rng(options.seed + number).permutation(len(train))
    held = order[: min(max(round(HELD_SHARE * len(train)), HELD_LEAST), HELD_MOST, len(train) // 2)]
    rest = np.setdiff1d(np.arange(len(train)), held)
    targets, dense_held = take(dataset.targets, train[held]), tuple(x[held] for x in teacher)

    def validate(graph: fx.GraphModule) -> float:
        out = outputs(graph, dataset, train[held], BATCH, compute=compute)
        return -compare(data.task, out, dense_held, targets).value

    settings = FineTune(
        norms="frozen" if dataset.targets is None else "trial",
        rates=(options.learning_rate / GENTLER,),
        epochs=options.epochs,
        learning_rate=options.learning_rate,
        batch_size=options.batch_size,
        distil=options.distil,
        features=options.features,
        ib_beta=options.ib_beta,
        seed=options.seed + number,
    )
    features = penultimate(dense.trace.graph, dataset, train[rest]) if options.features else None
    return finetune(
        pruned,
        dataset,
        train[rest],
        tuple(x[rest] for x in teacher),
        data.task,
        validate,
        settings,
        teacher_features=features,
        compute=compute,
        progress=lambda step, steps, loss: clock.progress.step(step, steps, f"loss {loss:.3f}"),
    )
