"""The commands of the single stages: inspect, score, prune, export, explain."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from shop import MODEL
from torch.nn.utils import prune as torch_prune

from edgeprune.frontend.load import load_model

DATA = ("--data", "digits.npz", "--calibration", "64")
LAYERS = {"0": 8, "3": 12, "7": 10}


def build(shop, state=None):
    """The network of the shop in evaluation mode."""
    spec = importlib.util.spec_from_file_location("shopnet_twin", shop.path / "shopnet.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    net = module.build()
    net.load_state_dict(shop.state() if state is None else state)
    return net.eval()


def answer(shop, path):
    """What a .pt2 computes on the shop's samples."""
    program = load_model(shop.path / path).program
    with torch.no_grad():
        return program.module()(torch.from_numpy(shop.x[:100])).numpy()


def widths(recipe):
    """Kept output channels per layer that a recipe names."""
    tensors = json.loads(recipe.read_text())["tensors"]
    return {
        name.removesuffix(".weight"): t["keep"]["0"]
        for name, t in tensors.items()
        if name.endswith(".weight") and len(t["shape"]) > 1 and "0" in t["keep"]
    }


def test_inspect_counts_what_the_network_is_made_of(shop):
    """MACs, parameters, free channels and pins follow from the layer sizes, by hand."""
    found = json.loads(shop.run("inspect", *MODEL, "--json").out)
    assert found["macs"] == 8 * 64 * 9 + 12 * 16 * 8 * 9 + 480
    assert found["params"] == sum(p.numel() for p in build(shop).parameters())
    assert found["inputs"] == [{"shape": [1, 8, 8], "dtype": "float32", "batch": None}]
    assert {r["name"]: (r["outputs"], r["free"]) for r in found["layers"]} == {
        "0": (8, 8),
        "3": (12, 12),
        "7": (10, 0),
    }
    assert found["components"] == 20 and found["free_share"] == pytest.approx(20 / 30)
    # One channel of each convolution stays: 1·64·9 + 1·16·1·9 + 4·10.
    assert found["floor_macs"] == 576 + 144 + 40
    assert [p["channels"] for p in found["pinned"]] == [10]
    text = shop.run("inspect", *MODEL).out
    assert "66.7% of the channels are free" in text and "batch free" in text and "output" in text


def test_inspect_keeps_what_it_is_told_to(shop):
    """A layer named with --keep has no free channel, and the reason says so."""
    found = json.loads(shop.run("inspect", *MODEL, "--keep", "3", "--json").out)
    assert {r["name"]: r["free"] for r in found["layers"]} == {"0": 8, "3": 0, "7": 0}
    assert "kept by request" in [p["reason"] for p in found["pinned"]]


def test_score_writes_every_connection_and_prints_nats(shop):
    """Component scores with ranks 0.., connection arrays of the weights' shapes, a row per group."""
    found = shop.run("score", *MODEL, *DATA, "-o", "scores.npz")
    assert found.code == 0, found.err
    assert "nats" in found.out and "goes first" in found.out
    with np.load(shop.path / "scores.npz") as arrays:
        assert arrays["component"].shape == arrays["rank"].shape == (20,)
        for group in np.unique(arrays["group"]):
            mine = arrays["group"] == group
            assert sorted(arrays["rank"][mine]) == list(range(mine.sum()))
            by_rank = arrays["component"][mine][np.argsort(arrays["rank"][mine])]
            assert (np.diff(by_rank) >= 0).all()
        for name, tensor in shop.state().items():
            if name in ("3.weight", "7.weight"):
                assert arrays[f"connections/{name}"].shape == tuple(tensor.shape)
        assert arrays["channels/3"].shape == (12,) and (arrays["channels/7"] == -1).all()
        assert ((arrays["p_value"] > 0) & (arrays["p_value"] <= 1)).all()


def test_score_takes_the_samples_that_compress_takes(shop, finished):
    """With the same seed and sizes the scores are those of the run's first round."""
    found = json.loads(shop.run("score", *MODEL, *DATA, "--json").out)
    with np.load(finished[0] / "rounds" / "1.npz") as first:
        assert len(first["score"]) == len(found["components"]["score"])
        np.testing.assert_allclose(found["components"]["score"], first["score"], rtol=1e-4, atol=1e-12)
    assert (found["unit"], found["labels"], found["samples"]) == ("nats", "labels", 52)


def test_score_by_weights_needs_no_data(shop):
    """l2 is the norm of the producing filters; an information criterion without data is refused."""
    found = json.loads(shop.run("score", *MODEL, "--criterion", "l2", "--json").out)
    norms = shop.state()["0.weight"].flatten(1).norm(dim=1).numpy()
    groups = [g["group"] for g in found["groups"]]
    mine = np.array(found["components"]["group"]) == groups.index("0")
    np.testing.assert_allclose(np.array(found["components"]["score"])[mine], norms, rtol=1e-6)
    shop.run("score", *MODEL).refused(16, "CriterionError", "needs data", "--data")
    shop.run("score", *MODEL, "--criterion", "tailor").refused(16, "CriterionError", "mean taylor")


def test_prune_by_magnitude_keeps_the_largest_filters(shop):
    """At half of the MACs without data each layer keeps its filters of largest norm; a recipe says which."""
    found = shop.run("prune", *MODEL, "--macs", "2x", "--criterion", "l2", "-o", "out/half.pt2", "--json")
    assert found.code == 0, found.err
    plain = json.loads(found.out)
    assert plain["macs"]["after"] <= 0.5 * plain["macs"]["before"]
    kept = widths(shop.path / "out" / "half.recipe.json")
    assert kept
    for name, channels in kept.items():
        norms = shop.state()[f"{name}.weight"].flatten(1).norm(dim=1).numpy()
        assert sorted(channels) == sorted(np.argsort(-norms)[: len(channels)])
    assert plain["macs"]["after"] == json.loads(shop.run("inspect", "out/half.pt2", "--json").out)["macs"]
    assert answer(shop, "out/half.pt2").shape == (100, 10)


def test_prune_with_data_recovers_in_closed_form(shop):
    """Refitting gives no fewer correct answers than the bare removal of the same channels."""
    asked = ("prune", *MODEL, *DATA, "--macs", "0.4", "--json")
    bare = json.loads(shop.run(*asked, "--no-recover", "-o", "bare.pt2").out)
    refit = json.loads(shop.run(*asked, "-o", "refit.pt2").out)
    assert bare["macs"] == refit["macs"]
    assert (shop.path / "bare.recipe.json").read_text() == (shop.path / "refit.recipe.json").read_text()
    assert (bare["recovered"], refit["recovered"]) == (False, True)
    assert refit["validation"]["given"] == bare["validation"]["given"] > 0.8
    assert refit["validation"]["pruned"] > bare["validation"]["pruned"]


def test_a_mask_alone_changes_no_output(shop):
    """Filters masked whole go; the result computes what the masked network computes, to rounding."""
    state = shop.state()
    keep = {name: np.ones(tuple(state[name].shape), bool) for name in ("0.weight", "3.weight")}
    keep["3.weight"][[1, 5, 6]] = False
    keep["3.weight"][:, 2] = False  # nothing reads channel 2 of the first layer any more
    keep["3.weight"][0, 0, 0, 0] = False  # cannot become removal
    np.savez(shop.path / "mask.npz", **keep)
    found = json.loads(shop.run("prune", *MODEL, "--mask", "mask.npz", "-o", "masked.pt2", "--json").out)
    assert found["components"] == {"before": 20, "removed": 4}
    assert found["lossless"]["removed"] == 4
    assert found["mask"]["masked"] == (~keep["3.weight"]).sum()
    assert found["mask"]["given_up"] == 1
    masked = {n: t * torch.from_numpy(keep[n]) if n in keep else t for n, t in state.items()}
    with torch.no_grad():
        wanted = build(shop, masked)(torch.from_numpy(shop.x[:100])).numpy()
    np.testing.assert_allclose(answer(shop, "masked.pt2"), wanted, atol=1e-4)


def test_zeros_and_prune_hooks_are_masks_too(shop):
    """The same filters zeroed in the weights, or pruned by torch.nn.utils.prune, give the same network."""
    net = build(shop)
    torch_prune.ln_structured(net[3], "weight", amount=4, n=2, dim=0)
    torch.save(net.state_dict(), shop.path / "hooked.pt")
    hooked = ("hooked.pt", *MODEL[1:])
    by_hooks = json.loads(shop.run("prune", *hooked, "-o", "hooks.pt2", "--json").out)
    assert by_hooks["components"]["removed"] == 4 and by_hooks["mask"]["given_up"] == 0
    assert "torch.nn.utils.prune" in by_hooks["notes"][0]
    torch_prune.remove(net[3], "weight")
    torch.save(net.state_dict(), shop.path / "zeros.pt")
    by_zeros = json.loads(
        shop.run("prune", "zeros.pt", *MODEL[1:], "--mask", "weights", "-o", "zeros.pt2", "--json").out
    )
    assert by_zeros["components"] == by_hooks["components"]
    np.testing.assert_array_equal(answer(shop, "hooks.pt2"), answer(shop, "zeros.pt2"))
    # Every other command reads such a file as the plain network.
    assert shop.run("inspect", *hooked).code == 0


def test_a_mask_with_a_budget_goes_by_evidence(shop):
    """Beyond what is dead, the channels that the mask thins out most go first."""
    state = shop.state()
    keep = np.ones(tuple(state["3.weight"].shape), bool)
    thin = [2, 3, 7]
    keep[:, thin] = False
    keep[0, thin, 1, 1] = True  # one live weight each: not dead
    np.savez(shop.path / "thin.npz", **{"3.weight": keep})
    found = shop.run(
        "prune", *MODEL, "--mask", "thin.npz", "--macs", "0.72", "--keep", "3", "-o", "thin.pt2", "--json"
    )
    assert found.code == 0, found.err
    plain = json.loads(found.out)
    assert set(thin) <= set(range(8)) - set(widths(shop.path / "thin.recipe.json")["0"])
    assert plain["mask"]["live_removed"] >= 3 and plain["criterion"] == "l2"


@pytest.mark.parametrize(
    ("mask", "code", "kind", "word"),
    [
        ("absent.npz", 13, "MaskError", "no such file"),
        ("digits.npz", 13, "MaskError", "holds"),
        ("odd.npz", 13, "MaskError", "did you mean '3.weight'"),
        ("flat.npz", 13, "MaskError", "12×8×3×3"),
    ],
)
def test_masks_that_do_not_fit_are_refused(shop, mask, code, kind, word):
    """Missing, no mask at all, an unknown tensor, another shape: each named, nothing written."""
    np.savez(shop.path / "odd.npz", **{"3.weights": np.ones((12, 8, 3, 3))})
    np.savez(shop.path / "flat.npz", **{"3.weight": np.ones((12, 72))})
    found = shop.run("prune", *MODEL, "--mask", mask, "-o", "never.pt2")
    found.refused(code, kind, word)
    assert not (shop.path / "never.pt2").exists() and not (shop.path / "never.recipe.json").exists()


def test_prune_inputs_needs_inputs_with_features(shop):
    """One grey channel is nothing to choose from, and the message says so."""
    asked = ("prune", *MODEL, "--macs", "0.5", "--criterion", "l2", "--prune-inputs")
    shop.run(*asked).refused(3, "ModelError", "--prune-inputs", "it has one feature")


def test_prune_asks_what_to_remove(shop):
    """Neither a budget nor a mask is a usage error; a budget below the floor names what is pinned."""
    found = shop.run("prune", *MODEL)
    assert found.code == 2 and "--macs 0.5" in found.err
    found = shop.run("prune", *MODEL, "--macs", "0.001", "--criterion", "l2")
    found.refused(6, "BudgetError", "has to stay", "output")
    shop.run("prune", *MODEL, "--macs", "0.5").refused(5, "DataError", "--criterion l2 --macs 0.5")


def test_export_gives_a_file_that_computes_the_same(shop):
    """The pruned .pt2 as ONNX: opset, free batch, real inputs, and the outputs of the .pt2."""
    assert shop.run("prune", *MODEL, "--macs", "0.6", "--criterion", "l2", "-o", "small.pt2").code == 0
    found = shop.run("export", "small.pt2", "--data", "digits.npz", "-o", "small.onnx", "--json")
    assert found.code == 0, found.err
    plain = json.loads(found.out)
    assert (plain["opset"], plain["dynamic_batch"], plain["parity_inputs"]) == (18, True, "data")
    assert plain["parity"]["top1_agreement"] == 1.0
    session = onnxruntime.InferenceSession(str(shop.path / "small.onnx"))
    out = session.run(None, {session.get_inputs()[0].name: shop.x[:100]})[0]
    np.testing.assert_allclose(out, answer(shop, "small.pt2"), atol=1e-4)


def test_export_fixes_the_batch_on_request(shop):
    """The batch and the opset asked for are in the file; without data parity is on seeded noise."""
    asked = ("export", "net.pt2", "--fixed-batch", "3", "--opset", "20", "--no-simplify", "-o", "three.onnx")
    found = shop.run(*asked)
    assert found.code == 0, found.err
    assert "batch fixed" in found.out and "random samples" in found.out
    model = onnx.load(shop.path / "three.onnx")
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 3
    assert max(o.version for o in model.opset_import if o.domain == "") == 20


def test_a_batch_that_the_program_cannot_have_is_refused(shop):
    """A program that was exported for one batch size is not silently exported at another."""

    class Stuck(torch.nn.Linear):
        def forward(self, x):
            return super().forward(x[:, 0].permute(1, 0, 2).reshape(8, x.shape[0], 8)).mean(0)

    program = torch.export.export(Stuck(8, 10).eval(), (torch.randn(2, 1, 8, 8),))
    torch.export.save(program, shop.path / "two.pt2")
    found = shop.run("export", "two.pt2", "--fixed-batch", "5", "-o", "five.onnx")
    found.refused(17, "ExportError", "--fixed-batch 5", "fixed batch of 2")
    assert not (shop.path / "five.onnx").exists()


def test_a_program_of_one_batch_size_is_freed(shop):
    """An export without a dynamic batch takes data all the same, and the file has a free batch."""
    torch.export.save(torch.export.export(build(shop), (torch.randn(1, 1, 8, 8),)), shop.path / "one.pt2")
    plain = json.loads(shop.run("inspect", "one.pt2", "--json").out)
    assert plain["inputs"][0]["batch"] is None
    assert plain["notes"][-1] == "its batch was made free, which changed no output"
    scored = shop.run("score", "one.pt2", *DATA, "--json")
    twin = shop.run("score", *MODEL, *DATA, "--json")
    found, wanted = (json.loads(s.out)["components"]["score"] for s in (scored, twin))
    np.testing.assert_allclose(sorted(found), sorted(wanted), rtol=1e-4, atol=1e-12)


def test_explain_says_why_each_channel_went_or_stayed(shop, finished):
    """Score in nats, estimator, samples, p-value, chance, coupling and step; the fates are the recipe's."""
    folder, _ = finished
    kept = widths(folder / "recipe.json")
    for name, width in LAYERS.items():
        layer = json.loads(shop.run("explain", folder, name, "--json").out)
        stays = [c["channel"] for c in layer["channels"] if not c["removed"]]
        assert stays == kept.get(name, list(range(width)))
        assert (layer["before"], layer["after"]) == (width, len(stays))
        assert f"{width} → {len(stays)} channels" in shop.run("explain", folder, name).out
    gone = next(c for c in range(12) if c not in kept["3"])
    text = shop.run("explain", folder, f"3:{gone}").out
    for word in (
        "was removed",
        "nats by ib-gauss",
        "on 52 samples",
        "p = ",
        "would have lost",
        "7.weight dim 1[",
    ):
        assert word in text
    assert "of the dense MACs" in text and "not recorded" not in text
    stays = kept["3"][0]
    assert "was kept" in shop.run("explain", folder, f"3:{stays}").out
    assert "pinned: output" in shop.run("explain", folder, "7:0").out


def test_explain_knows_the_nearest_names(shop, finished):
    """An unknown layer, an unknown channel and a folder without a run are told apart."""
    folder, _ = finished
    shop.run("explain", folder, "33").refused(14, "RunError", "no layer '33'", "did you mean 3")
    shop.run("explain", folder, "3:12").refused(14, "RunError", "channels 0..11")
    shop.run("explain", folder, "3:x").refused(14, "RunError", "channels 0..11")
    shop.run("explain", shop.path, "3").refused(14, "RunError", "removed.json", "no such file")
