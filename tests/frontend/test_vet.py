"""No `.pt2` archive runs code while it is vetted and loaded."""

from __future__ import annotations

import io
import logging
import random
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import archives
import pytest
import torch

from edgeprune.errors import ModelError, UnsafeModelError
from edgeprune.frontend.load import load_model
from edgeprune.frontend.vet import vet

Attack = Callable[[archives.Members, Path], archives.Members]


@pytest.fixture(scope="module")
def good() -> bytes:
    return archives.saved(archives.small_program())


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A path that payloads create; its folder is importable, for attacks that import."""
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path / "ran"
    for name in ("evil_module", "evil_enum"):
        sys.modules.pop(name, None)


def hostile(attack: Attack, good: bytes, marker: Path) -> bytes:
    return archives.pack(attack(archives.members_of(good), marker))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("attack", archives.FIRES_ON_LOAD + archives.FIRES_ON_USE)
def test_the_attack_is_real(attack: Attack, good: bytes, marker: Path):
    """torch.export.load, or using what it gives, runs the payload: the tests below can fail."""
    logging.disable(logging.CRITICAL)
    try:
        program = torch.export.load(io.BytesIO(hostile(attack, good, marker)))
        if attack in archives.FIRES_ON_USE:
            assert not marker.exists()
            program.module()(torch.zeros(2, 1, 6, 6))
    except Exception:
        pass  # the payload runs before torch notices that the result is of no use
    finally:
        logging.disable(logging.NOTSET)
    assert marker.exists()


@pytest.mark.parametrize(
    "attack",
    [
        a
        for a in archives.FIRES_ON_LOAD + archives.FIRES_ON_USE + archives.OTHERS
        if a is not archives.guard_code
    ],
)
def test_hostile_archive_is_refused_and_nothing_runs(attack: Attack, good: bytes, marker: Path):
    """Each kind of attack is an UnsafeModelError of one line that offers a way on, and leaves no marker."""
    path = marker.parent / "model.pt2"
    path.write_bytes(hostile(attack, good, marker))
    with pytest.raises(UnsafeModelError) as caught:
        load_model(path)
    assert not marker.exists()
    assert "\n" not in str(caught.value)
    assert "model.pt2" in caught.value.message
    assert "--trust-pickle" in caught.value.tip


def test_guards_are_dropped_unread(good: bytes, marker: Path):
    """Guard code is Python source: the program loads and runs without it, and no marker appears."""
    path = marker.parent / "model.pt2"
    path.write_bytes(hostile(archives.guard_code, good, marker))
    loaded = load_model(path)
    loaded.program.module()(torch.zeros(2, 1, 6, 6))
    assert not marker.exists()


def test_what_is_loaded_is_the_rebuilt_archive(good: bytes):
    """The rebuilt archive computes what the original does and keeps its dynamic batch."""
    program = torch.export.load(io.BytesIO(vet(good, "m.pt2").archive))
    original = torch.export.load(io.BytesIO(good))
    x = torch.randn(5, 1, 6, 6)
    assert torch.equal(program.module()(x), original.module()(x))
    assert str(program.range_constraints) == str(original.range_constraints)
    assert [type(p) for p in program.state_dict.values()] == [type(p) for p in original.state_dict.values()]


def test_stack_traces_survive_as_printable_text(good: bytes):
    """Messages can name the user's line; a carriage return, which would end a comment, does not survive."""

    def change(program: dict[str, object]) -> None:
        for node in program["graph_module"]["graph"]["nodes"]:  # type: ignore[index]
            node["metadata"] = {
                "stack_trace": 'File "net.py", line 7, in forward\n    code\rimport os',
                "source_fn_stack": "x,torch.os.system",
                "custom": "{}",
            }

    members = archives.edit(archives.members_of(good), archives.MODEL, change)
    program = torch.export.load(io.BytesIO(vet(archives.pack(members), "m.pt2").archive))
    metas = [node.meta for node in program.graph.nodes if node.op == "call_function"]
    assert all("net.py" in meta["stack_trace"] and "\r" not in meta["stack_trace"] for meta in metas)
    assert not any("source_fn_stack" in meta or "custom" in meta for meta in metas)


def test_member_stored_twice_is_refused(good: bytes):
    """Two members of one name could be read differently by two readers."""
    members = archives.members_of(good)
    buffer = io.BytesIO(archives.pack(members))
    with zipfile.ZipFile(buffer, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(f"archive/{archives.MODEL}", members[archives.MODEL])
    with pytest.raises(UnsafeModelError, match="twice"):
        vet(buffer.getvalue(), "m.pt2")


def test_compressed_member_is_refused(good: bytes):
    """torch stores without compression, so a member that would expand is not inflated."""
    with pytest.raises(ModelError, match="compressed"):
        vet(archives.pack(archives.members_of(good), compress=zipfile.ZIP_DEFLATED), "m.pt2")


@pytest.mark.parametrize(
    ("name", "body", "text"),
    [
        (archives.MODEL, b"{", "damaged"),
        (archives.MODEL, b"[]", "no graph"),
        (archives.MODEL, b"[" * 100_000, "nested too deeply"),
        (archives.MODEL, b"\xff\xfe", "damaged"),
        (archives.WEIGHTS, b'{"config": {"conv.weight": {}}}', "damaged"),
        (archives.WEIGHTS, b"{}", "damaged"),
        ("data/weights/weight_0", b"", "without its weights"),
        ("data/weights/weight_0", b"1234", "bytes"),
        ("byteorder", b"big", "big-endian"),
        ("archive_format", b"zzz", "not marked"),
        ("archive_version", b"77", "cannot load"),
        (archives.SAMPLES, b"junk", "sample inputs"),
        ("models/second.json", b"{}", "2 exported programs"),
    ],
)
def test_damage_is_one_clear_line(name: str, body: bytes, text: str, good: bytes, tmp_path: Path):
    """A damaged member is a ModelError of one line that says which and what."""
    path = tmp_path / "model.pt2"
    path.write_bytes(archives.pack({**archives.members_of(good), name: body}))
    with pytest.raises(ModelError, match=text) as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seed", range(40))
def test_damaged_bytes_are_model_errors(seed: int, good: bytes, tmp_path: Path):
    """Whatever bytes change, the outcome is a loaded program or a ModelError of one line."""
    rng = random.Random(seed)
    content = bytearray(good)
    for _ in range(rng.randint(1, 4)):
        content[rng.randrange(len(content))] = rng.randrange(256)
    path = tmp_path / "model.pt2"
    path.write_bytes(content)
    try:
        load_model(path)
        said = ""
    except ModelError as error:
        said = str(error)
    assert "\n" not in said


def test_tensor_may_not_reach_beyond_its_bytes(good: bytes):
    """A shape or stride that needs more than what is stored is refused before torch sees it."""

    def change(config: dict[str, object]) -> None:
        config["config"]["conv.weight"]["tensor_meta"]["strides"][0] = {"as_int": 10**6}  # type: ignore[index]

    members = archives.edit(archives.members_of(good), archives.WEIGHTS, change)
    with pytest.raises(ModelError, match=r"conv\.weight needs \d+ bytes"):
        vet(archives.pack(members), "m.pt2")


def test_devices_become_the_cpu(good: bytes, tmp_path: Path):
    """A program exported on a GPU loads on a machine without one, and says so."""
    members = archives.members_of(good)
    for name in (archives.MODEL, archives.WEIGHTS, archives.CONSTANTS):
        members[name] = members[name].replace(
            b'"device": {"type": "cpu", "index": null}', b'"device": {"type": "cuda", "index": 0}'
        )
    path = tmp_path / "model.pt2"
    path.write_bytes(archives.pack(members))
    loaded = load_model(path)
    assert loaded.program.module()(torch.zeros(2, 1, 6, 6)).device.type == "cpu"
    assert any("CPU" in note for note in loaded.notes)


def test_extra_text_files_are_kept_aside(tmp_path: Path):
    """Text beside the program (edgeprune's own recipe) is given back and never passed to torch."""
    path = tmp_path / "model.pt2"
    torch.export.save(archives.small_program(), path, extra_files={"recipe.json": "{}"})
    assert load_model(path).extra == {"recipe.json": "{}"}
