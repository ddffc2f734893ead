"""What this machine says of itself: the facts that `host.toml` leaves to be read.

Guarantee: only /proc, /sys and the process's own limits are read; nothing is timed. What a system
does not show is left out, and the descriptor's assumed value stands.
"""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Any

from edgeprune.records import TargetField

X86_WORDS = {
    "sse4_2": "sse4.2",
    "avx": "avx",
    "f16c": "f16c",
    "fma": "fma",
    "avx2": "avx2",
    "avx512f": "avx512f",
    "avx512_vnni": "avx512_vnni",
    "avx_vnni": "avx_vnni",
    "amx_int8": "amx_int8",
}
ARM_WORDS = {
    "asimd": "neon",
    "aes": "crypto",
    "atomics": "lse",
    "asimdhp": "fp16",
    "asimddp": "dotprod",
    "bf16": "bf16",
    "i8mm": "i8mm",
    "sve": "sve",
    "sve2": "sve2",
}
ARM_PARTS = {
    "0xd03": "Cortex-A53",
    "0xd04": "Cortex-A35",
    "0xd05": "Cortex-A55",
    "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72",
    "0xd09": "Cortex-A73",
    "0xd0a": "Cortex-A75",
    "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse-N1",
    "0xd0d": "Cortex-A77",
    "0xd40": "Neoverse-V1",
    "0xd41": "Cortex-A78",
    "0xd42": "Cortex-A78AE",
    "0xd44": "Cortex-X1",
    "0xd49": "Neoverse-N2",
}
ARCHES = {"amd64": "x86_64", "arm64": "aarch64"}


def detect(root: Path = Path("/"), *, machine: str | None = None) -> dict[str, TargetField]:
    """Facts by field name, each with where it was read.

    Args:
        root: where /proc and /sys are found.
        machine: the architecture as `platform.machine()` names it.
    """
    arch = (machine or platform.machine()).lower()
    arch = ARCHES.get(arch, arch)
    cpus, cpuinfo = _allowed_cpus(root), _cpuinfo(root)
    big = _big(root, cpus)
    facts: dict[str, TargetField] = {}

    def put(name: str, value: Any, unit: str, note: str, basis: str = "measured") -> None:
        if value:
            facts[name] = TargetField(name, value, unit, basis, note)

    put("cpu.arch", arch, "", "this machine")
    words = ARM_WORDS if arch == "aarch64" else X86_WORDS
    flags = (cpuinfo.get("flags") or cpuinfo.get("Features") or "").split()
    isa = tuple(name for flag, name in words.items() if flag in flags)
    put("cpu.isa", isa, "", "/proc/cpuinfo")
    put(
        "cpu.core",
        cpuinfo.get("model name") or ARM_PARTS.get(cpuinfo.get("CPU part", "")),
        "",
        "/proc/cpuinfo",
    )
    put("cpu.cores", len(big), "", "cores that this process may use, the fastest kind")
    if big:
        facts["cpu.little_cores"] = TargetField(
            "cpu.little_cores", len(cpus) - len(big), "", "measured", "cores of lower capacity"
        )
        put("runtime.threads", len(big), "", "one a core", "assumed")
    put("cpu.clock_ghz", _clock_ghz(root, big, cpuinfo), "GHz", "cpufreq or /proc/cpuinfo")
    put("memory.total_mb", _memory_mb(root), "MiB", "/proc/meminfo and the control group's limit")
    _put_caches(root, big, facts)
    if isa:
        _put_derived(facts, arch, set(isa))
    return facts


def _put_derived(facts: dict[str, TargetField], arch: str, isa: set[str]) -> None:
    """What follows from the instruction set rather than from a reading."""
    if arch == "aarch64":
        wide, gains, saturates = 16 if "dotprod" in isa else 8, "dotprod" in isa, False
    else:
        wide = 64 if "avx512f" in isa else 32 if "fma" in isa else 8
        gains, saturates = "avx2" in isa, not isa & {"avx512_vnni", "avx_vnni", "amx_int8"}
    for name, value, unit in (
        ("cpu.fp32_flops_per_cycle", wide, "flop/cycle/core"),
        ("int8.policy", "offer" if gains else "on-request", ""),
        ("int8.reduce_range", saturates, ""),
    ):
        facts[name] = TargetField(name, value, unit, "assumed", "follows from the instruction set")


def _put_caches(root: Path, big: list[int], facts: dict[str, TargetField]) -> None:
    if not big:
        return
    base = root / f"sys/devices/system/cpu/cpu{big[0]}/cache"
    seen = False
    sizes = {"cache.l2_kb": 0, "cache.l3_kb": 0}
    for index in sorted(base.glob("index*")):
        level, kind = _read(index / "level"), _read(index / "type")
        size = re.fullmatch(r"(\d+)K", _read(index / "size") or "")
        if size is None or kind == "Instruction":
            continue
        seen = True
        if level == "1":
            sizes["cache.l1d_kb"] = int(size[1])
        elif level in ("2", "3"):
            sizes[f"cache.l{level}_kb"] = int(size[1])
        if level == "2":
            shared = _parse_list(_read(index / "shared_cpu_list") or "")
            count = max(1, len(set(shared) & set(big)))
            facts["cache.l2_sharing"] = TargetField(
                "cache.l2_sharing", count, "cores", "measured", "/sys cache directory"
            )
    for name, value in sizes.items():
        if seen:
            facts[name] = TargetField(name, value, "KiB", "measured", "/sys cache directory")


def _allowed_cpus(root: Path) -> list[int]:
    if root == Path("/") and hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return _parse_list(_read(root / "sys/devices/system/cpu/online") or "")


def _big(root: Path, cpus: list[int]) -> list[int]:
    """The cores of the highest capacity; all of them where the kernel does not tell them apart."""
    capacity = {c: _read(root / f"sys/devices/system/cpu/cpu{c}/cpu_capacity") for c in cpus}
    known = {c: int(v) for c, v in capacity.items() if v and v.isdigit()}
    if not known:
        return cpus
    # Prime and big cores differ by some percent and belong together; LITTLE ones have half or less.
    return [c for c in cpus if known.get(c, 0) >= 0.6 * max(known.values())]


def _clock_ghz(root: Path, big: list[int], cpuinfo: dict[str, str]) -> float | None:
    for cpu in big:
        khz = _read(root / f"sys/devices/system/cpu/cpu{cpu}/cpufreq/cpuinfo_max_freq")
        if khz and khz.isdigit():
            return round(int(khz) / 1e6, 3)
    try:
        return round(float(cpuinfo["cpu MHz"]) / 1e3, 3)
    except (KeyError, ValueError):
        return None


def _memory_mb(root: Path) -> int | None:
    match = re.search(r"MemTotal:\s+(\d+) kB", _read(root / "proc/meminfo") or "")
    if not match:
        return None
    limits = [int(match[1]) // 1024]
    limit = _read(root / "sys/fs/cgroup/memory.max")
    if limit and limit.isdigit():
        limits.append(int(limit) >> 20)
    return min(limits)


def _cpuinfo(root: Path) -> dict[str, str]:
    """The last processor's entries: on big.LITTLE machines the big cores come last."""
    entries: dict[str, str] = {}
    for line in (_read(root / "proc/cpuinfo") or "").splitlines():
        key, colon, value = line.partition(":")
        if colon:
            entries[key.strip()] = value.strip()
    return entries


def _parse_list(text: str) -> list[int]:
    """A kernel list such as "0-3,6"."""
    cpus: list[int] = []
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if first.isdigit():
            cpus.extend(range(int(first), int(last or first) + 1))
    return cpus


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
