"""Only regular files are read and only regular files are replaced, by every writer."""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from torch import nn

from edgeprune.cli.common import writable
from edgeprune.errors import DataError, EdgepruneError, OutputError
from edgeprune.export.files import move_into_place
from edgeprune.graph.trace import save, trace
from edgeprune.information.files import write as write_accumulator
from edgeprune.masks import Mask
from edgeprune.masks.mask import write_mask
from edgeprune.paths import open_file, printable, read_file, require_replaceable, write_file
from edgeprune.report.page import write_html
from edgeprune.store import write_json, write_npz, write_text

LONG = "x" * 300


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    before = os.getcwd()
    os.chdir(path.parent)  # the address of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(before)


@pytest.fixture(params=[_fifo, _socket, Path.mkdir], ids=["fifo", "socket", "folder"])
def special(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Something that is no regular file; it stands unchanged when the test ends."""
    path = tmp_path / "special.onnx"
    request.param(path)
    before = path.stat()
    yield path
    after = path.stat()
    assert (stat.S_IFMT(before.st_mode), before.st_ino) == (stat.S_IFMT(after.st_mode), after.st_ino)
    assert [p.name for p in path.parent.iterdir() if p != path and p.name.startswith(".")] == []


def _trace_save(path: Path) -> None:
    save(trace(nn.Linear(2, 2).eval(), (torch.randn(2, 2),)), path)


def _onnx(path: Path) -> None:
    value = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [value], [
        helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    ])  # fmt: skip
    source = path.parent / "source" / path.name
    source.parent.mkdir()
    onnx.save(helper.make_model(graph), str(source))
    move_into_place(source, path)


WRITERS: dict[str, Callable[[Path], object]] = {
    "writable": writable,
    "write_text": lambda path: write_text(path, "text"),
    "write_json": lambda path: write_json(path, {}),
    "write_npz": lambda path: write_npz(path, {"x": np.zeros(2)}),
    "trace.save": _trace_save,
    "mask": lambda path: write_mask(Mask({"w": np.ones(2, bool)}), path),
    "accumulator": lambda path: write_accumulator(path, "test", {"x": np.zeros(2)}),
    "page": lambda path: write_html({}, path),
    "onnx": _onnx,
}


@pytest.mark.parametrize("writer", WRITERS)
def test_no_writer_replaces_what_is_no_regular_file(writer: str, special: Path):
    """As root, a rename over /dev/null would replace the device for the whole machine."""
    with pytest.raises(OutputError, match=r"is a (FIFO|socket|folder).*never replaced"):
        WRITERS[writer](special)


def test_a_link_to_something_special_is_not_replaced_either(tmp_path: Path):
    """/dev/stdout is such a link."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    with pytest.raises(OutputError, match="FIFO"):
        writable(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("name", [LONG, os.fsdecode(b"caf\xe9.onnx")], ids=["long", "not utf-8"])
def test_a_name_that_cannot_be_written_is_one_line(name: str, tmp_path: Path):
    """Too long for the file system, or no UTF-8: typed, and printable."""
    with pytest.raises(OutputError) as caught:
        writable(tmp_path / name)
    assert "\n" not in str(caught.value)
    str(caught.value).encode("utf-8")


def test_a_killed_writers_leftover_is_replaced_even_if_it_is_a_pipe(tmp_path: Path):
    """The temporary name is created anew: opening a FIFO that stands there would wait for ever."""
    os.mkfifo(tmp_path / ".a.json.partial")
    worker = threading.Thread(target=write_file, args=(tmp_path / "a.json", b"{}"), daemon=True)
    worker.start()
    worker.join(10)
    assert not worker.is_alive()
    assert (tmp_path / "a.json").read_bytes() == b"{}"


def test_a_temporary_name_that_is_a_link_is_not_followed(tmp_path: Path):
    """What it points at keeps its content."""
    (tmp_path / "precious").write_text("years of work")
    (tmp_path / ".a.json.partial").symlink_to("precious")
    write_file(tmp_path / "a.json", b"{}")
    assert (tmp_path / "precious").read_text() == "years of work"


def test_special_files_are_not_opened_for_reading(special: Path):
    """Reading a FIFO would wait for a writer."""
    for read in (open_file, read_file):
        with pytest.raises(DataError, match=r"is a (FIFO|socket|folder)"):
            read(special, DataError)


def test_regular_files_pass(tmp_path: Path):
    """A file, a link to a file, and nothing at all may be replaced; a file may be read."""
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "link").symlink_to("a")
    for name in ("a", "link", "new"):
        require_replaceable(tmp_path / name)
    assert read_file(tmp_path / "link", EdgepruneError) == b"1"
    with pytest.raises(EdgepruneError, match="No such file"):
        read_file(tmp_path / "new", EdgepruneError)


def test_undecodable_names_are_shown_as_bytes():
    """Printable everywhere, and still recognisable."""
    assert printable(os.fsdecode(b"caf\xe9/ok")) == "caf\\xe9/ok"
