"""From a loaded model to the Trace that every stage works on, its batch free where that can be proven."""

from __future__ import annotations

from edgeprune.errors import TraceError
from edgeprune.frontend.load import LoadedModel
from edgeprune.frontend.operators import unlisted_operators
from edgeprune.graph.determinism import require_function
from edgeprune.graph.features import close_features
from edgeprune.graph.free_batch import free_batch
from edgeprune.graph.parts import describe_parts
from edgeprune.graph.trace import Trace, trace, why_fixed
from edgeprune.simplify.hooks import fuse_masks


def open_trace(loaded: LoadedModel) -> tuple[Trace, tuple[str, ...]]:
    """The trace of a loaded model, and what a person should know about it.

    Raises:
        TraceError: torch.export refused the model; which of its parts it would take is said. Or the same
            input does not give the same output.
    """
    try:
        model = loaded.program if loaded.module is None else loaded.module
        traced = trace(model, loaded.example_inputs, loaded.interface)
    except TraceError as error:
        parts = describe_parts(loaded.module, loaded.example_inputs) if loaded.module is not None else None
        if parts is None:
            raise
        raise TraceError(f"{error.message}; {parts.summary}", tip=error.tip + parts.tip) from error
    traced, masks = fuse_masks(close_features(require_function(traced)))
    notes = (*loaded.notes, *_unlisted(traced))
    if masks.keep:
        notes = (*notes, f"masks of {len(masks.keep)} weights were multiplied in, which changed no output")
    freed = None if any(traced.dynamic) else free_batch(traced)
    if freed is None:
        return traced, (*notes, *_fixed(loaded, traced))
    return freed, (*notes, "its batch was made free, which changed no output")


def fixed_batch(traced: Trace) -> int | None:
    """The batch of the first input whose batch is fixed; None where every one is free."""
    return next(
        (len(x) for x, d in zip(traced.inputs, traced.dynamic, strict=True) if not d and x.dim()), None
    )


def _unlisted(traced: Trace) -> tuple[str, ...]:
    """A note where a file of this network could not be read without trust."""
    names = [n.removeprefix("torch.ops.").removesuffix(".default") for n in unlisted_operators(traced.graph)]
    if not names:
        return ()
    return (
        f"it calls {', '.join(names[:3])}, which is not on the list of operators that a file may call: a .pt2"
        " that is written from it is read again with --trust-pickle only",
    )


def _fixed(loaded: LoadedModel, traced: Trace) -> tuple[str, ...]:
    """A note on a batch that stays as the example has it, with torch.export's reason.

    A program that was exported for one batch, and an example of one sample, were noted on loading.
    """
    size = fixed_batch(traced)
    reason = why_fixed(loaded.module, loaded.example_inputs) if size and loaded.module is not None else ""
    return (f"the batch is fixed at {size}, in the files as well: {reason}",) if reason else ()


def require_free_batch(traced: Trace) -> None:
    """Refuse to feed data to a network whose batch is fixed.

    Raises:
        TraceError: with the way to export it again.
    """
    stuck = fixed_batch(traced)
    if stuck is not None:
        raise TraceError(
            f"the model has a fixed batch of {stuck} in its graph, and data comes in batches",
            tip="export it again with torch.export.export(..., dynamic_shapes=({0: torch.export.Dim('batch',"
            " min=2)},)), without reshapes that hold the batch size",
        )
