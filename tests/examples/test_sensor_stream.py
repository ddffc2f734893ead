"""The simulated rides of the sensor-stream example."""

from __future__ import annotations

import numpy as np

from examples import sensor_stream
from examples.sensor_stream import CLASSES, rides


def test_the_same_seed_gives_the_same_rides():
    """Windows are float32 (count, 128, 6), finite, equal for equal seeds and different for others."""
    x, y = rides(64, 3)
    again, labels = rides(64, 3)
    assert x.shape == (64, 128, 6) and x.dtype == np.float32 and y.dtype == np.int64
    assert np.isfinite(x).all() and np.array_equal(x, again) and np.array_equal(y, labels)
    assert not np.array_equal(x, rides(64, 4)[0])


def test_every_class_shows_on_the_axis_that_it_moves():
    """Against smooth rides: roughness and blows on the vertical axis, braking along, cornering across."""
    x, y = rides(1400, 5)
    spread = {name: x[y == n].std(axis=1).mean(axis=0) for n, name in enumerate(CLASSES)}
    assert set(y) == set(range(len(CLASSES)))
    for name in ("gravel", "cobbles", "pothole", "bump"):
        assert spread[name][2] > 1.5 * spread["smooth"][2], name
    assert spread["braking"][0] > 1.5 * spread["smooth"][0]
    assert spread["cornering"][1] > 1.5 * spread["smooth"][1]


def test_test_rides_are_not_training_rides():
    """The data that `--data` reads have their own test part, from another seed."""
    found = sensor_stream.data()
    assert len(found["x"]) == sensor_stream.TRAIN + sensor_stream.VALIDATION == len(found["y"])
    assert len(found["x_test"]) == sensor_stream.TEST == len(found["y_test"])
    fitted = {row.tobytes() for row in found["x"]}
    assert not any(row.tobytes() in fitted for row in found["x_test"])
