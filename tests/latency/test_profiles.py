"""The profile file, and refusing one that was measured for something else."""

import json
from dataclasses import replace

import pytest
from profile_samples import MACHINE, made_up

from edgeprune.errors import BenchError
from edgeprune.latency import check_compatibility, read_profile, write_profile
from edgeprune.targets import load_target


def test_a_profile_comes_back_as_it_was_written(tmp_path):
    """Writing and reading keep every point, width and warning."""
    profile = replace(made_up(), warnings=("the machine was busy",))
    write_profile(tmp_path / "p.json", profile)
    found = read_profile(tmp_path / "p.json")
    assert replace(found, points=(), wholes=()) == replace(profile, points=(), wholes=())
    assert [p.ms.value for p in found.points] == pytest.approx([p.ms.value for p in profile.points], abs=1e-6)
    assert [w.widths for w in found.wholes] == [w.widths for w in profile.wholes]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not JSON"),
        ("[1, 2]", "not a latency profile"),
        ('{"kind": "something"}', "not a latency profile"),
        ('{"kind": "edgeprune latency profile", "schema": 99}', "schema 99"),
        ('{"kind": "edgeprune latency profile", "schema": 1}', "damaged"),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path, text, says):
    """Whatever is in the file, it is refused with its name, the finding and what to do."""
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(BenchError, match=says) as caught:
        read_profile(tmp_path / "p.json")
    assert "\n" not in str(caught.value)
    assert caught.value.tip


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("points", [[0, 8, 8, 1, 1.0, 2.0, 3.0]]),
        ("points", [[7, 8, 8, 1, 1.0, 0.5, 3.0]]),
        ("points", [[0, 8]]),
        ("wholes", []),
        ("layers", [{"node": "x"}]),
        ("machine", "x86"),
        ("lots", []),
        ("threads", None),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(tmp_path, field, value):
    """Intervals that do not hold their value, points of no layer and missing parts are damage."""
    write_profile(tmp_path / "p.json", made_up())
    raw = json.loads((tmp_path / "p.json").read_text())
    (tmp_path / "p.json").write_text(json.dumps({**raw, field: value}))
    with pytest.raises(BenchError, match=rf"p\.json: (damaged|{field})"):
        read_profile(tmp_path / "p.json")


def test_a_missing_file_says_how_to_get_one(tmp_path):
    """The tip is the command."""
    with pytest.raises(BenchError, match="edgeprune profile"):
        read_profile(tmp_path / "none.json")


def test_other_threads_are_refused():
    """Times on one thread say nothing of four."""
    with pytest.raises(BenchError, match="with 1 thread"):
        check_compatibility(made_up(), threads=4)
    assert check_compatibility(made_up(), threads=1) == ()


def test_another_architecture_is_refused_and_another_target_of_the_same_is_said():
    """A profile of an x86 machine never prices a Pi; one made for another x86 target is named."""
    with pytest.raises(BenchError, match="target rpi4 is aarch64"):
        check_compatibility(made_up(), target=load_target("rpi4"))
    (said,) = check_compatibility(made_up(), target=load_target("x86-avx2"))
    assert "measured for target host, not x86-avx2" in said


def test_a_target_that_the_profiles_machine_cannot_be_is_refused():
    """Whatever a file calls its target: a machine without AVX-512 gives no times of one with it."""
    called = replace(made_up(), target="x86-avx512")
    with pytest.raises(BenchError, match="the profile's machine is not x86-avx512: it has no avx512_vnni"):
        check_compatibility(called, target=load_target("x86-avx512"))


def test_a_profile_that_does_not_say_its_instruction_set_is_warned_about():
    """Files from before it was recorded may serve, but never in silence."""
    old = {name: value for name, value in MACHINE.items() if name != "flags"}
    said = check_compatibility(
        replace(made_up(), machine=old, target="x86-avx2"), target=load_target("x86-avx2")
    )
    assert said == ("the profile does not say the instruction set of its machine: is it x86-avx2?",)


@pytest.mark.parametrize("field", ["architecture", "processor", "board"])
def test_another_processor_is_refused(field):
    """The facts that the runner gives must be those of the profile."""
    with pytest.raises(BenchError, match=field):
        check_compatibility(made_up(), machine={**MACHINE, field: "another"})


def test_another_runtime_is_warned_about():
    """Kernels change between versions: the profile may serve, but never in silence."""
    (said,) = check_compatibility(made_up(), machine={**MACHINE, "onnxruntime": "9.9"})
    assert "this is 9.9" in said


def test_an_unfinished_and_an_unsteady_profile_say_so():
    """Warnings of the run itself stay with the profile."""
    profile = replace(made_up(), planned=99, lots=((1.0, 1.0), (2.0, 1.0)))
    said = " | ".join(check_compatibility(profile))
    assert "unfinished" in said
    assert "unsteady" in said
    assert (profile.dense_ms.low, profile.dense_ms.high) == (1.0, 2.0)
