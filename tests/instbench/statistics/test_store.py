"""Samples on the disk: what does not fit together is refused in one line."""

import json
from dataclasses import replace

import numpy as np
import pytest

from instbench.errors import InputError
from instbench.statistics.average_precision import ApSamples
from instbench.statistics.samples import InfluenceSamples, RatioSamples
from instbench.statistics.store import read_samples, write_samples
from metrics import evaluate_average_precision
from tests.metrics.builders import annotation, perfect, truth

KEYS = ("a", "b")


def _table():
    gt = truth(annotation(1, (0, 0, 9, 9)), annotation(2, (0, 0, 9, 9), image=2), images=2)
    return evaluate_average_precision(gt, perfect(gt)).matches


def test_every_kind_comes_back(tmp_path):
    path = tmp_path / "samples.npz"
    written = {
        "ratio": RatioSamples(np.array([1.0, 0.5]), np.array([1.0, 1.0])),
        "influence": InfluenceSamples(3.5, np.array([0.25, -0.25])),
        "ap": ApSamples(_table(), "ap"),
        "ap50": ApSamples(_table(), "ap50"),
    }
    write_samples(path, KEYS, written)
    found = read_samples(path)
    assert found.image_keys == KEYS
    assert {name: one.value() for name, one in found.metrics.items()} == {
        "ratio": 0.75,
        "influence": 3.5,
        "ap": pytest.approx(1),
        "ap50": pytest.approx(1),
    }
    assert np.array_equal(found.metrics["influence"].influences, [0.25, -0.25])


@pytest.mark.parametrize(
    ("samples", "why"),
    [
        (RatioSamples(np.ones(3), np.ones(3)), "x: 3 images instead of 2"),
        (
            ApSamples(replace(_table(), images=np.array([0, 2], dtype=np.int32)), "ap"),
            "a match of an image that is not there",
        ),
        (
            ApSamples(replace(_table(), truth_images=np.array([-1, 1], dtype=np.int32)), "ap"),
            "a match of an image that is not there",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(tmp_path, samples, why):
    path = tmp_path / "samples.npz"
    write_samples(path, KEYS, {"x": samples})
    with pytest.raises(InputError, match=why) as caught:
        read_samples(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"version": 2, "image_keys": [], "metrics": {}}, "version 2 is unknown"),
        ({"version": 1, "image_keys": [], "metrics": {"x": {"kind": "odd"}}}, "x: unknown kind"),
        (
            {"version": 1, "image_keys": [], "metrics": {"x": {"kind": "ap", "number": "odd"}}},
            "x: unknown kind",
        ),
    ],
)
def test_what_is_unknown_is_refused(tmp_path, facts, why):
    path = tmp_path / "samples.npz"
    np.savez(path, facts=np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8))
    with pytest.raises(InputError, match=why):
        read_samples(path)
