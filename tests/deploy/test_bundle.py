"""What may travel: whole bundles; hostile and damaged ones are refused before anything is written."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from device_samples import write_run

from edgeprune.cli.device import ship
from edgeprune.deploy.agent import MANIFEST, Refused, receive, safe_name
from edgeprune.deploy.bundle import open_bundle, write_bundle
from edgeprune.deploy.emulation import find_sandbox
from edgeprune.errors import OutputError, ShipError


@pytest.fixture
def written(run_folder, tmp_path):
    """A bundle written as a folder."""
    write_bundle(open_bundle(run_folder), tmp_path / "bundle")
    return tmp_path / "bundle"


def seal(folder: Path, manifest: dict) -> None:
    """Write a manifest with a seal that fits it, as an attacker would."""
    text = json.dumps(manifest).encode()
    (folder / MANIFEST).write_bytes(text)
    (folder / "manifest.sha256").write_text(hashlib.sha256(text).hexdigest())


def manifest_of(folder: Path) -> dict:
    return json.loads((folder / MANIFEST).read_text())


def test_a_bundle_holds_what_a_device_needs(run_folder):
    """Model, runner, recorded inputs and outputs, examples, and a manifest that describes them all."""
    bundle = open_bundle(run_folder)
    assert {"model.onnx", "runner.py", "usage.py", "usage.cpp", "golden/call0.npz", MANIFEST} <= set(
        bundle.files
    )
    found = bundle.manifest
    assert found["inputs"] == [{"name": "image", "shape": [3, 1, 12, 12], "dtype": "float32"}]
    assert found["outputs"][0]["name"] == "logits"
    assert found["preprocessing"]["scale"] == pytest.approx(1 / 255)
    assert found["class_names"][3] == "class 3"
    assert found["versions"]["opset"] == 20
    assert set(found["files"]) == set(bundle.files) - {MANIFEST}


def test_the_same_run_is_the_same_release(run_folder, tmp_path):
    """Identity depends on content only: another place gives the same; another model does not."""
    shutil.copytree(run_folder, tmp_path / "again")
    assert open_bundle(run_folder).identity == open_bundle(tmp_path / "again").identity
    other = write_run(tmp_path / "other", seed=1)
    assert open_bundle(other).identity != open_bundle(run_folder).identity


def test_a_written_bundle_opens_as_the_same_release(run_folder, written):
    """Writing and opening again changes nothing, external data included."""
    assert open_bundle(written).identity == open_bundle(run_folder).identity


def test_external_data_travels(tmp_path):
    """The data file beside a model is part of the bundle and of its manifest."""
    bundle = open_bundle(write_run(tmp_path / "run", external=True))
    assert "model.onnx.data" in bundle.manifest["files"]
    write_bundle(bundle, tmp_path / "bundle")
    assert open_bundle(tmp_path / "bundle").identity == bundle.identity


def test_a_folder_that_exists_is_not_overwritten(run_folder, tmp_path):
    """A bundle is written to a new folder or not at all."""
    (tmp_path / "there").mkdir()
    with pytest.raises(OutputError, match="exists already"):
        write_bundle(open_bundle(run_folder), tmp_path / "there")
    with pytest.raises(OutputError, match="cannot write"):
        write_bundle(open_bundle(run_folder), run_folder / "model.onnx" / "below")
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_a_run_that_lacks_something_is_refused(run_folder, tmp_path):
    """No folder, no recorded outputs, unreadable JSON and a linked model each have their sentence."""
    with pytest.raises(ShipError, match="no such folder"):
        open_bundle(tmp_path / "nowhere")
    (run_folder / "preprocess.json").write_text("{")
    with pytest.raises(ShipError, match="not JSON"):
        open_bundle(run_folder)
    (run_folder / "preprocess.json").unlink()
    model = run_folder / "model.onnx"
    model.rename(tmp_path / "elsewhere.onnx")
    model.symlink_to(tmp_path / "elsewhere.onnx")
    with pytest.raises(ShipError, match=r"model\.onnx is a link"):
        open_bundle(run_folder)
    (run_folder / "golden.npz").unlink()
    model.unlink()
    with pytest.raises(ShipError, match=r"model\.onnx is missing"):
        open_bundle(run_folder)


def test_a_model_that_contradicts_its_records_does_not_travel(run_folder):
    """Recorded outputs of another model are found on this machine already."""
    with np.load(run_folder / "golden.npz") as golden:
        arrays = dict(golden)
    arrays["output_0"] = arrays["output_0"] + 0.5
    np.savez(run_folder / "golden.npz", **arrays)
    with pytest.raises(ShipError, match="contradicts its recorded outputs"):
        open_bundle(run_folder)
    np.savez(run_folder / "golden.npz", input_0=arrays["input_0"])
    with pytest.raises(ShipError, match="no output_0"):
        open_bundle(run_folder)


def change_hash(folder, manifest):
    manifest["files"]["model.onnx"]["sha256"] = "0" * 64


def climb(folder, manifest):
    (folder.parent / "outside").write_text("x")
    manifest["files"]["../outside"] = {"sha256": hashlib.sha256(b"x").hexdigest(), "bytes": 1}


def absolute(folder, manifest):
    manifest["files"]["/etc/passwd"] = {"sha256": "0" * 64, "bytes": 1}


def windows(folder, manifest):
    manifest["files"]["..\\outside"] = {"sha256": "0" * 64, "bytes": 1}


def link(folder, manifest):
    (folder / "usage.py").unlink()
    (folder / "usage.py").symlink_to("/etc/passwd")


def linked_folder(folder, manifest):
    (folder / "golden").rename(folder.parent / "moved")
    (folder / "golden").symlink_to(folder.parent / "moved")


def extra(folder, manifest):
    (folder / "extra.sh").write_text("reboot")


def missing(folder, manifest):
    (folder / "usage.py").unlink()


def unlisted_runner(folder, manifest):
    manifest["smoke"]["runner"] = "../runner.py"


def external_outside(folder, manifest):
    model = onnx.load(folder / "model.onnx")
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../outside")
    data = model.SerializeToString()
    (folder / "model.onnx").write_bytes(data)
    manifest["files"]["model.onnx"] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def no_files(folder, manifest):
    del manifest["files"]


def other_kind(folder, manifest):
    manifest["schema"] = 99


@pytest.mark.parametrize(
    ("attack", "says"),
    [
        (change_hash, "does not have the checksum"),
        (climb, "refused the file name"),
        (absolute, "refused the file name"),
        (windows, "refused the file name"),
        (link, "is a link"),
        (linked_folder, "not those of the manifest"),
        (extra, "not those of the manifest: extra.sh"),
        (missing, "not those of the manifest: usage.py"),
        (unlisted_runner, "does not list ../runner.py"),
        (external_outside, "lies outside the model's folder"),
        (no_files, "files: missing"),
        (other_kind, "not a bundle of schema"),
    ],
)
def test_hostile_bundles_are_refused_even_when_resealed(written, tmp_path, attack, says):
    """Whatever was planted, opening raises, and the command ends before it connects anywhere."""
    manifest = manifest_of(written)
    attack(written, manifest)
    seal(written, manifest)
    with pytest.raises(ShipError, match=says):
        open_bundle(written)
    with pytest.raises(ShipError, match=says):
        CliRunner().invoke(ship, [str(written), "nowhere.invalid:/x"], catch_exceptions=False)


def test_a_manifest_that_was_changed_is_noticed(written):
    """One changed word without a new seal is enough; so is a lost seal."""
    text = (written / MANIFEST).read_text()
    (written / MANIFEST).write_text(text.replace("class 3", "class 4"))
    with pytest.raises(ShipError, match="changed after it was made"):
        open_bundle(written)
    (written / "manifest.sha256").unlink()
    with pytest.raises(ShipError, match=r"manifest\.sha256 is missing"):
        open_bundle(written)


@pytest.mark.parametrize(
    "name",
    ["../x", "/x", "a/../b", "a//b", "", ".", "..", ".hidden", "a/.b", "a\\b", "-rf", "a\nb", "é", 3, None],
)
def test_the_device_checks_names_too(name, tmp_path):
    """The receiving side refuses them by itself, before it creates a file."""
    with pytest.raises(Refused, match="refused the file name"):
        safe_name(name)
    with pytest.raises(Refused):
        receive(tmp_path, [{"name": name, "bytes": 1, "sha256": "0" * 64}], None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["model.onnx", "golden/call0.npz", "model.onnx.data", "a-b_c+d@e 1"])
def test_ordinary_names_pass(name):
    """What exporters and this project call their files is accepted."""
    assert safe_name(name) == name


def test_the_python_example_works_as_it_is(written):
    """usage.py runs the recorded inputs, names the classes, and takes a file of raw samples."""
    done = subprocess.run([sys.executable, written / "usage.py"], capture_output=True, text=True, check=True)
    assert "largest difference from the recorded outputs: 0" in done.stdout
    assert done.stdout.count("sample ") == 3
    raw = np.random.default_rng(0).integers(0, 256, (2, 1, 12, 12)).astype(np.uint8)
    np.save(written.parent / "raw.npy", raw)
    command = [sys.executable, written / "usage.py", written.parent / "raw.npy"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.count("class ") == 2


def onnxruntime_for_cpp(folder: Path) -> tuple[Path, Path]:
    """Headers from the sandbox and the wheel's own library under the name a linker looks for."""
    import onnxruntime

    sandbox = find_sandbox()
    if sandbox is None or not (sandbox.folder / "include").is_dir():
        pytest.skip("no onnxruntime headers (make arm64)")
    if shutil.which("g++") is None:
        pytest.skip("no g++")
    libraries = sorted((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*"))
    if not libraries:
        pytest.skip("this onnxruntime wheel has no separate library")
    folder.mkdir()
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (folder / name).symlink_to(libraries[0])
    return sandbox.folder / "include", folder


@pytest.mark.device
def test_the_cpp_example_compiles_and_runs(run_folder, tmp_path):
    """usage.cpp builds without a warning against onnxruntime's headers and agrees with the records."""
    include, library = onnxruntime_for_cpp(tmp_path / "lib")
    facts = json.loads((run_folder / "preprocess.json").read_text())
    facts["class_names"][0] = 'odd "name" \\ ü'
    (run_folder / "preprocess.json").write_text(json.dumps(facts))
    bundle = tmp_path / "bundle"
    write_bundle(open_bundle(run_folder), bundle)
    build = ["g++", "-std=c++17", "-O1", "-Wall", "-Wextra", "-isystem", include, f"-L{library}"]
    build += [f"-Wl,-rpath,{library}", bundle / "usage.cpp", "-lonnxruntime", "-o", tmp_path / "usage"]
    made = subprocess.run(build, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    assert "warning" not in made.stderr
    done = subprocess.run([tmp_path / "usage"], cwd=bundle, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("sample ") == 3
    outputs = np.fromfile(bundle / "golden/output_0.bin", np.float32)
    outputs[0] += 1
    outputs.tofile(bundle / "golden/output_0.bin")
    assert subprocess.run([tmp_path / "usage"], cwd=bundle, capture_output=True).returncode == 1
    assert subprocess.run([tmp_path / "usage", "/nowhere"], capture_output=True).returncode == 2


def test_the_command_writes_a_bundle(run_folder, tmp_path):
    """`ship RUN --bundle FOLDER` needs no board."""
    done = CliRunner().invoke(
        ship, [str(run_folder), "--bundle", str(tmp_path / "b")], catch_exceptions=False
    )
    assert "release " in done.output
    assert os.path.isfile(tmp_path / "b" / MANIFEST)


def test_the_target_of_the_run_decides_the_architecture(run_folder):
    """A run for rpi4 is for aarch64 unless told otherwise; an unknown target asks; the host's is for any."""
    assert open_bundle(run_folder).manifest["architecture"] is None
    report = {"model": {"name": "cnn"}, "target": {"name": "rpi4"}}
    (run_folder / "report.json").write_text(json.dumps(report))
    assert open_bundle(run_folder).manifest["architecture"] == "aarch64"
    assert open_bundle(run_folder, architecture="any").manifest["architecture"] is None
    report["target"]["name"] = "no-such-board"
    (run_folder / "report.json").write_text(json.dumps(report))
    with pytest.raises(ShipError, match="the report's target"):
        open_bundle(run_folder)
