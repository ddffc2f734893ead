"""An ONNX file in 8 bits, judged by the task on data: what `edgeprune quantise` does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeprune.data import Dataset, split
from edgeprune.data.targets import take
from edgeprune.export.quantisation import quantise
from edgeprune.export.quantisation_policy import int8_settings
from edgeprune.measure.host import run_bench
from edgeprune.measure.operators import HostTimer
from edgeprune.measure.request import BenchRequest
from edgeprune.records import BenchResult, QuantiseResult, Target
from edgeprune.session.exporting import file_outputs
from edgeprune.session.progress import Clock
from edgeprune.tasks.choose import choose_task
from edgeprune.tasks.comparison import Loss, compare

FREE_BATCH = 64


@dataclass(frozen=True)
class QuantiseSettings:
    """As the command line has them; max_drop in the task's unit on the validation part."""

    target: Target
    task: Any = None
    metric: str | None = None
    max_drop: float | None = None
    calibration: int = 1024
    validation: float = 0.15
    keep: tuple[str, ...] = ()
    evaluations: int = 16
    sensitivity: bool = False
    write_slower: bool = False
    threads: int = 1
    bench_seconds: float = 5.0
    seed: int = 0


@dataclass(frozen=True)
class QuantisedFile:
    """The 8-bit file, its loss against the float file on the test part, and both files' times.

    bench is None for a target that is not this machine.
    """

    result: QuantiseResult
    loss: Loss
    task_note: str
    bench: BenchResult | None


def quantise_file(
    model: Path, dataset: Dataset, path: Path, settings: QuantiseSettings, *, clock: Clock | None = None
) -> QuantisedFile:
    """Write `path`, an 8-bit form of `model`, and measure it.

    Raises:
        DataError: targets that do not fit the outputs.
        ExportError, ParityError, BudgetError: as `export.quantise`.
    """
    clock = clock or Clock()
    parts = split(
        dataset, seed=settings.seed, calibration=settings.calibration, validation=settings.validation
    )
    with clock.stage("float outputs"):
        dense = {
            part: file_outputs(model, dataset, getattr(parts, part), clock.progress)
            for part in ("calibration", "validation", "test")
        }
    metrics = () if settings.metric is None else (settings.metric,)
    targets = take(dataset.targets, parts.calibration)
    chosen = choose_task(settings.task, metrics, dense["calibration"], targets, dataset.name)
    chosen.task.check(dense["calibration"], dataset.targets, dataset.name)

    def loss(file: Path, part: str) -> Loss:
        indices = getattr(parts, part)
        out = file_outputs(file, dataset, indices, clock.progress)
        groups = dataset.groups_of(indices)
        return compare(chosen.task, out, dense[part], take(dataset.targets, indices), groups=groups)

    def kept(file: Path) -> float:
        """100 less what was lost, which `quantise` maximises."""
        return 100.0 - loss(file, "validation").value

    size = _batch(model, len(parts.calibration))
    starts = range(0, len(parts.calibration) - size + 1, size) or range(1)
    here = settings.target.local
    with clock.stage("quantise"):
        result = quantise(
            model,
            (dataset.batch(parts.calibration[s : s + size]) for s in starts),
            path,
            max_drop=settings.max_drop,
            evaluations=settings.evaluations,
            evaluate=kept,
            keep_float=dict.fromkeys(settings.keep, "kept by --keep"),
            timer=HostTimer(threads=settings.threads, seconds=min(settings.bench_seconds, 3.0))
            if here
            else None,
            sensitivity=settings.sensitivity,
            write_slower=settings.write_slower,
            **int8_settings(settings.target),
        )
    with clock.stage("test"):
        lost = loss(path, "test")
    bench = None
    if here:
        with clock.stage("bench"):
            bench = run_bench(
                BenchRequest((model, path), settings.threads, settings.bench_seconds, seed=settings.seed)
            )
    return QuantisedFile(result, lost, chosen.note, bench)


def _batch(model: Path, samples: int) -> int:
    """The file's fixed batch, else what calibration takes at once."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    fixed = session.get_inputs()[0].shape[0]
    return fixed if isinstance(fixed, int) else min(FREE_BATCH, samples)
