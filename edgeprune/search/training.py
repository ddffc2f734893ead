"""Fine-tuning within a round: settings from the options, validation by the task's measure."""

from __future__ import annotations

from torch import fx

from edgeprune.graph.execution import outputs
from edgeprune.graph.trace import Trace
from edgeprune.recovery import FineTune, finetune, penultimate
from edgeprune.recovery.finetune import Epoch
from edgeprune.session.dense import DenseNetwork, RunData
from edgeprune.session.exporting import BATCH
from edgeprune.session.options import Options
from edgeprune.session.progress import Clock


def fine_tune(
    dense: DenseNetwork, data: RunData, pruned: Trace, number: int, options: Options, clock: Clock
) -> tuple[Trace, tuple[Epoch, ...]]:
    """Fine-tune a pruned network with the dense model as teacher; the best epoch on validation is kept."""
    dataset, splits = data.dataset, data.splits

    def validate(graph: fx.GraphModule) -> float:
        return -data.loss(outputs(graph, dataset, splits.validation, BATCH), "validation").value

    settings = FineTune(
        epochs=options.epochs,
        learning_rate=options.learning_rate,
        batch_size=options.batch_size,
        distil=options.distil,
        features=options.features,
        ib_beta=options.ib_beta,
        seed=options.seed + number,
    )
    features = penultimate(dense.trace.graph, dataset, splits.train) if options.features else None
    return finetune(
        pruned,
        dataset,
        splits.train,
        data.dense["train"],
        data.task,
        validate,
        settings,
        teacher_features=features,
        progress=lambda step, steps, loss: clock.progress.step(step, steps, f"loss {loss:.3f}"),
    )
