"""Rows of detectors and their relatives from Ultralytics, untrained, as its own classes build them.

Ultralytics is AGPL-3.0 and no dependency: `make bench-coverage` installs it for these rows, and without it
there are none. No setting of the classes is touched; loading puts them in export form (frontend.export_form).
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable

from torch import nn

from benchmarks.coverage.models import Row, image

NAMES = (
    "yolo11n", "yolov8n", "yolov5n", "yolov10n", "yolo12n",
    "yolo11n-seg", "yolov8n-seg", "yolo11n-pose", "yolov8n-pose", "yolo11n-cls", "yolov8n-cls",
    "yolo11n-obb", "yolov8n-obb", "rtdetr-l",
)  # fmt: skip
SIZE = 128  # pixels; a multiple of the coarsest stride


def ultralytics_rows() -> dict[str, Row]:
    """Name -> row; none where the library is not installed."""
    if importlib.util.find_spec("ultralytics") is None:
        return {}
    return {f"ul_{name}": Row(_build(name), image(3, SIZE, SIZE)) for name in NAMES}


def _build(name: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        os.environ["YOLO_OFFLINE"] = "1"
        from ultralytics.nn import tasks

        head = name.rpartition("-")[2]
        kinds = {
            "seg": "SegmentationModel",
            "pose": "PoseModel",
            "cls": "ClassificationModel",
            "obb": "OBBModel",
        }
        kind = "RTDETRDetectionModel" if name.startswith("rtdetr") else kinds.get(head, "DetectionModel")
        model: nn.Module = getattr(tasks, kind)(f"{name}.yaml", verbose=False)
        return model.eval()

    return build
