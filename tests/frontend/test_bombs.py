"""Model files that claim more than they hold: refused before anything is inflated or allocated."""

from __future__ import annotations

import io
import json
import os
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import archives
import pytest
import torch
from loading import BUILD, write_state
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from edgeprune.errors import ModelError, UnsafeModelError
from edgeprune.frontend.examples import example_tensors
from edgeprune.frontend.load import load_model
from edgeprune.graph.inplace import fold_constants
from edgeprune.run.torch_prune_compat import load_with_prune_masks


@pytest.fixture
def small_memory() -> Iterator[None]:
    """Python's own allocations stay below 64 MiB while the file is refused."""
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20


def inflated(path: Path, member: str, size: int) -> None:
    """The same archive with one member replaced by zeros that are stored compressed."""
    content = path.read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(path, "w") as new:
        for info in old.infolist():
            if info.filename.endswith(member):
                packed = zipfile.ZipInfo(info.filename)
                packed.compress_type = zipfile.ZIP_DEFLATED
                with new.open(packed, "w") as stream:
                    for _ in range(size >> 20):
                        stream.write(bytes(1 << 20))
            else:
                new.writestr(info, old.read(info))


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize("factory", [None, "loadnets:build"])
@pytest.mark.parametrize("load", [load_model, load_with_prune_masks])
def test_a_state_dict_whose_pickle_inflates_is_refused(
    trust: bool, factory: str | None, load: Any, net: nn.Module, folder: Path, small_memory: None
):
    """torch.save stores; 200 MiB in 200 kB are a bomb, whoever is trusted."""
    write_state(net, "state dict", folder / "w.pt")
    inflated(folder / "w.pt", "data.pkl", 200 << 20)
    with pytest.raises(
        ModelError, match=r"data\.pkl is compressed \(\d+ bytes that claim to hold 209715200\)"
    ):
        load(folder / "w.pt", factory=factory, input_shapes=[(1, 6, 6)], trust_pickle=trust)


def test_members_that_share_their_bytes_are_refused(net: nn.Module, folder: Path):
    """A table of contents may name the same bytes many times."""
    write_state(net, "state dict", folder / "w.pt")
    content = archives.pack(archives.members_of((folder / "w.pt").read_bytes()))  # without zip64
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        largest = max(archive.infolist(), key=lambda info: info.file_size)
    end = content.rindex(b"PK\x05\x06")
    start = int.from_bytes(content[end + 16 : end + 20], "little")
    entry = content.index(largest.filename.encode(), start) - 46
    body = content[entry : content.index(b"PK", entry + 4)]
    copies = 40
    table = content[start:end] + body * copies
    count = int.from_bytes(content[end + 8 : end + 10], "little") + copies
    tail = (
        content[end : end + 8] + count.to_bytes(2, "little") * 2 + len(table).to_bytes(4, "little")
        + content[end + 16 :]
    )  # fmt: skip
    (folder / "w.pt").write_bytes(content[:start] + table + tail)
    with pytest.raises(ModelError, match=r"claims to hold \d+ bytes in \d+"):
        load_model(folder / "w.pt", **BUILD)


def edited(change: Any) -> bytes:
    """A good archive with the configuration of its weights changed."""
    members = archives.members_of(archives.saved(archives.small_program()))
    config = json.loads(members[archives.WEIGHTS])
    change(config["config"])
    members[archives.WEIGHTS] = json.dumps(config).encode()
    return archives.pack(members)


def repeated(config: dict[str, Any]) -> None:
    meta = config["head.weight"]["tensor_meta"]
    meta["sizes"] = [{"as_int": 2**20}, {"as_int": 2**20}]
    meta["strides"] = [{"as_int": 0}, {"as_int": 0}]


def test_a_tensor_that_repeats_one_value_terabytes_often_is_refused(folder: Path):
    """Stride 0: the stored bytes hold it, any copy of it would not fit."""
    (folder / "m.pt2").write_bytes(edited(repeated))
    with pytest.raises(ModelError, match=r"head\.weight repeats \d+ stored bytes to 4398046511104; at most"):
        load_model(folder / "m.pt2")


def test_sample_inputs_of_terabytes_are_refused(folder: Path):
    """They are copied on loading."""
    members = archives.members_of(archives.saved(archives.small_program()))
    buffer = io.BytesIO()
    torch.save(((torch.zeros(1).expand(2**40),), {}), buffer)
    members[archives.SAMPLES] = buffer.getvalue()
    (folder / "m.pt2").write_bytes(archives.pack(members))
    with pytest.raises(ModelError, match=r"sample input of shape \(1099511627776,\) would take"):
        load_model(folder / "m.pt2")


def test_sample_inputs_that_inflate_are_refused(folder: Path, small_memory: None):
    """An archive inside the archive."""
    members = archives.members_of(archives.saved(archives.small_program()))
    (folder / "samples.pt").write_bytes(members[archives.SAMPLES])
    inflated(folder / "samples.pt", "data.pkl", 200 << 20)
    members[archives.SAMPLES] = (folder / "samples.pt").read_bytes()
    (folder / "m.pt2").write_bytes(archives.pack(members))
    with pytest.raises(ModelError, match=r"data\.pkl is compressed"):
        load_model(folder / "m.pt2")


def test_an_example_of_terabytes_is_not_made():
    """--input-shape is a claim too, and so is the shape that a program records."""
    with pytest.raises(ModelError, match=r"--input-shape 1000000,1000000 takes 8000000000000 bytes"):
        example_tensors([(10**6, 10**6)])


class Largest(TorchDispatchMode):
    """The elements of the largest tensor that was made."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.elements = max(self.elements, result.numel())
        return result


def test_large_constants_are_not_made_in_order_to_fold_them(monkeypatch: pytest.MonkeyPatch):
    """A graph may create terabytes that it never reads; the shape decides before anything is made."""

    class Vast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.a(x) + torch.zeros(100, 100).sum() + x.new_ones(50, 50).sum() + torch.ones(4)

    monkeypatch.setattr("edgeprune.graph.inplace.FOLD_LIMIT", 100)
    graph = torch.export.export(Vast().eval(), (torch.randn(2, 4),)).module()
    with Largest() as largest:
        fold_constants(graph)
    assert largest.elements <= 100
    assert [t.shape for name, t in graph.named_buffers() if name.startswith("_folded_")] == [(4,)]


@pytest.mark.parametrize("load", [load_model, load_with_prune_masks])
def test_a_pipe_is_not_waited_for(load: Any, folder: Path):
    """Opening a FIFO blocks until somebody writes to it."""
    os.mkfifo(folder / "w.pt")
    with pytest.raises(ModelError, match="is a FIFO"):
        load(folder / "w.pt", **BUILD)


@pytest.mark.parametrize("name", ["x" * 300, os.fsdecode(b"caf\xe9.pt")], ids=["long", "not utf-8"])
def test_odd_file_names_are_one_printable_line(name: str, net: nn.Module, folder: Path):
    """Too long for the file system; bytes that are no UTF-8, there and not there."""
    with pytest.raises(ModelError) as caught:
        load_model(folder / name, **BUILD)
    str(caught.value).encode("utf-8")
    if len(name) < 300:
        write_state(net, "state dict", folder / name)
        loaded = load_model(folder / name, **BUILD)
        assert loaded.source.endswith("caf\\xe9.pt")


def test_a_module_in_a_compressed_archive_is_not_read_past(net: nn.Module, folder: Path):
    """Neither naming its classes nor reading its weights inflates anything."""
    torch.save(net, folder / "m.pt")
    inflated(folder / "m.pt", "data.pkl", 4 << 20)
    with pytest.raises(ModelError, match="is compressed") as caught:
        load_model(folder / "m.pt", **BUILD)
    assert not isinstance(caught.value, UnsafeModelError)
