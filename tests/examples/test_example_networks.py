"""The example networks: widths, committed checkpoints, and the demo's data."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from edgeprune.errors import ModelError
from examples import fashion, measure, nets, training

CHECKPOINTS = sorted(measure.CHECKPOINTS.glob("*.safetensors"))
DEMO = Path(measure.__file__).parent / "demo" / "fashion-small"


@pytest.mark.parametrize("name", sorted(nets.IMAGE_NETS))
def test_shapes_of_the_dense_network_rebuild_it(name):
    """widths_of reads back every width, so a pruned state dict's shapes give the pruned network."""
    dense = nets.IMAGE_NETS[name]()
    shapes = {key: list(value.shape) for key, value in dense.state_dict().items()}
    rebuilt = nets.IMAGE_NETS[name](nets.widths_of(shapes))
    assert {k: list(v.shape) for k, v in rebuilt.state_dict().items()} == shapes


@pytest.mark.parametrize("name", sorted(nets.IMAGE_NETS))
def test_halved_widths_give_a_network_that_runs(name):
    """Every width can change at once, tied ones under any of their names."""
    dense = nets.IMAGE_NETS[name]()
    widths = nets.widths_of({key: list(value.shape) for key, value in dense.state_dict().items()})
    widths = {path: max(1, width // 2) for path, width in widths.items() if path != "classifier"}
    narrow = nets.IMAGE_NETS[name](widths)
    assert narrow(torch.rand(2, 1, 28, 28)).shape == (2, 10)
    assert nets.widths_of({k: v.shape for k, v in narrow.state_dict().items()}) == {
        **widths,
        "classifier": 10,
    }


def test_layers_that_are_added_refuse_different_widths():
    """A residual add needs one width; two are an error that names both layers."""
    with pytest.raises(ModelError, match=r"stage2\.skip\.conv.*stage2\.conv2\.conv"):
        nets.fashion_resnet({"stage2.conv2.conv": 12, "stage2.skip.conv": 13})


@pytest.mark.parametrize(
    ("widths", "text"), [({"stem": 3}, "no layer 'stem'"), ({"stem.conv": 0}, "0 channels")]
)
def test_widths_that_fit_no_layer_are_refused(widths, text):
    """A misspelt layer or an empty one is an error, not ignored."""
    with pytest.raises(ModelError, match=text):
        nets.fashion_resnet(widths)


def test_every_checkpoint_has_a_factory_and_an_account():
    """No weights without the class that takes them and the command that made them."""
    assert {"fashion_resnet", "demo_cnn"} <= {path.stem for path in CHECKPOINTS} <= set(measure.FACTORIES)
    accounts = [json.loads(path.with_suffix(".json").read_text()) for path in CHECKPOINTS]
    assert all(
        a["command"].startswith("python -m examples.") and 0 < a["test_accuracy"] < 1 for a in accounts
    )


@pytest.mark.parametrize("path", CHECKPOINTS, ids=lambda path: path.stem)
def test_checkpoint_is_small_unchanged_and_fits_its_factory(path):
    """The file is the one its JSON account describes, in float32, below 2 MB."""
    blob, facts = path.read_bytes(), json.loads(path.with_suffix(".json").read_text())
    assert len(blob) < 2_000_000
    assert hashlib.sha256(blob).hexdigest() == facts["sha256"]
    assert {value.dtype for value in safetensors.torch.load(blob).values()} <= {torch.float32, torch.int64}
    model = measure.load_network(path.stem)
    assert sum(p.numel() for p in model.parameters()) == facts["parameters"]
    assert training.multiply_adds(model, measure.sample_inputs(path.stem)[:1]) == facts["multiply_adds"]


@pytest.mark.parametrize(("name", "least"), [("fashion_resnet", 0.925), ("demo_cnn", 0.90)])
def test_trained_network_is_as_good_on_the_demo_images_as_it_is_said_to_be(name, least):
    """1,000 test images of the demo give the recorded accuracy to within four standard errors."""
    images, labels = fashion.load_part(DEMO, "test")
    part = fashion.as_part(images[:1000], labels[:1000])
    recorded = json.loads((measure.CHECKPOINTS / f"{name}.json").read_text())["test_accuracy"]
    assert recorded >= least
    found = training.evaluate(measure.load_network(name), part)
    assert abs(found - recorded) < 4 * (recorded * (1 - recorded) / 1000) ** 0.5


def test_demo_files_are_small_enough_to_travel():
    """Each of the four files is below 2 MB, and both parts hold all ten classes evenly enough to measure."""
    assert all(path.stat().st_size < 2_000_000 for path in DEMO.iterdir())
    for name in ("train", "test"):
        _, labels = fashion.load_part(DEMO, name)
        assert len(labels) == 4000
        assert min(int((labels == k).sum()) for k in range(10)) > 300
