"""Load a trained model from whatever it was saved as; never run its code unasked.

    model = load_model("net.pt2")
    model = load_model("net.safetensors", factory="nets:build", input_shapes=[(1, 28, 28)])

What the file is follows from its content (sniff). Exported programs are vetted and rebuilt first (vet),
ONNX files are imported (onnx), state dicts load with `weights_only=True`, pickles of whole modules are
read for names but not unpickled, TorchScript is refused. Only `trust_pickle=True` lets a file run code.

Guarantee: the result is in evaluation mode and comes with example inputs of batch 2
(or the program's own, if its batch is fixed).
Elsewhere: the graph that later stages read (trace).
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from edgeprune.errors import ModelError, UnsafeModelError
from edgeprune.frontend.checkpoints import build, fill, tensors_in
from edgeprune.frontend.examples import example_tensors, examples_of_program, fixed_batch_note, require_shapes
from edgeprune.frontend.export_form import use_export_form
from edgeprune.frontend.loaded import LoadedModel, from_module, tensor_bytes
from edgeprune.frontend.onnx.load import load_onnx
from edgeprune.frontend.pickles import load_pickle, read_weights, unpickling_imports
from edgeprune.frontend.sniff import Kind, sniff
from edgeprune.frontend.vet import vet
from edgeprune.importing import make_current_folder_importable
from edgeprune.paths import printable, read_file
from edgeprune.records import INTERFACE_FILE, Interface
from edgeprune.records.schema import read_as

__all__ = ["LoadedModel", "from_module", "load_model"]

Shapes = Sequence[Sequence[int]] | None
Dtypes = Sequence[str | None] | None


def load_model(
    path: str | Path,
    *,
    factory: str | None = None,
    input_shapes: Shapes = None,
    input_dtypes: Dtypes = None,
    trust_pickle: bool = False,
    state: str | None = None,
    dequantise: bool = False,
) -> LoadedModel:
    """Load a model file of any kind.

    Args:
        path: the file.
        factory: `package.module:function` that builds the untrained module, for files with weights only.
        input_shapes: one shape per input, without batch.
        input_dtypes: one name per input ("float32", "int64", …); None means float32.
        trust_pickle: unpickle whole modules and unvetted archives, which runs the code in them.
        state: which of a checkpoint's state dicts to take; None takes the only one, or the averaged one.
        dequantise: turn an ONNX file of 8-bit layers back into floats.

    Raises:
        ModelError: missing, damaged, not a model, or not fitting its factory or input shapes.
        UnsafeModelError: loading it would run code and `trust_pickle` is False.
    """
    source = printable(path)
    content = _read(Path(path).expanduser(), source)
    digest = digest_of(content, state)
    kind = sniff(content, source)
    if kind in ("exported", "exported-legacy"):
        if factory is not None:
            raise ModelError(
                f"{source}: is an exported program, which needs no --model {factory}", tip="leave --model out"
            )
        loaded = _exported(content, kind, source, digest, trust_pickle)
        require_shapes(input_shapes, loaded.example_inputs, source)
        return loaded
    if kind == "onnx":
        if factory is not None:
            raise ModelError(
                f"{source}: is an ONNX file, which needs no --model {factory}", tip="leave --model out"
            )
        where = Path(path).expanduser()
        return load_onnx(content, where, source, digest, input_shapes=input_shapes, dequantise=dequantise)
    if kind == "torchscript":
        raise ModelError(
            f"{source}: is TorchScript, which cannot be pruned or exported from",
            tip="load the original model in Python and save it with torch.export.save, or give its state dict"
            " with --model",
        )
    if kind == "safetensors":
        return _from_state(
            _safetensors(content, source), source, digest, factory, input_shapes, input_dtypes, state
        )
    return _pickled(content, source, digest, factory, input_shapes, input_dtypes, trust_pickle, state)


def digest_of(content: bytes, state: str | None) -> str:
    """sha256 of a file and of the requested state dict's key, because another key is another model."""
    digest = hashlib.sha256(content)
    if state is not None:
        digest.update(f" --state {state}".encode())
    return digest.hexdigest()


def _read(path: Path, source: str) -> bytes:
    if os.path.isdir(path):
        inside = ", ".join(sorted(p.name for p in path.iterdir())[:3])
        raise ModelError(
            f"{source}: is a folder, not a model file", tip=f"it holds {inside}" if inside else ""
        )
    if not os.path.exists(path):
        raise ModelError(f"{source}: no such file")
    return read_file(path, ModelError)


def _exported(content: bytes, kind: Kind, source: str, digest: str, trust: bool) -> LoadedModel:
    extra: dict[str, str] = {}
    notes: tuple[str, ...] = ()
    if trust:
        archive = content
    elif kind == "exported-legacy":
        raise UnsafeModelError(
            f"{source}: was exported by an old torch, whose format is made of pickles",
            tip="export it again with this torch, or use --trust-pickle if you trust where it comes from",
        )
    else:
        vetted = vet(content, source)
        archive, extra, notes = vetted.archive, vetted.extra, vetted.notes
    with _quiet_torch() as said:
        try:
            program = torch.export.load(io.BytesIO(archive), extra_files=extra if trust else None)
        except Exception as exc:
            cause = said[0] if said else exc
            lines = [line for line in str(cause).splitlines() if line.strip()]
            raise ModelError(
                f"{source}: torch cannot load this exported program: {lines[-1] if lines else cause}",
                tip=f"export it again with this torch ({torch.__version__})",
            ) from exc
    inputs = examples_of_program(program, source)
    tensors = [*program.state_dict.values(), *program.constants.values()]
    return LoadedModel(
        kind="exported",
        program=program,
        module=None,
        example_inputs=inputs,
        sha256=digest,
        source=source,
        parameters_bytes=tensor_bytes([t for t in tensors if isinstance(t, torch.Tensor)]),
        notes=notes + fixed_batch_note(inputs, program),
        extra=extra,
        interface=_interface(extra, source),
    )


def _interface(extra: dict[str, str], source: str) -> Interface | None:
    """Names that a program which came from an ONNX file carries with it.

    Raises:
        ModelError: damaged.
    """
    text = extra.get(INTERFACE_FILE)
    if text is None:
        return None
    try:
        plain = json.loads(text)
    except ValueError as exc:
        raise ModelError(f"{source}: its {INTERFACE_FILE} is no JSON", tip="export it again") from exc
    return read_as(Interface, plain, f"{source}: {INTERFACE_FILE}", error=ModelError, tip="export it again")


def _safetensors(content: bytes, source: str) -> dict[str, torch.Tensor]:
    import safetensors.torch

    try:
        return dict(safetensors.torch.load(content))
    except Exception as exc:
        raise ModelError(
            f"{source}: damaged safetensors file: {exc}", tip="copy or download it again"
        ) from exc


def _pickled(
    content: bytes,
    source: str,
    digest: str,
    factory: str | None,
    shapes: Shapes,
    dtypes: Dtypes,
    trust: bool,
    key: str | None,
) -> LoadedModel:
    """A torch.save file: a state dict, a checkpoint around one, or a whole module."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols; what matters raises
            saved: Any = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as exc:
        named = unpickling_imports(content)
        if not named:
            cause = (str(exc) or type(exc).__name__).splitlines()[0]
            raise ModelError(
                f"{source}: truncated or damaged: {cause}",
                tip="copy or download it again",
            ) from exc
        if trust:
            return _trusted(content, source, digest, factory, shapes, dtypes, key)
        if factory is None:
            raise UnsafeModelError(
                f"{source}: holds a pickled {named[0]}; loading it would run the code in it",
                tip=_ways_on(named[0], shapes),
            ) from exc
        saved = read_weights(content, source)
        note = f"read the weights past a pickled {named[0]}; none of its code was run"
        loaded = _from_state(saved, source, digest, factory, shapes, dtypes, key)
        return replace(loaded, notes=(note, *loaded.notes))
    return _from_state(saved, source, digest, factory, shapes, dtypes, key)


def _trusted(
    content: bytes,
    source: str,
    digest: str,
    factory: str | None,
    shapes: Shapes,
    dtypes: Dtypes,
    key: str | None,
) -> LoadedModel:
    """A pickle that may run its code; its classes may lie in the current folder."""
    make_current_folder_importable()
    try:
        saved = load_pickle(content)
    except (ModuleNotFoundError, AttributeError) as exc:
        if factory is not None:  # the class is not needed: the factory builds the network
            return _from_state(read_weights(content, source), source, digest, factory, shapes, dtypes, key)
        if isinstance(exc, AttributeError):
            raise ModelError(f"{source}: unpickling raised {type(exc).__name__}: {exc}") from exc
        raise ModelError(
            f"{source}: unpickling needs the module {exc.name}, which is not importable",
            tip="run from the folder of the code that saved it",
        ) from exc
    except Exception as exc:
        raise ModelError(f"{source}: unpickling raised {type(exc).__name__}: {exc}") from exc
    if isinstance(saved, dict):
        modules = {str(k): v for k, v in saved.items() if isinstance(v, torch.nn.Module)}
        chosen = key if key in modules else "ema" if "ema" in modules and key is None else None
        if chosen is None and len(modules) == 1 and key is None:
            chosen = next(iter(modules))
        saved = modules[chosen] if chosen is not None else saved
        key = None if chosen is not None else key
    if not isinstance(saved, torch.nn.Module):
        return _from_state(saved, source, digest, factory, shapes, dtypes, key)
    if factory is not None:
        return _from_state(saved.state_dict(), source, digest, factory, shapes, dtypes, key)
    return _with_examples(saved, source, digest, shapes, dtypes, ())


def _from_state(
    saved: Any,
    source: str,
    digest: str,
    factory: str | None,
    shapes: Shapes,
    dtypes: Dtypes,
    key: str | None,
) -> LoadedModel:
    state, notes = tensors_in(saved, source, key)
    if factory is None:
        raise ModelError(
            f"{source}: holds weights only ({len(state)} tensors), not the network they belong to",
            tip="add --model package.module:factory and --input-shape, for example --input-shape 3,224,224",
        )
    module = build(factory)
    undone = fill(module, state, source, factory)
    return _with_examples(module, source, digest, shapes, dtypes, (*notes, *undone))


def _with_examples(
    module: torch.nn.Module, source: str, digest: str, shapes: Shapes, dtypes: Dtypes, notes: tuple[str, ...]
) -> LoadedModel:
    if not shapes:
        raise ModelError(
            f"{source}: the shape of the model's input is not known",
            tip="add --input-shape without batch, for example --input-shape 1,28,28",
        )
    module = module.eval()
    notes = (*notes, *use_export_form(module))
    return LoadedModel(
        kind="module",
        program=None,
        module=module,
        example_inputs=example_tensors(shapes, dtypes),
        sha256=digest,
        source=source,
        parameters_bytes=tensor_bytes([*module.parameters(), *module.buffers()]),
        notes=notes,
    )


def _ways_on(name: str, shapes: Shapes) -> str:
    sizes = ", ".join(f"torch.randn(2, {', '.join(map(str, shape))})" for shape in shapes or ())
    return (
        "if you trust where it comes from, add --trust-pickle; or add --model package.module:factory to read"
        f" only the weights; or, where {name} is importable, save it once with torch.export.save("
        f"torch.export.export(model.eval(), ({sizes or 'torch.randn(2, …)'},)), 'model.pt2')"
    )


@contextmanager
def _quiet_torch() -> Iterator[list[BaseException]]:
    """Keep torch.export's loggers off the terminal; yields the exceptions that they were told of."""
    said: list[BaseException] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.exc_info and isinstance(record.exc_info[1], BaseException):
                said.append(record.exc_info[1])

    keep = Keep()
    loggers = [
        logging.getLogger(n) for n in ("torch.export", "torch._export", "torch._export.serde.serialize")
    ]
    before = [(log, log.propagate, log.handlers[:]) for log in loggers]
    for log in loggers:
        log.propagate, log.handlers = False, [keep]
    try:
        yield said
    finally:
        for log, propagate, handlers in before:
            log.propagate, log.handlers = propagate, handlers
