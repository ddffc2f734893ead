"""--heads and --groups: which of two factors of one dimension is free, by command and from Python."""

from __future__ import annotations

import json

import pytest
import torch
from click.testing import CliRunner
from torch import nn
from torch.nn import functional as F

import edgeprune
from edgeprune.cli import cli
from edgeprune.errors import EdgepruneError


class Net(nn.Module):
    """Three heads of width four, then a convolution in two groups over time."""

    heads = 3

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = nn.Linear(5, 12), nn.Linear(5, 12), nn.Linear(5, 12)
        self.out, self.conv = nn.Linear(12, 8), nn.Conv1d(8, 12, 3, padding=1, groups=2)
        self.head = nn.Linear(12, 3)

    def split(self, x):
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, x):
        y = F.scaled_dot_product_attention(
            self.split(self.q(x)), self.split(self.k(x)), self.split(self.v(x))
        )
        y = self.out(y.transpose(1, 2).flatten(2))
        return self.head(torch.relu(self.conv(y.transpose(1, 2))).mean(2))


@pytest.fixture
def model(tmp_path, monkeypatch):
    """The network as an exported program, in the folder where commands run."""
    torch.manual_seed(0)
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(Net().eval(), (torch.randn(2, 6, 5),), dynamic_shapes=({0: batch},))
    torch.export.save(program, tmp_path / "model.pt2")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def answer(*args):
    done = CliRunner().invoke(cli, [*args, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def kept(folder, name):
    return json.loads((folder / "out.recipe.json").read_text())["tensors"][name]["keep"]["0"]


def test_inspect_shows_what_each_choice_frees(model):
    """Whole: three heads, two groups. Width: four positions that all heads lose together. The rest stays."""
    whole, width = answer("inspect", "model.pt2"), answer("inspect", "model.pt2", "--heads", "width")
    position = answer("inspect", "model.pt2", "--groups", "position")
    assert whole["components"] == 3 + 2
    assert width["components"] == 4 + 4 + 2  # of queries with keys, of values, groups
    assert position["components"] == 3 + 4 + 6  # heads, then inputs and outputs of each group


def test_prune_removes_the_same_positions_of_every_head_and_group(model):
    """What one head loses all lose; three heads and two groups are left, and the scale of the full head."""
    answer(
        "prune", "model.pt2", "--macs", "0.6", "--criterion", "l2",
        "--heads", "width", "--groups", "position", "-o", "out.pt2",
    )  # fmt: skip
    for name, rows in (("q.weight", 3), ("v.weight", 3), ("conv.weight", 2)):
        period = 12 // rows
        first = [i for i in kept(model, name) if i < period]
        assert 0 < len(first) < period
        assert kept(model, name) == [r * period + i for r in range(rows) for i in first]
    graph = torch.export.load(model / "out.pt2").module()
    scales = [n.kwargs.get("scale") for n in graph.graph.nodes if "scaled_dot" in str(n.target)]
    assert scales == [pytest.approx(4**-0.5)]


def test_prune_removes_whole_heads_and_groups_unless_told(model):
    """The default is what it was, and the recipe says nothing of a choice."""
    answer("prune", "model.pt2", "--macs", "0.6", "--criterion", "l2", "-o", "out.pt2")
    assert {i // 4 for i in kept(model, "q.weight")} != {0, 1, 2} and len(kept(model, "q.weight")) % 4 == 0
    assert "choice" not in json.loads((model / "out.recipe.json").read_text())


def test_apply_reads_the_choice_from_the_recipe(model):
    """Groups of fewer positions fit the user's class; the recipe says how its components were made."""
    (model / "choicenet.py").write_text(
        "import torch\nfrom torch import nn\n\ndef build():\n    torch.manual_seed(0)\n"
        "    return nn.Sequential(nn.Conv1d(3, 8, 3), nn.ReLU(), nn.Conv1d(8, 8, 3, groups=2), nn.ReLU(),\n"
        "        nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 3)).eval()\n"
    )
    scope: dict = {}
    exec((model / "choicenet.py").read_text(), scope)
    torch.save(scope["build"]().state_dict(), "state.pt")
    named = ("state.pt", "--model", "choicenet:build", "--input-shape", "3,12")
    how = ("--criterion", "l2", "--allocation", "uniform", "--groups", "position")
    answer("prune", *named, "--macs", "0.5", *how, "-o", "out.pt2")
    assert json.loads((model / "out.recipe.json").read_text())["choice"]["groups"] == "position"
    changed = answer("apply", "out.recipe.json", *named)["attributes"]
    assert "2.groups" not in changed and changed["2.out_channels"][1] < 8


def test_compress_takes_the_choice_as_a_setting_and_refuses_others(model):
    """Through two rounds the same factor is free; a word that is none is named."""
    settings = {
        "criterion": "l2", "macs": 0.5, "rounds": 2, "epochs": 0, "front": 0, "int8": "off", "align": 1,
        "objective": "macs", "bench_seconds": 0.3, "output": model / "run",
    }  # fmt: skip
    edgeprune.compress("model.pt2", heads="width", groups="position", **settings)
    plan = json.loads((model / "run" / "recipe.json").read_text())
    assert plan["choice"] == {"heads": "width", "groups": "position"}
    left = plan["tensors"]["q.weight"]["keep"]["0"]
    assert left == [4 * h + i for h in range(3) for i in left[: len(left) // 3]]
    with pytest.raises(EdgepruneError, match="--heads wide: not one of whole, width"):
        edgeprune.compress("model.pt2", heads="wide", **settings)
