"""The sensor stream of the examples at fixed rates: the share of late answers, dense and pruned.

    python -m benchmarks.devices.realtime

The first run trains and compresses as `python -m examples.sensor_stream` does, into .cache/realtime. Then
`edgeprune bench` runs both files with one stream, with three quarters of the streams that the dense
network's median time allows, and with one and a half times as many as it allows. Results go to
results/realtime.json.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from typing import Any

from benchmarks.recording import ROOT, record, table
from examples.sensor_stream import RATE_HZ, edgeprune

FOLDER = ROOT / ".cache" / "realtime"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.devices.realtime", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    given = parser.parse_args()
    files = [FOLDER / "wheel-edgeprune" / name for name in ("dense.onnx", "model.onnx")]
    if not all(file.exists() for file in files):
        example = [sys.executable, "-m", "examples.sensor_stream", "--folder", str(FOLDER)]
        subprocess.run(example, cwd=ROOT, check=True)
    names = [str(file.relative_to(ROOT)) for file in files]
    timed = ["bench", *names, "--seconds", str(given.seconds)]
    plain = edgeprune(*timed)
    full = int(1e3 / plain["models"][0]["p50_ms"]["value"] / RATE_HZ)
    deadline_ms = 1e3 / RATE_HZ
    rows = []
    for streams in (1, full * 3 // 4, full * 3 // 2):
        rate = streams * RATE_HZ
        asked = [*timed, "--rate", str(rate), "--deadline-ms", f"{deadline_ms:g}"]
        found = edgeprune(*asked)
        row: dict[str, Any] = {"streams": streams, "rate_hz": rate, "deadline_ms": deadline_ms}
        row |= {"command": " ".join(["edgeprune", *asked]), "load_average": os.getloadavg()[0]}
        for name, model in zip(("dense", "pruned"), found["models"], strict=True):
            row[name] = {key: model[key] for key in ("p50_ms", "missed", "worst_ms")}
        rows.append(row)
    shown = [{**row, **{n: f"{row[n]['missed']['value']:.2%}" for n in ("dense", "pruned")}} for row in rows]
    print(table(shown, ["streams", "rate_hz", "dense", "pruned", "load_average"]))
    print(record("realtime", rows, dense_p50_ms=plain["models"][0]["p50_ms"], ratio=plain["ratios"][0]))


if __name__ == "__main__":
    main()
