"""A complete report and explanation entries, as the pipeline writes them."""

from __future__ import annotations

from typing import Any

PNG = (  # 8 × 8 grey
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAAAAADhZOFXAAAAEElEQVR4nGOsYIAAJgaKGAAj0ACI5/8dTgAAAABJRU5ErkJggg=="
)


def interval(value: float, half: float) -> dict[str, float]:
    """An interval of the given half width."""
    return {"value": value, "low": value - half, "high": value + half, "level": 0.95}


def sample() -> dict[str, Any]:
    """A measured run on the host; every optional field is present."""
    layers = [
        ("stem", 32, 20),
        ("stage1.0.conv1", 32, 14),
        ("stage1.0.conv2", 32, 20),
        ("stage2.0.conv1", 64, 24),
        ("stage2.0.conv2", 64, 40),
        ("stage2.0.shortcut", 64, 40),
        ("stage3.0.conv1", 128, 36),
        ("stage3.0.conv2", 128, 128),
        ("a.module.with.a.very.long.qualified.name.conv", 16, 16),
    ]
    front = [
        (0.9302, 24_500_000, 1.234),
        (0.9301, 16_000_000, 0.95),
        (0.929, 11_000_000, 0.75),
        (0.9274, 7_903_226, 0.61),
        (0.918, 4_900_000, 0.44),
        (0.889, 2_900_000, 0.33),
    ]
    return {
        "schema": 3,
        "created": "2026-11-24T09:30:00+00:00",
        "model": {"name": "fashion", "path": "fashion.pt2", "sha256": "ab" * 32},
        "target": {"name": "host", "title": "This machine"},
        "seed": 7,
        "versions": {"edgeprune": "0.1.0", "torch": "2.14.1", "onnxruntime": "1.32.0"},
        "machine": {"processor": "Some CPU", "cores": 2},
        "criterion": {"name": "ib-gauss", "settings": {"relevance": "fisher", "samples": 4096}},
        "budget": {"max_drop": 0.5, "macs": 0.333},
        "accuracy": {
            "measured_as": "accuracy",
            "unit": "points",
            "task": "classification",
            "task_note": "task classification: 10 outputs and one class number per sample",
            "samples": 10000,
            "test_origin": "held out",
            "dense": interval(0.9302, 0.005),
            "pruned": interval(0.8121, 0.0077),
            "compensated": interval(0.9141, 0.0055),
            "shipped": interval(0.9274, 0.0051),
            "drop": {"value": 0.28, "low": -0.05, "high": 0.61, "level": 0.9},
        },
        "macs": {"dense": 24_500_000, "shipped": 7_903_226},
        "params": {"dense": 272_474, "shipped": 81_000},
        "file_bytes": {"dense": 1_098_000, "shipped": 331_000},
        "parity": {"max_abs": 2.4e-6, "top1_agreement": 1.0, "atol": 1.9e-3, "samples": 64},
        "latency": {
            "basis": "measured",
            "where": "Some CPU",
            "on_target": True,
            "threads": 1,
            "batch": 1,
            "dense_p50_ms": 1.234,
            "shipped_p50_ms": 0.6108,
            "ratio": 0.495,
            "ratio_low": 0.476,
            "ratio_high": 0.512,
        },
        "estimate": None,
        "timing": {
            "planning": ["layers at many widths", "1 whole file that corrected the plan"],
            "final": "Some CPU",
            "on_target": True,
            "text": "timed while planning: layers at many widths; the final table was timed on Some CPU",
        },
        "planned": [
            {"name": "round 1, try 1", "asked": 0.5, "predicted": 0.5, "measured": 0.523},
            {"name": "point 3", "asked": None, "predicted": 0.48, "measured": 0.495},
        ],
        "layers": [{"name": n, "kind": "conv", "before": b, "after": a} for n, b, a in layers],
        "pinned": [
            {"name": "head", "channels": 10, "reason": "output of the model"},
            {"name": "stage3.0.conv2", "channels": 128, "reason": "aten.foo at model.py:41 has no rule"},
        ],
        "stages": [
            {"name": "load", "seconds": 0.84, "peak_mb": 312.0},
            {"name": "score", "seconds": 12.4, "peak_mb": 540.0},
            {"name": "recover", "seconds": 412.0, "peak_mb": 910.5},
            {"name": "bench", "seconds": 21.0, "peak_mb": None},
        ],
        "metrics": [{"name": "f1 (night)", "dense": 0.871, "shipped": 0.866}],
        "front": [
            {
                "name": f"point {i}",
                "accuracy": a,
                "macs": m,
                "latency_ms": t,
                "ratio": t / 1.234,
                "ratio_low": t / 1.25,
                "ratio_high": t / 1.2,
                "drop": interval(100 * (0.9302 - a), 0.2),
                "params": m // 90,
                "file_bytes": m // 20,
                "predicted": None,
                "int8": False,
                "dominated": False,
                "file": "model.onnx" if i == 3 else f"front/point {i}.onnx",
                "recovery": "fine-tuned" if i == 3 else "closed form",
                "chosen": i == 3,
            }
            for i, (a, m, t) in enumerate(front)
        ],
        "files": [{"name": "fashion.onnx", "bytes": 331_000, "sha256": "cd" * 32}],
        "notes": [
            "stage3.0.conv2 did not shrink: 128 channels are pinned by an operator without a rule",
            "the machine was busy: others had 12% of the cores that were timed on",
        ],
        "warnings": ["the machine was busy: others had 12% of the cores that were timed on"],
        "changes": {
            "measure": "accuracy",
            "decisions": True,
            "worse": 61,
            "better": 33,
            "samples": 10000,
            "examples": [
                {"sample": 412, "target": "shirt", "dense": "shirt", "shipped": "coat", "thumbnail": PNG},
                {"sample": 977, "target": "bag", "dense": "bag", "shipped": "dress", "thumbnail": ""},
            ],
            "classes": [{"name": "shirt", "samples": 1000, "dense": 0.801, "shipped": 0.774}],
        },
        "first_removed": [
            {
                "layer": "stage2.0.conv1", "channel": 17, "score": 0.00213, "unit": "nats", "rank": 1,
                "of": 64, "random": 0.0412, "p_value": 0.31,
            },
        ],
        "preprocessing": {
            "dtype": "float32", "scale": 1 / 255, "mean": [0.286], "std": [0.353], "layout": "NCHW",
            "size": [1, 28, 28], "raw": "pixels",
        },
    }  # fmt: skip


def entry() -> dict[str, Any]:
    """A removed channel with everything on record."""
    return {
        "layer": "stage2.0.conv1",
        "channel": 17,
        "removed": True,
        "criterion": "ib-gauss",
        "score_nats": 0.00213,
        "estimator": "conditional Gaussian, Fisher-weighted",
        "samples": 4096,
        "p_value": 0.31,
        "interval": {"low": 0.0011, "high": 0.0034, "level": 0.95},
        "rank": 3,
        "of": 64,
        "random": {"value": 0.0412, "low": 0.0203, "high": 0.0688},
        "coupled": [
            {"name": "stage2.0.bn1.weight", "indices": [17]},
            {"name": "stage2.0.conv2.in", "indices": [17]},
        ],
        "step": {"index": 2, "of": 6, "budget": "--macs 3x", "macs_saved": 112_896},
    }
