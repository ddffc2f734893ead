"""Read a record back from plain values into its dataclass: the one reader for every file that is read.

    manifest = read_json(Manifest, folder / "manifest.json", error=ShipError)
    record = read_as(RoundRecord, plain, "run/rounds/1.json")      plain: from JSON or TOML, parsed already

The dataclass is the schema: annotations say what a field may hold, `Annotated[float, Range(0, 1)]` bounds it.
Guarantee: a value that is returned has the annotated types, every number is finite and within its range,
and no field is missing; anything else, a file that is no JSON, too large or nested too deeply included,
raises one EdgepruneError with file, field, finding and expectation.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from edgeprune.errors import EdgepruneError, RunError

T = TypeVar("T")
LARGEST_BYTES = 512 * 2**20  # of a JSON file that is read; a record of a wide network has some MB
LARGEST_WHOLE = 2**63 - 1


@dataclass(frozen=True)
class Range:
    """Inclusive bounds of a number, used as `Annotated[float, Range(0, 1)]`."""

    low: float = -math.inf
    high: float = math.inf


@dataclass(frozen=True)
class Length:
    """Bounds on the number of entries of text, a list or an object."""

    low: int = 0
    high: int = 1_000_000


def read_as(
    kind: type[T],
    plain: Any,
    source: str,
    *,
    where: str = "",
    error: type[EdgepruneError] = RunError,
    tip: str = "run the command again with --force",
    strict: bool = False,
) -> T:
    """Values of `plain` as a `kind`.

    Args:
        kind: a dataclass, or any annotation that its fields may have.
        source: the file, for messages. where: the field of it that `plain` is, "" for all of it.
        strict: refuse keys that the dataclass does not have; else they are ignored.

    Raises:
        error: the first field that does not fit.
    """
    reader = _Reader(source, error, tip, strict)
    value: T = reader.read(kind, plain, where)
    return value


def read_json(
    kind: type[T],
    path: Path,
    *,
    error: type[EdgepruneError] = RunError,
    tip: str = "run the command again with --force",
    strict: bool = False,
) -> T:
    """The content of a JSON file as a `kind`; arguments as for `read_as`.

    Raises:
        error: the file is missing, no regular file, too large, not JSON, or a field does not fit.
    """
    return read_as(
        kind, parse_json(path, error=error, tip=tip), str(path), error=error, tip=tip, strict=strict
    )


def parse_json(path: Path, *, error: type[EdgepruneError] = RunError, tip: str = "") -> Any:
    """Plain values of a JSON file; NaN and Infinity, which JSON has not, are refused.

    Raises:
        error: the file is missing, no regular file, too large, or not JSON.
    """

    def not_json(word: str) -> None:
        raise ValueError(f"{word} is no JSON number")

    try:
        return json.loads(read_bytes(path, error=error, tip=tip).decode("utf-8"), parse_constant=not_json)
    except RecursionError:
        raise error(f"{path}: damaged, nested too deeply", tip=tip) from None
    except ValueError as failed:
        raise error(f"{path}: damaged, not JSON: {failed}", tip=tip) from None


def read_bytes(path: Path, *, error: type[EdgepruneError], tip: str = "") -> bytes:
    """The content of a record's file; a pipe or a device is never waited for.

    Raises:
        error: the file is missing, no regular file, unreadable or too large.
    """
    try:
        if not path.is_file():
            raise error(f"{path}: {'is no file' if path.exists() else 'no such file'}", tip=tip)
        if path.stat().st_size > LARGEST_BYTES:
            raise error(f"{path}: larger than {LARGEST_BYTES >> 20} MiB", tip=tip)
        return path.read_bytes()
    except (OSError, ValueError) as failed:  # a ValueError: a null character in the name
        raise error(f"{path}: {getattr(failed, 'strerror', None) or failed}", tip=tip) from None


@dataclass(frozen=True)
class _Reader:
    source: str
    error: type[EdgepruneError]
    tip: str
    strict: bool

    def read(self, kind: Any, value: Any, where: str) -> Any:
        origin, arguments = typing.get_origin(kind), typing.get_args(kind)
        if kind is Any or isinstance(kind, TypeVar):
            return value
        if origin is typing.Annotated:
            inner = self.read(arguments[0], value, where)
            for bound in arguments[1:]:
                self._bounded(bound, inner, where)
            return inner
        if origin in (types.UnionType, typing.Union):
            return self._union(arguments, value, where)
        if origin is typing.Literal:
            if isinstance(value, bool) or value not in arguments:
                raise self.wrong(where, value, f"one of {', '.join(map(str, arguments))}")
            return value
        if dataclasses.is_dataclass(kind):
            return self._record(kind, value, where)
        if origin in (tuple, list):
            return self._sequence(origin, arguments, value, where)
        if origin is dict or kind is dict:
            return self._object(arguments, value, where)
        return self._plain(kind, value, where)

    def wrong(self, where: str, value: Any, expected: str) -> EdgepruneError:
        """The error of a field."""
        place = f"{self.source}: {where}" if where else self.source
        return self.error(f"{place}: found {_brief(value)}; expected {expected}", tip=self.tip)

    def _plain(self, kind: Any, value: Any, where: str) -> Any:
        if kind is type(None):
            if value is not None:
                raise self.wrong(where, value, "null")
            return None
        if kind is float:
            if isinstance(value, bool) or not isinstance(value, int | float) or not _finite(value):
                raise self.wrong(where, value, "a finite number")
            return float(value)
        if kind is int:
            if isinstance(value, bool) or not isinstance(value, int):
                raise self.wrong(where, value, "a whole number")
            if abs(value) > LARGEST_WHOLE:
                raise self.wrong(where, value, "a whole number of 64 bits")
            return value
        if kind is bool:
            if not isinstance(value, bool):
                raise self.wrong(where, value, "true or false")
            return value
        if kind is str:
            if not isinstance(value, str):
                raise self.wrong(where, value, "text")
            if not _writable(value):
                raise self.wrong(where, value, "text without lone surrogates, which no file can hold")
            return value
        raise TypeError(f"{where}: no reader for {kind}")

    def _union(self, kinds: tuple[Any, ...], value: Any, where: str) -> Any:
        if value is None and type(None) in kinds:
            return None
        failures = []
        for kind in kinds:
            if kind is type(None):
                continue
            try:
                return self.read(kind, value, where)
            except self.error as failure:
                failures.append(failure)
        raise failures[-1]

    def _record(self, kind: Any, value: Any, where: str) -> Any:
        if not isinstance(value, dict):
            raise self.wrong(where, value, "an object")
        hints, values = _hints(kind), {}
        for field in dataclasses.fields(kind):
            place = f"{where}.{field.name}" if where else field.name
            if field.name in value:
                values[field.name] = self.read(hints[field.name], value[field.name], place)
            elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                raise self.error(f"{self.source}: {place}: missing", tip=self.tip)
        unknown = sorted(set(value) - set(hints), key=str)
        if self.strict and unknown:
            raise self.wrong(where, unknown[0], f"one of the fields {', '.join(hints)}")
        return kind(**values)

    def _sequence(self, origin: Any, arguments: tuple[Any, ...], value: Any, where: str) -> Any:
        if not isinstance(value, list | tuple):
            raise self.wrong(where, value, "a list")
        if origin is tuple and not (len(arguments) == 2 and arguments[1] is Ellipsis):
            if len(value) != len(arguments):
                raise self.wrong(where, value, f"a list of {len(arguments)}")
            pairs = zip(arguments, value, strict=True)
            return tuple(self.read(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(pairs))
        inner = arguments[0] if arguments else Any
        return origin(self.read(inner, item, f"{where}[{i}]") for i, item in enumerate(value))

    def _object(self, arguments: tuple[Any, ...], value: Any, where: str) -> dict[str, Any]:
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise self.wrong(where, value, "an object")
        inner = arguments[1] if arguments else Any
        return {k: self.read(inner, v, f"{where}.{k}" if where else k) for k, v in value.items()}

    def _bounded(self, bound: Any, value: Any, where: str) -> None:
        if value is None:
            return
        if isinstance(bound, Range) and not bound.low <= value <= bound.high:
            top = "" if math.isinf(bound.high) else f" to {bound.high:g}"
            raise self.wrong(where, value, f"a number from {bound.low:g}{top}")
        if isinstance(bound, Length) and not bound.low <= len(value) <= bound.high:
            raise self.wrong(where, value, f"{bound.low} to {bound.high} entries")


def _writable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _brief(value: Any) -> str:
    """At most 60 characters of a value; large ones are named by their kind, not written out first."""
    if isinstance(value, int) and abs(value) > LARGEST_WHOLE:
        return "a whole number of more than 64 bits"
    if isinstance(value, dict | list | tuple) and len(value) > 8:
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    try:
        text = repr(value)
    except (RecursionError, ValueError):
        return f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond what a float holds
        return False


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind, include_extras=True)
