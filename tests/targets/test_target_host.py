"""Detection of the machine at hand, on made-up /proc and /sys trees."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgeprune.targets import load_target
from edgeprune.targets.host import detect


def _put(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _cpu(
    root: Path, cpu: int, *, capacity: int | None, caches: list[tuple[int, str, str, str]], khz: int
) -> None:
    base = f"sys/devices/system/cpu/cpu{cpu}"
    if capacity is not None:
        _put(root, f"{base}/cpu_capacity", f"{capacity}\n")
    _put(root, f"{base}/cpufreq/cpuinfo_max_freq", f"{khz}\n")
    for i, (level, kind, size, shared) in enumerate(caches):
        for name, value in (("level", level), ("type", kind), ("size", size), ("shared_cpu_list", shared)):
            _put(root, f"{base}/cache/index{i}/{name}", f"{value}\n")


@pytest.fixture
def phone(tmp_path) -> Path:
    """Four LITTLE cores, three big and a prime one, in the way of a recent Android kernel."""
    flags = "fp asimd aes atomics fphp asimdhp asimddp i8mm"
    parts = ["0xd05"] * 4 + ["0xd41"] * 3 + ["0xd44"]
    lines = [f"processor\t: {i}\nFeatures\t: {flags}\nCPU part\t: {p}\n" for i, p in enumerate(parts)]
    _put(tmp_path, "proc/cpuinfo", "\n".join(lines))
    _put(tmp_path, "proc/meminfo", "MemTotal:        7800000 kB\n")
    _put(tmp_path, "sys/devices/system/cpu/online", "0-7\n")
    for cpu in range(8):
        capacity = 250 if cpu < 4 else 870 if cpu < 7 else 1024
        caches = [(1, "Data", "64K", str(cpu)), (1, "Instruction", "64K", str(cpu)),
                  (2, "Unified", "512K", str(cpu)), (3, "Unified", "4096K", "0-7")]  # fmt: skip
        _cpu(tmp_path, cpu, capacity=capacity, caches=caches, khz=2400000)
    return tmp_path


def test_only_the_big_cores_of_a_phone_count(phone):
    """Prime and big cores are used, LITTLE ones are counted apart, and the fastest core gives the name."""
    facts = {name: f.value for name, f in detect(phone, machine="arm64").items()}
    assert (facts["cpu.cores"], facts["cpu.little_cores"], facts["runtime.threads"]) == (4, 4, 4)
    assert (facts["cpu.arch"], facts["cpu.core"]) == ("aarch64", "Cortex-X1")
    assert facts["cpu.isa"] == ("neon", "crypto", "lse", "fp16", "dotprod", "i8mm")
    assert (facts["cache.l1d_kb"], facts["cache.l2_kb"], facts["cache.l3_kb"]) == (64, 512, 4096)
    assert (facts["cache.l2_sharing"], facts["cpu.clock_ghz"], facts["memory.total_mb"]) == (1, 2.4, 7617)
    assert (facts["int8.policy"], facts["int8.reduce_range"]) == ("offer", False)


def test_an_in_order_board_without_dot_product_gets_int8_on_request_only(tmp_path):
    """Four equal cores under one L2, no L3, and nothing that INT8 would gain from."""
    _put(tmp_path, "proc/cpuinfo", "Features\t: fp asimd evtstrm crc32\nCPU part\t: 0xd03\n")
    _put(tmp_path, "sys/devices/system/cpu/online", "0-3\n")
    for cpu in range(4):
        caches = [(1, "Data", "32K", str(cpu)), (2, "Unified", "512K", "0-3")]
        _cpu(tmp_path, cpu, capacity=None, caches=caches, khz=1000000)
    facts = {name: f.value for name, f in detect(tmp_path, machine="aarch64").items()}
    assert (facts["cpu.core"], facts["cpu.cores"], facts["cpu.little_cores"]) == ("Cortex-A53", 4, 0)
    assert (facts["cache.l2_sharing"], facts["cache.l3_kb"]) == (4, 0)
    assert facts["int8.policy"] == "on-request"


@pytest.mark.parametrize(
    ("flags", "flops", "reduce_range"),
    [
        ("sse4_2 avx fma avx2", 32, True),
        ("sse4_2 avx fma avx2 avx_vnni", 32, False),
        ("sse4_2 avx fma avx2 avx512f avx512_vnni", 64, False),
        ("sse4_2", 8, True),
    ],
)
def test_x86_arithmetic_follows_the_flags(tmp_path, flags, flops, reduce_range):
    """Vector width gives the peak; without VNNI the 8-bit kernels saturate."""
    _put(tmp_path, "proc/cpuinfo", f"model name\t: Some CPU\ncpu MHz\t: 2500.000\nflags\t\t: {flags}\n")
    _put(tmp_path, "sys/devices/system/cpu/online", "0\n")
    facts = {name: f.value for name, f in detect(tmp_path, machine="AMD64").items()}
    assert facts["cpu.fp32_flops_per_cycle"] == flops
    assert facts["int8.reduce_range"] is reduce_range
    assert facts["cpu.clock_ghz"] == 2.5


def test_a_control_group_limits_the_memory(tmp_path):
    """A container's limit counts, not the machine behind it."""
    _put(tmp_path, "proc/meminfo", "MemTotal:        7800000 kB\n")
    _put(tmp_path, "sys/fs/cgroup/memory.max", f"{1 << 30}\n")
    assert detect(tmp_path, machine="x86_64")["memory.total_mb"].value == 1024


def test_a_machine_that_shows_nothing_leaves_the_assumed_values(tmp_path):
    """Without /proc and /sys only the architecture is known."""
    assert set(detect(tmp_path, machine="x86_64")) == {"cpu.arch"}


def test_host_is_the_machine_at_hand():
    """The cores of the host target are those that this process may use; nothing claims to be timed."""
    host = load_target("host")
    if hasattr(os, "sched_getaffinity"):
        assert host.cores + host.little_cores == len(os.sched_getaffinity(0))
    assert host.local
    assert {f.name: f.basis for f in host.fields}["memory.bandwidth_gb_s"] == "assumed"
