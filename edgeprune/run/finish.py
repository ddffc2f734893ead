"""`finish`: a pruned network that was trained elsewhere becomes a proven ONNX file.

    edgeprune compress ... -o run; train run/model.pt2 (or your own narrower class) in your framework;
    edgeprune finish run trained.pt --data ...

The trained weights go into the run's pruned network by name. The file is exported, proven against it,
judged against the dense model by the task, and timed beside the dense file. It is written as a folder of
its own that ships like a run; the run stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from edgeprune.data import Dataset, split
from edgeprune.data.targets import take
from edgeprune.errors import RunError
from edgeprune.frontend.load import load_model
from edgeprune.frontend.weights import read_state_dict
from edgeprune.graph.trace import Trace, save, trace
from edgeprune.measure.host import run_bench
from edgeprune.measure.request import BenchRequest
from edgeprune.pareto.pick import recorded_outputs
from edgeprune.records import BenchResult, OnnxArtifact
from edgeprune.session.exporting import export_trace, file_outputs, parity_inputs
from edgeprune.session.options import Options
from edgeprune.session.progress import Clock
from edgeprune.session.user_training import fill_checked
from edgeprune.store import read_record, whole_folder, write_json, write_npz
from edgeprune.tasks.choose import choose_task
from edgeprune.tasks.comparison import Loss, compare


@dataclass(frozen=True)
class Finished:
    """The file that was made of trained weights.

    validation, test: loss against the dense model, None without data. bench: dense and finished file.
    """

    folder: Path
    artifact: OnnxArtifact
    bench: BenchResult
    validation: Loss | None = None
    test: Loss | None = None
    notes: tuple[str, ...] = ()

    @property
    def onnx(self) -> Path:
        """The file to ship."""
        return self.folder / "model.onnx"


def finish_run(
    run: Path,
    trained: Path | dict[str, torch.Tensor],
    dataset: Dataset | None,
    folder: Path,
    options: Options,
    *,
    clock: Clock | None = None,
) -> Finished:
    """Write `folder` with model.onnx of the trained weights, and measure it against the run's dense file.

    Args:
        trained: a checkpoint, or a state dict, with the names and shapes of the run's pruned network.

    Raises:
        RunError: no finished run. ModelError: weights of another architecture, or not finite.
        DataError: targets that the task or the model cannot have.
        ParityError: the file does not compute what the network computes.
    """
    clock = clock or Clock()
    for name in ("model.pt2", "dense.onnx", "golden.npz", "preprocess.json"):
        if not (run / name).is_file():
            raise RunError(f"{run}: has no {name}", tip="give the folder that `edgeprune compress` wrote")
    with clock.stage("load"):
        network, notes = _trained(run, trained)
    with whole_folder(folder) as temporary:
        with clock.stage("export"):
            calls = parity_inputs(network, dataset, None, fixed_batch=options.fixed_batch, seed=options.seed)
            artifact = export_trace(
                network, calls, temporary / "model.onnx", opset=options.opset,
                fixed_batch=options.fixed_batch,
            )  # fmt: skip
        save(network, temporary / "model.pt2")
        losses = _losses(run, temporary, dataset, options, clock)
        with clock.stage("bench"):
            files = (run / "dense.onnx", temporary / "model.onnx")
            bench = run_bench(
                BenchRequest(files, options.threads or 1, options.bench_seconds, seed=options.seed)
            )
        write_npz(temporary / "golden.npz", recorded_outputs(run / "golden.npz", temporary / "model.onnx"))
        write_json(temporary / "preprocess.json", read_record(run / "preprocess.json"))
        record = {"run": str(run.resolve().name), "artifact": artifact, "bench": bench, **losses}
        write_json(temporary / "finish.json", {**record, "notes": notes})
    return Finished(folder, artifact, bench, losses["validation"], losses["test"], notes)


def _trained(run: Path, trained: Path | dict[str, torch.Tensor]) -> tuple[Trace, tuple[str, ...]]:
    """The run's pruned network with the trained weights."""
    loaded = load_model(run / "model.pt2")
    network = trace(loaded.program, interface=loaded.interface)
    if isinstance(trained, dict):
        state, source = trained, "the state dict"
        notes: tuple[str, ...] = ()
    else:
        state, notes = read_state_dict(trained)
        source = str(trained)
    graph = network.graph
    if state and not set(graph.state_dict()) & set(state):
        state = _without_prefix(state)
    fill_checked(graph, state, source)
    return replace(network, graph=graph), notes


def _without_prefix(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Names without a first part that all of them share, as a wrapper module gives it."""
    heads = {name.partition(".")[0] for name in state}
    if len(heads) != 1:
        return state
    return {name.partition(".")[2]: value for name, value in state.items()}


def _losses(
    run: Path, folder: Path, dataset: Dataset | None, options: Options, clock: Clock
) -> dict[str, Loss | None]:
    """Loss of the finished file against the dense one on the validation and test parts."""
    losses: dict[str, Loss | None] = {"validation": None, "test": None}
    if dataset is None:
        return losses
    parts = split(dataset, seed=options.seed, calibration=options.calibration, validation=options.validation)
    for part in losses:
        indices: Any = getattr(parts, part)
        with clock.stage(part):
            dense = file_outputs(run / "dense.onnx", dataset, indices, clock.progress)
            out = file_outputs(folder / "model.onnx", dataset, indices, clock.progress)
        targets = take(dataset.targets, indices)
        chosen = choose_task(options.task, options.metrics, dense, targets, dataset.name)
        chosen.task.check(dense, targets, dataset.name, varied=False)
        groups = dataset.groups_of(indices)
        losses[part] = compare(chosen.task, out, dense, targets, level=0.8, groups=groups)
    return losses
