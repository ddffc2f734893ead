"""The form of a target descriptor, and its validation.

    schema = 1
    title = "Raspberry Pi 4 Model B"
    [sources]
    docs = "Raspberry Pi documentation, BCM2711"
    [cpu]
    cores = { value = 4, basis = "datasheet", source = "docs" }

Every field is a table of value, basis and either `source` (a key of [sources]) or `note` (free text);
what is measured or from a data sheet must say where. The message of an error names the file, the field,
what was found and what was expected.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeprune.errors import TargetError
from edgeprune.records import Target, TargetField

SCHEMA = 1
NAME = re.compile(r"[a-z0-9][a-z0-9._+-]*")
BASES = ("measured", "datasheet", "assumed")
TOP = {"schema", "title", "sources", "base", "detect"}
ISA = {
    "x86_64": {"sse4.2", "avx", "f16c", "fma", "avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8"},
    "aarch64": {"neon", "crypto", "lse", "fp16", "dotprod", "bf16", "i8mm", "sve", "sve2"},
}


@dataclass(frozen=True)
class Field:
    """One field of the schema: `read` returns the value or raises ValueError(what was expected)."""

    name: str  # section.key
    record: str  # attribute of Target; empty where `Target.fields` alone holds it
    unit: str
    read: Callable[[Any], Any]
    optional: bool = False


def _whole(low: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise ValueError(f"a whole number of at least {low}")
        return value

    return read


def _positive(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise ValueError("a number above 0")
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("a non-empty string")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def _one_of(*allowed: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in allowed:
            raise ValueError(f"one of {', '.join(allowed)}")
        return str(value)

    return read


def _words(value: Any) -> tuple[str, ...]:
    known = sorted(set().union(*ISA.values()))
    if not isinstance(value, list) or not all(isinstance(v, str) and v in known for v in value):
        raise ValueError(f"a list of names out of {', '.join(known)}")
    return tuple(value)


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(v, str) and v.strip() for v in value):
        raise ValueError("a list of non-empty strings")
    return tuple(value)


FIELDS = (
    Field("cpu.arch", "arch", "", _one_of(*ISA)),
    Field("cpu.core", "core", "", _text),
    Field("cpu.cores", "cores", "", _whole(1)),
    Field("cpu.little_cores", "little_cores", "", _whole(0)),
    Field("cpu.clock_ghz", "clock_ghz", "GHz", _positive),
    Field("cpu.isa", "isa", "", _words),
    Field("cpu.fp32_flops_per_cycle", "fp32_flops_per_cycle", "flop/cycle/core", _whole(1)),
    Field("cache.l1d_kb", "l1d_kb", "KiB", _whole(1)),
    Field("cache.l2_kb", "l2_kb", "KiB", _whole(0)),
    Field("cache.l2_sharing", "l2_sharing", "cores", _whole(1)),
    Field("cache.l3_kb", "l3_kb", "KiB", _whole(0)),
    Field("memory.total_mb", "memory_mb", "MiB", _whole(1)),
    Field("memory.bandwidth_gb_s", "bandwidth_gb_s", "GB/s", _positive),
    Field("runtime.threads", "threads", "", _whole(1)),
    Field("int8.policy", "int8_policy", "", _one_of("offer", "on-request")),
    Field("int8.activations", "int8_activations", "", _one_of("uint8", "int8")),
    Field("int8.reduce_range", "int8_reduce_range", "", _flag),
    Field(
        "emulation.cpu", "emulated_cpu", "", _one_of("cortex-a53", "cortex-a72", "cortex-a76"), optional=True
    ),
    Field("board.models", "", "", _texts, optional=True),
)
SECTIONS = {f.name.split(".")[0] for f in FIELDS}


def read_descriptor(path: Path) -> dict[str, Any]:
    """Parse the file and check its head: schema, title, sources, known sections and fields.

    Raises:
        TargetError: unreadable, not TOML, another schema, or a name that the schema does not have.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise TargetError(f"{path}: cannot be read: {e.strerror}", tip="check its permissions") from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise TargetError(f"{path}: not valid TOML: {e}", tip="mend the line named") from e
    found = values.get("schema")
    if found != SCHEMA or isinstance(found, bool):
        raise _wrong(path, "schema", found, f"{SCHEMA}, the version that this edgeprune reads")
    _check(path, "title", values.get("title", "" if "base" not in values else "as its base"), _text)
    _check(path, "base", values.get("base", "none"), _text)
    _check(path, "detect", values.get("detect", False), _flag)
    sources = values.get("sources", {})
    if not isinstance(sources, dict) or not all(isinstance(v, str) for v in sources.values()):
        raise _wrong(path, "sources", sources, "a table of strings")
    known = {f.name for f in FIELDS}
    for section, entries in values.items():
        if section in TOP:
            continue
        if section not in SECTIONS or not isinstance(entries, dict):
            raise _wrong(path, section, entries, f"only the tables {', '.join(sorted(SECTIONS))}")
        for key in entries:
            if f"{section}.{key}" not in known:
                keys = sorted(n.split(".")[1] for n in known if n.startswith(section + "."))
                raise TargetError(
                    f"{path}: {section}.{key}: unknown field; expected only {', '.join(keys)}",
                    tip="remove it or mend its name",
                )
    return values


def to_target(
    path: Path,
    values: Mapping[str, Any],
    *,
    user: bool,
    base: Target | None = None,
    detected: Mapping[str, TargetField] | None = None,
) -> Target:
    """Build the record from a parsed descriptor; `detected` facts win over it, it wins over `base`.

    Raises:
        TargetError: a field is missing or does not fit, alone or with the others.
    """
    inherited = {f.name: f for f in base.fields} if base else {}
    facts: dict[str, TargetField] = {}
    for field in FIELDS:
        section, key = field.name.split(".")
        entry = values.get(section, {}).get(key)
        if detected and field.name in detected:
            facts[field.name] = detected[field.name]
        elif entry is not None:
            facts[field.name] = _fact(path, field, entry, values.get("sources", {}))
        elif field.name in inherited:
            facts[field.name] = inherited[field.name]
        elif not field.optional:
            raise TargetError(
                f"{path}: {field.name}: missing; expected a table with value and basis",
                tip=f'add `{key} = {{ value = …, basis = "assumed" }}` under [{section}]',
            )
    _check_together(path, facts, strict_isa=not detected)
    attributes: dict[str, Any] = {
        f.record: facts[f.name].value if f.name in facts else None for f in FIELDS if f.record
    }
    return Target(
        name=path.stem,
        title=str(values.get("title") or (base.title if base else "")),
        path=path,
        user=user,
        local=bool(values.get("detect")) or bool(base and base.local),
        fields=tuple(facts.values()),
        schema=SCHEMA,
        **attributes,
    )


def _fact(path: Path, field: Field, entry: Any, sources: Mapping[str, str]) -> TargetField:
    if not isinstance(entry, dict) or "value" not in entry:
        raise _wrong(
            path, field.name, entry, 'a table such as { value = 4, basis = "datasheet", source = "docs" }'
        )
    extra = sorted(set(entry) - {"value", "basis", "source", "note"})
    if extra:
        raise _wrong(path, field.name, extra, "only value, basis, source and note")
    value = _check(path, field.name, entry["value"], field.read)
    basis = _check(path, f"{field.name}.basis", entry.get("basis"), _one_of(*BASES))
    source = entry.get("source")
    if source is not None and source not in sources:
        raise _wrong(
            path, f"{field.name}.source", source, f"a key of [sources]: {', '.join(sources) or 'it is empty'}"
        )
    texts = [t for t in (sources.get(str(source)), entry.get("note")) if t]
    note = "; ".join(_check(path, f"{field.name}.note", text, _text) for text in texts)
    if basis != "assumed" and not note:
        raise _wrong(path, field.name, "no source", f"a source or a note, since it claims to be {basis}")
    return TargetField(field.name, value, field.unit, basis, note)


def _check_together(path: Path, facts: Mapping[str, TargetField], *, strict_isa: bool) -> None:
    arch, cores = facts["cpu.arch"].value, facts["cpu.cores"].value
    foreign = [w for w in facts["cpu.isa"].value if w not in ISA.get(arch, set())]
    if foreign and strict_isa:
        raise _wrong(path, "cpu.isa", foreign, f"names that {arch} has")
    threads, little = facts["runtime.threads"].value, facts["cpu.little_cores"].value
    if threads > cores + little:
        raise _wrong(
            path,
            "runtime.threads",
            threads,
            f"at most the {cores + little} cores of cpu.cores and little_cores",
        )
    if facts["cache.l2_sharing"].value > cores + little:
        raise _wrong(
            path, "cache.l2_sharing", facts["cache.l2_sharing"].value, f"at most {cores + little} cores"
        )
    if "emulation.cpu" in facts and arch != "aarch64":
        raise _wrong(path, "emulation.cpu", facts["emulation.cpu"].value, "no such field on x86_64")


def _check(path: Path, name: str, value: Any, read: Callable[[Any], Any]) -> Any:
    try:
        return read(value)
    except ValueError as e:
        raise _wrong(path, name, value, str(e)) from e


def _wrong(path: Path, field: str, found: Any, expected: str) -> TargetError:
    shown = "nothing" if found is None else repr(found)
    return TargetError(
        f"{path}: {field}: found {shown[:80]}; expected {expected}",
        tip="mend the descriptor; `edgeprune targets rpi4` shows a complete one",
    )
