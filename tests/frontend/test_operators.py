"""What the tool writes, the tool reads: operators that coupling lets through are on the list for files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from edgeprune.coupling.operators import TABLE, spec_of
from edgeprune.errors import UnsafeModelError
from edgeprune.frontend.load import load_model
from edgeprune.frontend.loaded import from_module
from edgeprune.frontend.operators import is_allowed, unlisted_operators
from edgeprune.graph.trace import run, save
from edgeprune.run.open_trace import open_trace


class Spectrogram(nn.Module):
    """An audio front end: framing, windowing, power, logarithm, then a small network."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(32))
        self.net = nn.Sequential(
            nn.Conv1d(17, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 3)
        )

    def forward(self, wave: torch.Tensor) -> torch.Tensor:
        spectrum = torch.stft(wave, 32, 16, window=self.window, return_complex=True)
        return self.net(torch.log1p(spectrum.abs() ** 2))


class Filtered(nn.Module):
    """A filter in the frequency domain."""

    def __init__(self) -> None:
        super().__init__()
        self.gain, self.head = nn.Parameter(torch.rand(33)), nn.Linear(64, 3)

    def forward(self, wave: torch.Tensor) -> torch.Tensor:
        return self.head(torch.fft.ifftshift(torch.fft.irfft(torch.fft.rfft(wave) * self.gain, n=64)))


def _name(target: torch._ops.OpOverload) -> str:
    return f"torch.ops.{target._schema.name.replace('::', '.')}.{target._overloadname}"


def test_every_operator_with_a_coupling_rule_is_listed():
    """Otherwise a file of the tool's own would be refused by the tool."""
    rules = [target for target in TABLE if isinstance(target, torch._ops.OpOverload)]
    assert len(rules) > 100
    assert [_name(target) for target in rules if not is_allowed(_name(target))] == []


def test_every_pointwise_operator_is_listed():
    """They are coupled by torch's tag, not by name; backward passes appear in no file."""
    left = []
    for full in torch._C._dispatch_get_all_op_names():
        namespace, _, rest = full.partition("::")
        name, _, overload = rest.partition(".")
        packet = getattr(torch.ops.aten, name, None) if namespace == "aten" else None
        if packet is None or (overload or "default") not in packet.overloads() or name.endswith("_backward"):
            continue
        target = getattr(packet, overload or "default")
        if not target._schema.is_mutable and spec_of(target) is not None and not is_allowed(_name(target)):
            left.append(_name(target))
    assert left == []


@pytest.mark.parametrize("kind", [Spectrogram, Filtered])
def test_audio_networks_come_back_from_their_file(kind: type[nn.Module], tmp_path: Path):
    """Written by the tool, read by the tool, the same outputs; nothing to note."""
    torch.manual_seed(0)
    traced, notes = open_trace(from_module(kind(), torch.randn(2, 64)))
    assert not any("list of operators" in note for note in notes)
    save(traced, tmp_path / "m.pt2")
    again, _ = open_trace(load_model(tmp_path / "m.pt2"))
    with torch.no_grad():
        torch.testing.assert_close(run(again.graph, traced.inputs)[0], run(traced.graph, traced.inputs)[0])


def test_an_operator_off_the_list_is_noted_before_a_file_is_written(tmp_path: Path):
    """A custom operator traces; its file is refused without trust, and that is said beforehand."""

    @torch.library.custom_op("edgeprune_test::double", mutates_args=())
    def double(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    @double.register_fake
    def _(x: torch.Tensor) -> torch.Tensor:
        return torch.empty_like(x)

    class Custom(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return double(self.a(x))

    traced, notes = open_trace(from_module(Custom(), torch.randn(2, 4)))
    assert unlisted_operators(traced.graph) == ("torch.ops.edgeprune_test.double.default",)
    assert any("edgeprune_test.double" in note and "--trust-pickle" in note for note in notes)
    save(traced, tmp_path / "m.pt2")
    with pytest.raises(UnsafeModelError, match=r"edgeprune_test\.double"):
        load_model(tmp_path / "m.pt2")


@pytest.mark.parametrize("name", ["from_file", "save", "set_", "resize_", "print", "_print"])
def test_what_reaches_beyond_tensors_stays_off_the_list(name: str):
    """Files, storages and the terminal."""
    assert not any(is_allowed(f"torch.ops.aten.{name}.{o}") for o in ("default", "source_Tensor", "Tensor"))
