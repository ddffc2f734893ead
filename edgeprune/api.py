"""`edgeprune.compress` from Python: a module, program or file and data in, the run's Result out.

    result = edgeprune.compress(model, (x, y), max_drop=0.5)
    print(result.onnx, result.report["latency"]["ratio"])

The caller's module stays as it is. Everything is written to one run folder; calling again
with the same model, data and options returns at once.
Elsewhere: what happens in between (pipeline), the command line (cli).
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import torch

from edgeprune.data import open_data
from edgeprune.deploy.remote import Board
from edgeprune.deploy.ssh import Remote
from edgeprune.errors import BudgetError, DataError, ModelError
from edgeprune.frontend.examples import examples_of_program, fixed_batch_note
from edgeprune.frontend.load import LoadedModel
from edgeprune.frontend.loaded import from_module, tensor_bytes
from edgeprune.masks import Mask, fuse_pruned
from edgeprune.run.compress import Request, Result, compress_loaded, with_defaults
from edgeprune.run.torch_prune_compat import NOTE, has_prune_masks, load_with_prune_masks
from edgeprune.session.budget import Budget, parse_share
from edgeprune.session.options import Options
from edgeprune.session.progress import Progress

Examples: TypeAlias = torch.Tensor | Sequence[torch.Tensor]


def compress(
    model: torch.nn.Module | torch.export.ExportedProgram | str | Path,
    data: Any = None,
    *,
    example_inputs: Examples | None = None,
    output: str | Path | None = None,
    max_drop: float | None = None,
    macs: float | str | None = None,
    params: float | str | None = None,
    target_ms: float | None = None,
    speedup: float | None = None,
    deadline_ms: float | None = None,
    size_mb: float | None = None,
    criterion: str = "ib-gauss",
    metrics: Sequence[str] = (),
    eval_data: Mapping[str, Any] | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    factory: str | None = None,
    input_shapes: Sequence[Sequence[int]] | None = None,
    trust_pickle: bool = False,
    task: Any = None,
    mask: Mask | None = None,
    board: str | Board | None = None,
    train: Callable[[Any, Any, Any], Any] | None = None,
    progress: Progress | None = None,
    force: bool = False,
    **settings: Any,
) -> Result:
    """Compress a trained model and write the ONNX file with its proof.

    Args:
        model: a module, an exported program, or a file that `edgeprune compress` takes.
        data: anything that `edgeprune.data.open_data` takes: a path, (x, y) arrays or tensors, a
            mapping with x and y, an indexable dataset. None only with criterion l2 or random.
        example_inputs: one tensor or several with a batch of at least 2; a module without them
            is traced on the first samples of the data.
        output: the run folder, by default NAME-edgeprune in the current one.
        max_drop: points of accuracy that may be lost; 1 where no other budget is given.
        macs, params: share kept (0.5) or factor ("3x").
        target_ms, deadline_ms: median and 99th percentile of the latency on the target, ms.
        speedup: dense latency over the result's.
        size_mb: the ONNX file, MB (10⁶ bytes).
        task: what the outputs mean: a name ("detection") or an object with the methods of
            `edgeprune.tasks.base.Task`; None infers it from outputs and targets, and the report says so.
        mask: an unstructured mask; components then go by its evidence.
        train: your own training loop, called in each round as train(pruned, dense, data) instead of the
            built-in fine-tuning; see `edgeprune.session.user_training`.
        board: the machine to measure on, as for ssh ("pi@raspberrypi"); None is this machine.
        metrics: names or "module:function"; the first decides.
        settings: further fields of `edgeprune.pipeline.Options` (rounds, epochs, seed, …).

    Raises:
        EdgepruneError: as the command line would print it; `BudgetError` when the budget cannot be met.
        TypeError: a setting that does not exist.
    """
    shares = {"macs": _share(macs, "macs"), "params": _share(params, "params")}
    budget = Budget(max_drop, **shares, target_ms=target_ms, speedup=speedup,
                    deadline_ms=deadline_ms, size_mb=size_mb)  # fmt: skip
    statistics = {"mean": mean, "std": std}
    if isinstance(model, str | Path):
        loaded, hooks = load_with_prune_masks(
            model, factory=factory, input_shapes=input_shapes, trust_pickle=trust_pickle
        )
        name = Path(model).stem
    else:
        loaded, hooks, name = _from_memory(model, data, example_inputs, statistics)
    shapes = [tuple(x.shape[1:]) for x in loaded.example_inputs]
    dataset = None if data is None else open_data(data, input_shapes=shapes, **statistics)
    further = {k: open_data(v, input_shapes=shapes, **statistics) for k, v in (eval_data or {}).items()}
    options = Options(budget=budget, task=task, criterion=criterion, metrics=tuple(metrics), **settings)
    folder = Path(output or f"{name}-edgeprune")
    with contextlib.ExitStack() as stack:
        at = Board(stack.enter_context(Remote(board))) if isinstance(board, str) else board
        request = Request(loaded, dataset, with_defaults(options), further, mask or hooks, at, train)
        return compress_loaded(request, folder, progress=progress, force=force)


def _from_memory(
    model: Any, data: Any, example_inputs: Examples | None, statistics: dict[str, Any]
) -> tuple[LoadedModel, Mask | None, str]:
    if isinstance(model, torch.export.ExportedProgram):
        return _from_program(model), None, "model"
    if not isinstance(model, torch.nn.Module):
        raise ModelError(
            f"cannot compress a {type(model).__name__}",
            tip="give a torch.nn.Module, an exported program or the path of a model file",
        )
    if example_inputs is None:
        if data is None:
            raise DataError(
                f"{type(model).__name__}: without data its inputs are not known", tip="give example_inputs"
            )
        dataset = open_data(data, **statistics)
        # Two samples: a batch of 1 would be fixed by torch.export.
        example_inputs = tuple(torch.from_numpy(x) for x in dataset.batch([0, min(1, len(dataset) - 1)]))
    name = type(model).__name__
    if not has_prune_masks(model.state_dict()):
        return from_module(model, example_inputs), None, name
    plain, mask = fuse_pruned(model)
    loaded = from_module(plain, example_inputs)
    return replace(loaded, notes=(*loaded.notes, NOTE)), mask, name


def _from_program(program: torch.export.ExportedProgram) -> LoadedModel:
    inputs = examples_of_program(program, "the program")
    digest = hashlib.sha256(str(program.graph).encode())
    tensors = {**program.state_dict, **program.constants}
    held = {k: t for k, t in tensors.items() if isinstance(t, torch.Tensor)}
    for name, tensor in held.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return LoadedModel(
        kind="exported",
        program=program,
        module=None,
        example_inputs=inputs,
        sha256=digest.hexdigest(),
        source="exported program",
        parameters_bytes=tensor_bytes(list(held.values())),
        notes=fixed_batch_note(inputs, program),
    )


def _share(value: float | str | None, name: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise BudgetError(f"{name}={value!r}: not a share", tip='give the share kept, as 0.5, or "3x"')
    return parse_share(str(value), name)
