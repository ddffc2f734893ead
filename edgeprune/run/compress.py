"""`compress_loaded`: a model and data in, the smaller ONNX file with its proof out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeprune.criteria.registry import check_theta, needs_data
from edgeprune.data import Dataset
from edgeprune.deploy.remote import Device
from edgeprune.errors import BenchError, BudgetError, DataError
from edgeprune.frontend.load import LoadedModel
from edgeprune.graph.features import drop_identity_selections
from edgeprune.graph.trace import save
from edgeprune.latency import read_profile
from edgeprune.pareto.proof import prove
from edgeprune.pareto.select_artifact import select_artifact
from edgeprune.records import to_json
from edgeprune.report import validate_report, write_html
from edgeprune.report.removals import removed_channels
from edgeprune.report.summary import report, versions
from edgeprune.run.prepare import prepare
from edgeprune.search.goals import goals_of
from edgeprune.search.search import search
from edgeprune.session.measurement_target import open_measurement_target
from edgeprune.session.options import Clock, Options, Progress
from edgeprune.store import RunFolder, sha256_file, write_json
from edgeprune.surgery.recipe import recipe


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
    loaded: LoadedModel,
    dataset: Dataset | None,
    output: Path,
    options: Options,
    *,
    evaluation: Mapping[str, Dataset] | None = None,
    progress: Progress | None = None,
    force: bool = False,
    device: Device | None = None,
) -> Result:
    """Run the whole pipeline in `output`; a killed run resumes from its records.

    Raises:
        CriterionError, TargetError: an unknown name.
        DataError: no data, and a criterion or budget that needs some.
        BudgetError: the budget cannot be met. When it is measured on the shipped file that it
            was missed, the result and its report are written first.
        Other EdgepruneErrors as the stages raise them.
    """
    _need_data(dataset, options)
    check_theta(options.criterion, options.theta)
    board = open_measurement_target(options, device)
    request = {
        "model": loaded.sha256,
        "data": None if dataset is None else dataset.sha256,
        "evaluation": {name: d.sha256 for name, d in (evaluation or {}).items()},
        "options": options,
        "profile": _profile(options),
        "device": None if device is None else device.remote.destination,
        "versions": versions(),
    }
    folder = RunFolder(output, request, force=force)
    clock = Clock(progress or Progress())
    done = folder.load("report")
    if done is not None:
        clock.progress.note(f"{output}: finished before; --force starts over")
        _keep_to(done, output)
        return Result(output, done)
    try:
        prepared = prepare(loaded, dataset, evaluation or {}, options, folder, clock, board)
        goals = goals_of(prepared, options.budget)
    except (BenchError, BudgetError):
        folder.abandon(refused=True)  # no other request could use what was prepared for this one
        raise
    except BaseException:
        folder.abandon()  # a request that was refused leaves no folder that would refuse the next
        raise
    first, final, tried = search(prepared, goals, options, folder, clock)
    choice = select_artifact(prepared, first, final, tried, options, folder, clock, board)
    with clock.stage("save"):
        save(drop_identity_selections(choice.final.trace), output / "model.pt2")
        write_json(output / "recipe.json", recipe(prepared.trace, prepared.couplings, choice.final.removed))
        write_json(output / "removed.json", removed_channels(prepared, choice.final, choice.tried, folder))
    made = prove(prepared, choice, options, folder, clock, board)
    content = to_json(report(loaded, prepared, choice, made, options, clock))
    validate_report(content)
    write_html(content, output / "report.html")
    folder.save("report", content, files=("model.onnx", "model.pt2", "recipe.json", "removed.json"))
    _keep_to(content, output)
    return Result(output, content)


def _profile(options: Options) -> str | None:
    """Identity of the profile to plan with; a damaged one is refused before anything is read."""
    if options.profile is None:
        return None
    read_profile(Path(options.profile))
    return sha256_file(Path(options.profile))


def _keep_to(report: Mapping[str, Any], output: Path) -> None:
    """Raise BudgetError where the report says that a budget was missed; the result is there all the same."""
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
