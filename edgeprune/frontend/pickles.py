"""Read pickles without running them.

`unpickling_imports` walks the opcodes and names the classes that a load would import.
`read_weights` unpickles with every unknown class replaced by an inert stand-in, so that
the tensors of a whole pickled module can be read while its own code stays untouched.
"""

from __future__ import annotations

import collections
import functools
import io
import pickle
import pickletools
import warnings
import zipfile
from typing import Any

import torch

from edgeprune.errors import ModelError
from edgeprune.frontend.sniff import LEGACY_MAGIC, UNREADABLE_ZIP, require_stored

PLUMBING = ("collections", "copyreg", "copy_reg", "builtins", "__builtin__", "torch._utils", "torch.storage")
WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "weights", "params")
REBUILDERS: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
    ("torch.storage", "_load_from_bytes"): lambda body: _load_nested(body),
    ("_codecs", "encode"): lambda text, _: text.encode("latin-1"),  # how protocol 2 writes bytes
    ("torch", "Size"): torch.Size,
    ("torch", "device"): torch.device,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
}


def unpickling_imports(content: bytes) -> list[str]:
    """The classes and functions that unpickling would import, in order, without the usual plumbing.

    Args:
        content: a torch.save archive, or one or several plain pickles in a row.

    Returns:
        dotted names; the first is the class of the saved object when that is not a container.
    """
    names: list[str] = []
    for body in _bodies(content):
        for name in _globals(body):
            module = name.rpartition(".")[0]
            if module not in PLUMBING and not _is_storage(name) and name not in names:
                names.append(name)
    return names


def read_weights(content: bytes, source: str) -> dict[str, Any]:
    """Tensors by name out of a pickled module, or a checkpoint's dictionary, running none of its code.

    Raises:
        ModelError: damaged, or no module was found in it.
    """
    try:
        root = load_pickle(content, _Inert)
    except Exception as exc:
        raise ModelError(f"{source}: its weights cannot be read from the pickle: {exc}") from exc
    module = root
    if isinstance(root, dict):
        module = next((root[k] for k in WRAPPERS if isinstance(root.get(k), _StandIn)), root)
    weights: dict[str, Any] = {}
    _collect(module, "", weights, set())
    if not weights and isinstance(root, dict):
        return root  # a checkpoint whose other entries were what could not be loaded
    if not weights:
        raise ModelError(
            f"{source}: no weights found in the pickle", tip="save model.state_dict() and give that file"
        )
    return weights


def load_pickle(content: bytes, pickler: Any = pickle) -> Any:
    """Unpickle a torch.save file or a plain pickle; `pickler` decides which classes may be made."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about source code that changed, or a protocol other than 2
        if content.startswith(b"PK") or LEGACY_MAGIC in content[:32]:
            return torch.load(
                io.BytesIO(content), map_location="cpu", pickle_module=pickler, weights_only=False
            )
        return pickler.load(io.BytesIO(content))


def _load_nested(body: bytes) -> Any:
    """A tensor's storage that was pickled as a torch.save file of its own."""
    require_stored(body, "a nested storage")
    return torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)


def _collect(module: Any, prefix: str, out: dict[str, Any], seen: set[int]) -> None:
    """What `state_dict()` would give: parameters, persistent buffers, submodules."""
    parts = getattr(module, "__dict__", {})
    if id(module) in seen:
        return
    skipped = parts.get("_non_persistent_buffers_set") or ()
    for group in ("_parameters", "_buffers"):
        for name, tensor in (parts.get(group) or {}).items():
            if isinstance(tensor, torch.Tensor) and name not in skipped:
                out[prefix + name] = tensor.detach()
    for name, child in (parts.get("_modules") or {}).items():
        _collect(child, f"{prefix}{name}.", out, seen | {id(module)})


class _StandIn:
    """Takes the place of any class: takes any arguments, keeps its state, does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> _StandIn:
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> _StandIn:
        return self

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)

    def append(self, item: Any) -> None:
        """Lists and sets of a stand-in's class are filled by these opcodes; nothing is kept."""

    def extend(self, items: Any) -> None:
        """See append."""

    def add(self, item: Any) -> None:
        """See append."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """See append."""


class _Inert:
    """The face of the pickle module that torch.load needs, with `find_class` closed.

    Callables enter an unpickler through `find_class` alone, so what it returns is all that can run:
    torch's tensor rebuilders, ordered dictionaries and stand-ins. They are handed out wrapped, because
    a pickle may also set attributes on whatever it was given.
    """

    class Unpickler(pickle.Unpickler):
        def find_class(self, module_name: str, global_name: str, /) -> Any:
            known = REBUILDERS.get((module_name, global_name))
            if known is not None:
                return functools.partial(known)
            if module_name == "torch" and isinstance(getattr(torch, global_name, None), torch.dtype):
                return getattr(torch, global_name)
            return type("StandIn", (_StandIn,), {})

    @staticmethod
    def load(file: Any, **options: Any) -> Any:
        return _Inert.Unpickler(file, **options).load()


def _is_storage(name: str) -> bool:
    module, _, last = name.rpartition(".")
    return module in ("torch", "torch.storage") and last.endswith("Storage") and last[:-7].isalpha()


def _bodies(content: bytes) -> list[bytes]:
    if not content.startswith(b"PK"):
        return [content]
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return [archive.read(name) for name in archive.namelist() if name.endswith("data.pkl")]
    except UNREADABLE_ZIP:
        return []  # damaged; nothing can be named


def _globals(body: bytes) -> list[str]:
    """Names after GLOBAL, INST and STACK_GLOBAL, in every pickle of the stream; damage ends the walk."""
    names: list[str] = []
    stream = io.BytesIO(body)
    while stream.tell() < len(body):
        strings: list[str] = []
        memo: dict[int, str] = {}
        try:
            for opcode, argument, _ in pickletools.genops(stream):
                if opcode.name in ("GLOBAL", "INST"):
                    names.append(str(argument).replace(" ", "."))
                elif opcode.name == "STACK_GLOBAL" and len(strings) >= 2:
                    names.append(f"{strings[-2]}.{strings[-1]}")
                elif opcode.name == "MEMOIZE":
                    memo[len(memo)] = strings[-1] if strings else ""
                elif opcode.name in ("BINPUT", "LONG_BINPUT", "PUT"):
                    memo[int(argument or 0)] = strings[-1] if strings else ""
                elif opcode.name in ("BINGET", "LONG_BINGET", "GET"):
                    strings.append(memo.get(int(argument or 0), ""))
                elif isinstance(argument, str):
                    strings.append(argument)
        except ValueError:
            break  # the storages after the last pickle, or damage: what was named so far stands
    return names
