"""`compress`: a model and data in, the smaller ONNX file with its proof out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeprune.criteria.registry import check_theta, needs_data
from edgeprune.data import Dataset
from edgeprune.deploy.remote import Board
from edgeprune.errors import BenchError, BudgetError, DataError, RankError
from edgeprune.frontend.load import LoadedModel
from edgeprune.graph.compute import open_compute
from edgeprune.graph.features import drop_identity_selections
from edgeprune.graph.trace import save
from edgeprune.latency import read_profile
from edgeprune.masks import Mask
from edgeprune.pareto.proof import prove
from edgeprune.pareto.select_artifact import select_artifact
from edgeprune.records import to_json
from edgeprune.report import validate_report, write_html
from edgeprune.report.removals import removed_channels
from edgeprune.report.summary import report, versions
from edgeprune.run.prepare import prepare
from edgeprune.search.goals import goals_of
from edgeprune.search.search import search
from edgeprune.session.context import RunContext
from edgeprune.session.identity import function_identity, object_identity
from edgeprune.session.measurement_target import open_measurement_target
from edgeprune.session.options import Options
from edgeprune.session.progress import Clock, Progress
from edgeprune.session.user_training import TrainFunction
from edgeprune.store import RunFolder, sha256_file, write_json
from edgeprune.surgery.recipe import recipe


@dataclass(frozen=True)
class Request:
    """What one `compress` works on. further: sets that are reported beside the test part.

    mask: zeros that the model is known to bear; components then go by its evidence.
    """

    loaded: LoadedModel
    dataset: Dataset | None
    options: Options
    further: Mapping[str, Dataset]
    mask: Mask | None = None
    board: Board | None = None
    train: TrainFunction | None = None

    def identity(self) -> dict[str, Any]:
        """What decides the result; a run folder belongs to one identity."""
        masked = None if self.mask is None else self.mask.sha256()
        return {
            "model": self.loaded.sha256,
            "data": None if self.dataset is None else self.dataset.sha256,
            "evaluation": {name: d.sha256 for name, d in self.further.items()},
            "options": {
                **to_json(replace(self.options, task=None)),
                "task": object_identity(self.options.task),
            },
            "mask": masked,
            "train": function_identity(self.train),
            "profile": _profile_identity(self.options),
            "board": None if self.board is None else self.board.remote.destination,
            "versions": versions(),
        }


@dataclass(frozen=True)
class Result:
    """Where the run folder is, and the content of its report.json."""

    folder: Path
    report: dict[str, Any]

    @property
    def onnx(self) -> Path:
        """The file to ship."""
        return self.folder / "model.onnx"


def compress_loaded(
    request: Request, output: Path, *, progress: Progress | None = None, force: bool = False
) -> Result:
    """Run the whole pipeline in `output`; a killed run resumes from its records.

    Raises:
        CriterionError, TargetError: an unknown name.
        DataError: no data, and a criterion or budget that needs some.
        BudgetError: the budget cannot be met. If the shipped file was measured to miss it, the result
            and its report are written first.
        Other EdgepruneErrors as the stages raise them.
    """
    options = request.options
    _need_data(request.dataset, options)
    check_theta(options.criterion, options.theta)
    if open_compute(options.accelerator).ranks.size > 1:
        raise RankError(
            "compress runs in one process; several ranks would write into one run folder",
            tip="start it without torchrun; captures and outputs can be shared from Python",
        )
    target = open_measurement_target(options, request.board)
    folder = RunFolder(output, request.identity(), force=force)
    run = RunContext(options, folder, Clock(progress), target, request.train)
    done = folder.load("report")
    if done is not None:
        run.progress.note(f"{output}: finished before; --force starts over")
        _raise_if_missed(done, output)
        return Result(output, done)
    content = to_json(_run(request, run))
    validate_report(content)
    write_html(content, output / "report.html")
    folder.save("report", content, files=("model.onnx", "model.pt2", "recipe.json", "removed.json"))
    _raise_if_missed(content, output)
    return Result(output, content)


def _run(request: Request, run: RunContext) -> Any:
    """All stages, down to the report's content."""
    try:
        dense = prepare(request.loaded, request.dataset, request.further, run)
        goals = goals_of(dense, run.options.budget)
    except (BenchError, BudgetError):
        run.folder.abandon(refused=True)  # no other request could use what was prepared for this one
        raise
    except BaseException:
        run.folder.abandon()  # a refused request leaves no folder that would refuse the next
        raise
    result = search(dense, goals, run, mask=request.mask)
    selection = select_artifact(dense, result, run)
    with run.clock.stage("save"):
        path, final = run.folder.path, selection.final
        save(drop_identity_selections(final.trace), path / "model.pt2")
        write_json(path / "recipe.json", recipe(dense.trace, dense.couplings, final.removed))
        removed = removed_channels(dense.couplings, final, selection.tried, run)
        write_json(path / "removed.json", removed)
    proof = prove(dense, selection, run)
    return report(request.loaded, dense, selection, proof, run, removed)


def with_defaults(options: Options) -> Options:
    """--max-drop 1 if no budget was given."""
    budget = options.budget
    if budget.max_drop is None and not budget.sized:
        return replace(options, budget=replace(budget, max_drop=1.0))
    return options


def _profile_identity(options: Options) -> str | None:
    """Identity of the profile to plan with; a damaged one is refused before anything is read."""
    if options.profile is None:
        return None
    read_profile(Path(options.profile))
    return sha256_file(Path(options.profile))


def _raise_if_missed(report: Mapping[str, Any], output: Path) -> None:
    """Raise BudgetError if the report says that a budget was missed; the result is there all the same."""
    if report.get("missed"):
        raise BudgetError(
            f"{'; '.join(report['missed'])}; the network was written to {output}",
            tip="allow more, or give more --epochs or --rounds",
        )


def _need_data(dataset: Dataset | None, options: Options) -> None:
    if dataset is not None:
        return
    if needs_data(options.criterion) or not options.budget.sized:
        raise DataError(
            f"no data: --criterion {options.criterion} with {options.budget.asked()} needs some",
            tip="give --data, or prune by weights alone with --criterion l2 --macs 0.5",
        )
