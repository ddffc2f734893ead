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

import dataclasses
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from edgeprune.errors import TargetError
from edgeprune.records import Target, TargetField
from edgeprune.records.schema import Length, Range, read_as, read_bytes

SCHEMA = 1
NAME = re.compile(r"[a-z0-9][a-z0-9._+-]*")
ISA = {
    "x86_64": {"sse4.2", "avx", "f16c", "fma", "avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8"},
    "aarch64": {"neon", "crypto", "lse", "fp16", "dotprod", "bf16", "i8mm", "sve", "sve2"},
}
TIP = "mend the descriptor; `edgeprune targets rpi4` shows a complete one"

Text: TypeAlias = Annotated[str, Length(1, 10_000)]
Count: TypeAlias = Annotated[int, Range(0, 2**40)]
Positive: TypeAlias = Annotated[int, Range(1, 2**40)]
Rate: TypeAlias = Annotated[float, Range(1e-6, 1e6)]
Basis: TypeAlias = Literal["measured", "datasheet", "assumed"]


@dataclass(frozen=True)
class Head:
    """The keys of a descriptor beside its tables of facts."""

    schema: Literal[1]
    title: Text = "as its base"
    base: Text = "none"
    detect: bool = False
    sources: dict[str, Text] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Fact:
    """The table of one field."""

    value: Any
    basis: Basis
    source: str | None = None
    note: Text | None = None


@dataclass(frozen=True)
class Field:
    """One field of the schema; `kind` is what `records.schema` reads its value as."""

    name: str  # section.key
    record: str  # attribute of Target; empty where `Target.fields` alone holds it
    unit: str
    kind: Any
    optional: bool = False


FIELDS = (
    Field("cpu.arch", "arch", "", Literal["x86_64", "aarch64"]),
    Field("cpu.core", "core", "", Text),
    Field("cpu.cores", "cores", "", Positive),
    Field("cpu.little_cores", "little_cores", "", Count),
    Field("cpu.clock_ghz", "clock_ghz", "GHz", Rate),
    Field("cpu.isa", "isa", "", tuple[str, ...]),
    Field("cpu.fp32_flops_per_cycle", "fp32_flops_per_cycle", "flop/cycle/core", Positive),
    Field("cache.l1d_kb", "l1d_kb", "KiB", Positive),
    Field("cache.l2_kb", "l2_kb", "KiB", Count),
    Field("cache.l2_sharing", "l2_sharing", "cores", Positive),
    Field("cache.l3_kb", "l3_kb", "KiB", Count),
    Field("memory.total_mb", "memory_mb", "MiB", Positive),
    Field("memory.bandwidth_gb_s", "bandwidth_gb_s", "GB/s", Rate),
    Field("runtime.threads", "threads", "", Positive),
    Field("int8.policy", "int8_policy", "", Literal["offer", "on-request"]),
    Field("int8.activations", "int8_activations", "", Literal["uint8", "int8"]),
    Field("int8.reduce_range", "int8_reduce_range", "", bool),
    Field(
        "emulation.cpu", "emulated_cpu", "", Literal["cortex-a53", "cortex-a72", "cortex-a76"], optional=True
    ),
    Field("board.models", "", "", Annotated[tuple[Text, ...], Length(1, 100)], optional=True),
)
TOP = set(Head.__dataclass_fields__)
SECTIONS = {f.name.split(".")[0] for f in FIELDS}


def read_descriptor(path: Path) -> dict[str, Any]:
    """Parse the file and check its head: schema, title, sources, known sections and fields.

    Raises:
        TargetError: unreadable, not TOML, another schema, or a name that the schema does not have.
    """
    try:
        text = read_bytes(path, error=TargetError, tip="check its permissions").decode("utf-8")
        values = tomllib.loads(text)
    except ValueError as e:  # not UTF-8, not TOML, or a number that is too long
        raise TargetError(f"{path}: not valid TOML: {e}", tip="mend the line named") from e
    except RecursionError:
        raise TargetError(f"{path}: not valid TOML: nested too deeply", tip=TIP) from None
    head = {key: value for key, value in values.items() if key in TOP}
    if "base" not in values:
        head.setdefault("title", "")
    read_as(Head, head, str(path), error=TargetError, tip=TIP)
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
    fact = _read(Fact, entry, path, field.name)
    value = _read(field.kind, fact.value, path, field.name)
    known = sorted(set().union(*ISA.values()))
    if field.name == "cpu.isa" and not set(value) <= set(known):
        raise _wrong(path, field.name, list(value), f"a list of names out of {', '.join(known)}")
    if fact.source is not None and fact.source not in sources:
        keys = ", ".join(sources) or "it is empty"
        raise _wrong(path, f"{field.name}.source", fact.source, f"a key of [sources]: {keys}")
    note = "; ".join(text for text in (sources.get(str(fact.source)), fact.note) if text)
    if fact.basis != "assumed" and not note:
        claim = f"a source or a note, since it claims to be {fact.basis}"
        raise _wrong(path, field.name, "no source", claim)
    return TargetField(field.name, value, field.unit, fact.basis, note)


def _read(kind: Any, value: Any, path: Path, name: str) -> Any:
    return read_as(kind, value, str(path), where=name, error=TargetError, tip=TIP, strict=True)


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


def _wrong(path: Path, field: str, value: Any, expected: str) -> TargetError:
    shown = "nothing" if value is None else repr(value)
    return TargetError(
        f"{path}: {field}: found {shown[:80]}; expected {expected}",
        tip=TIP,
    )
