"""Measuring a small network in place: what it takes, what it leaves, and what stops it."""

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from profile_samples import small_network
from torch import nn

from edgeprune.coupling.analysis import analyse
from edgeprune.coupling.components import Couplings
from edgeprune.errors import BenchError
from edgeprune.export.export import export_onnx
from edgeprune.graph.trace import reexport, trace
from edgeprune.latency import latency_cost, profile_model, read_profile
from edgeprune.latency.collecting import worst_of_each
from edgeprune.latency.measuring import TIMER, draw_widths
from edgeprune.latency.resizing import Resizable, keep_shares, trial_widths
from edgeprune.latency.sites import Owners, find_sites
from edgeprune.latency.timer import operators
from edgeprune.measure.host import RUNNER
from edgeprune.surgery.cut import cut
from edgeprune.targets import load_target

HOST = load_target("host")


@pytest.fixture(scope="module")
def network():
    return small_network()


@pytest.fixture(scope="module")
def resizable(network, tmp_path_factory):
    return Resizable(*network, tmp_path_factory.mktemp("network"))


def test_a_resized_file_has_the_sizes_of_a_real_export(network, resizable, tmp_path):
    """At widths that were not used to learn, every stored shape is the exporter's, and the file runs."""
    traced, couplings = network
    removed = keep_shares(couplings, np.array([0.3, 0.55]))
    small = cut(traced, couplings, removed)
    export_onnx(reexport(small.graph, small.inputs, small.dynamic), tmp_path / "real.onnx")
    resizable.write(resizable.folder / "made.onnx", couplings.kept(removed))
    shapes = [
        {t.name: tuple(t.dims) for t in onnx.load(path, load_external_data=False).graph.initializer}
        for path in (tmp_path / "real.onnx", resizable.folder / "made.onnx")
    ]
    assert shapes[0] == shapes[1]
    import onnxruntime

    session = onnxruntime.InferenceSession(str(resizable.folder / "made.onnx"))
    (out,) = session.run(None, {session.get_inputs()[0].name: np.ones((1, 3, 8, 8), np.float32)})
    assert out.shape == (1, 10)


def test_trial_widths_tell_all_extents_apart(network):
    """Two channel_maps that differ have different sizes in one of the exports."""
    couplings: Couplings = network[1]
    trials = trial_widths(couplings, 0)
    sizes = {tuple(int(couplings.kept(r)[e]) for r in trials) for e in range(len(couplings.channel_maps))}
    assert len(sizes) == len({tuple(v.tolist()) for v in couplings.channel_maps})


def test_drawn_widths_are_of_every_kind_and_never_empty(network):
    """Multiples of 8 and odd widths both occur; every dimension keeps something; a seed repeats them."""
    couplings = network[1]
    drawn = draw_widths(couplings, 60, 0)
    widths = np.array([couplings.kept(r) for r in drawn])
    assert widths.min() >= 1
    assert (widths % 8 == 0).any()
    assert (widths % 2 == 1).any()
    assert all((a == b).all() for a, b in zip(drawn, draw_widths(couplings, 60, 0), strict=True))


def test_operators_come_back_in_order_without_the_warm_up():
    """Durations of the runs after the warm-up, one list per operator, and nothing outside a run."""
    events = []
    for run in range(3):
        start = 100 * run
        events.append({"cat": "Session", "name": "model_run", "ts": start, "dur": 50})
        for n, name in enumerate(("a", "b")):
            event = {"cat": "Node", "name": f"{name}_kernel_time", "ts": start + 10 * n + 1, "dur": run + n}
            events.append({**event, "args": {"op_name": "Conv", "input_type_shape": [{"float": [1, 2]}]}})
    found, spans = operators(list(reversed(events)), [False, True, True])
    assert [(o["name"], o["us"]) for o in found] == [("a", [1, 2]), ("b", [2, 3])]
    assert spans == [50, 50]
    assert found[0]["inputs"] == [[1, 2]]


def test_every_operator_of_a_real_run_is_counted_once(resizable):
    """Fused and reordered names lead back to the layers; sites and head together are the whole run."""
    kept = np.array([len(e) for e in resizable.couplings.channel_maps])
    resizable.write(resizable.folder / "dense.onnx", kept)
    command = [sys.executable, "-P", str(TIMER), f"--runner={RUNNER}", "--seconds=0.05"]
    done = subprocess.run(
        [*command, str(resizable.folder / "dense.onnx")], capture_output=True, text=True, check=True
    )
    ((base,),) = json.loads(done.stdout)["layers"]["parts"]
    sites = find_sites(resizable)
    parts, head = Owners(resizable, sites).split(base["nodes"])
    assert sum(map(len, parts)) + len(head) == len(base["nodes"])
    assert all(part and part[0]["op"] in ("Conv", "FusedConv", "Gemm", "FusedGemm") for part in parts)
    assert [(s.inputs.dense, s.outputs.dense) for s in sites] == [(3, 16), (16, 32), (32, 10)]


def test_an_interrupted_profile_is_taken_up_again(network, tmp_path, monkeypatch):
    """What was measured before Ctrl-C is kept, and the next run only does the rest."""
    import edgeprune.latency.measuring as measuring

    monkeypatch.setattr(measuring, "TOGETHER", 1)
    monkeypatch.setattr(measuring, "CALLS", 2)
    path = tmp_path / "p.json"

    def stop(done, total):
        raise KeyboardInterrupt

    settings = {"target": HOST, "path": path, "networks": 3, "seconds": 0.1}
    with pytest.raises(KeyboardInterrupt):
        profile_model(*network, progress=stop, **settings)
    begun = read_profile(path)
    assert (len(begun.wholes), begun.complete) == (3, False)
    steps = []
    found = profile_model(*network, progress=lambda done, total: steps.append(done), **settings)
    assert steps == [4]
    assert found.complete
    assert found.points[: len(begun.points)] == begun.points
    assert found == read_profile(path)
    assert profile_model(*network, progress=stop, **settings) == found  # complete: nothing is run
    assert latency_cost(found, *network).dense == pytest.approx(found.dense_ms.value, rel=0.5)


def test_a_file_of_another_request_is_left_alone(network, tmp_path):
    """Another number of networks is another profile; the file is not overwritten."""
    path = tmp_path / "p.json"
    profile_model(*network, target=HOST, path=path, networks=1, seconds=0.05)
    before = path.read_bytes()
    with pytest.raises(BenchError, match="another model, target or setting"):
        profile_model(*network, target=HOST, path=path, networks=2, seconds=0.05)
    assert path.read_bytes() == before


def test_a_target_of_another_architecture_needs_its_board(network):
    """A Pi's times are not taken on this machine."""
    other = "rpi4" if HOST.arch == "x86_64" else "x86-avx2"
    with pytest.raises(BenchError, match="this machine is"):
        profile_model(*network, target=load_target(other), networks=1, seconds=0.05)


def test_lots_that_met_other_work_give_one_warning():
    """Every lot has its own share; the largest is told, beside warnings of other kinds."""
    said = [f"busy: others had {n}% of the cores" for n in (9, 100, 67)]
    assert worst_of_each([*said, "slow: it throttled"]) == (said[1], "slow: it throttled")


@pytest.mark.skipif(HOST.arch != "x86_64", reason="two x86 targets are told apart by their instruction sets")
def test_a_target_of_another_instruction_set_is_not_this_machine(network, tmp_path):
    """AVX-512's times are not taken on a machine without it, nor AVX2's on one with it."""
    other = "x86-avx2" if "avx512f" in HOST.isa else "x86-avx512"
    with pytest.raises(BenchError, match=f"this machine is not {other}: it has .*avx512f"):
        profile_model(*network, target=load_target(other), path=tmp_path / "p.json", networks=1, seconds=0.05)
    assert not (tmp_path / "p.json").exists()


def test_a_model_without_layers_is_one_line():
    """There is nothing to profile in a ReLU."""
    traced = trace(nn.ReLU().eval(), (torch.randn(2, 4),))
    with pytest.raises(BenchError, match="no layer"):
        profile_model(traced, analyse(traced), target=HOST, networks=1, seconds=0.05)


@pytest.mark.parametrize(("name", "value"), [("threads", 0), ("networks", 0), ("seconds", 0.0)])
def test_settings_that_make_no_sense_are_refused(network, name, value):
    """Before anything is exported."""
    with pytest.raises(BenchError, match="above zero"):
        profile_model(*network, target=HOST, **{"threads": 1, "networks": 1, "seconds": 0.05, name: value})
