from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torchmetrics import Metric

from metrics import (
    AttributeBinding,
    AttributeObservation,
    CocoAveragePrecision,
    FrechetDistance,
    KernelInceptionDistance,
    MaskIoU,
    PointInMask,
    attribute_binding,
    evaluate_average_precision,
    frechet_from_features,
    kernel_distance,
    mask_iou,
    points_in_mask,
)
from tests.metrics.builders import annotation, detection, random_pair, truth

GT, FOUND = random_pair(11, images=4)
CATEGORIES = {entry["id"]: entry["name"] for entry in GT["categories"]}
GIVEN = {entry["id"]: [(0.2, 0.3), (0.6, 0.5)] for entry in GT["annotations"]}


def feed(metric: Any, image_ids: Sequence[int], given: dict[int, Any] | None = None) -> Any:
    for image in GT["images"]:
        if image["id"] in image_ids:
            mine = [entry for entry in GT["annotations"] if entry["image_id"] == image["id"]]
            seen = [entry for entry in FOUND if entry["image_id"] == image["id"]]
            metric.update(image, mine, seen, *([] if given is None else [given]))
    return metric


def synced(metric: Metric, others: Sequence[Metric]) -> Any:
    """Compute as if `metric` and `others` were on processes of their own."""
    everyone = [metric, *others]
    # What the other processes send, in the order of the states.
    order = list(metric._reductions)
    calls = iter(range(len(order)))

    def gather(tensor: torch.Tensor, group: Any = None) -> list[torch.Tensor]:
        name = order[next(calls)]
        parts = []
        for process in everyone:
            state = getattr(process, name)
            parts.append(torch.cat(state) if isinstance(state, list) else state)
        assert all(part.dtype == tensor.dtype for part in parts)
        return parts

    metric.dist_sync_fn = gather
    metric.distributed_available_fn = lambda: True
    return metric.compute()


def test_detection_metrics_equal_their_functions() -> None:
    everything = range(1, 5)
    ap = feed(CocoAveragePrecision(CATEGORIES, "segm"), everything)
    values = ap.compute()
    expected = evaluate_average_precision(GT, FOUND, "segm")
    for name, value in expected.values.items():
        np.testing.assert_equal(float(values[name]), np.nan if value is None else value)
    assert ap.result == expected
    iou = feed(MaskIoU(CATEGORIES), everything)
    assert float(iou.compute()) == mask_iou(GT, FOUND).value
    assert iou.result.n_scored == mask_iou(GT, FOUND).n_scored
    point = feed(PointInMask(CATEGORIES), everything)
    assert float(point.compute()) == points_in_mask(GT, FOUND).value
    scribble = feed(PointInMask(CATEGORIES, "scribble"), everything, GIVEN)
    assert float(scribble.compute()) == points_in_mask(GT, FOUND, "scribble", given=GIVEN).value
    paper = feed(PointInMask(CATEGORIES, "scribble", "paper", rng=3), everything)
    assert float(paper.compute()) == points_in_mask(GT, FOUND, "scribble", "paper", rng=3).value


@pytest.mark.parametrize(
    "make",
    [lambda: CocoAveragePrecision(CATEGORIES), lambda: MaskIoU(CATEGORIES), lambda: PointInMask(CATEGORIES)],
)
def test_reset_merge_and_sync(make: Callable[[], Any]) -> None:
    whole = feed(make(), range(1, 5)).compute()
    metric = feed(make(), [1, 2])
    metric.reset()
    assert metric.lines == []
    # The padded sampler gives image 1 to both processes; it counts once.
    first, second = feed(make(), [4, 1]), feed(make(), [1, 3, 2])
    torch.testing.assert_close(synced(copy.deepcopy(first), [second]), whole, rtol=0, atol=0, equal_nan=True)
    first.merge_state(second)
    torch.testing.assert_close(first.compute(), whole, rtol=0, atol=0, equal_nan=True)


def test_process_without_data_sends_bytes() -> None:
    idle, busy = MaskIoU(CATEGORIES), feed(MaskIoU(CATEGORIES), range(1, 5))
    assert float(synced(idle, [busy])) == mask_iou(GT, FOUND).value


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_nothing_to_score_is_nan() -> None:
    metric = PointInMask({1: "a"})
    assert np.isnan(float(metric.compute()))
    metric = CocoAveragePrecision({1: "a"})
    assert all(np.isnan(float(value)) for value in metric.compute().values())
    assert torch.isnan(FrechetDistance(3).compute())
    assert torch.isnan(KernelInceptionDistance(3).compute()[0])


def test_update_takes_numpy_and_refuses_other_images() -> None:
    metric = MaskIoU({1: "a"})
    gt = truth(annotation(1, (0, 0, 10, 10)))
    found = {**detection((0, 0, 10, 10), np.float32(0.75)), "bbox": np.array([0, 0, 10, 10])}
    found["segmentation"] = {**found["segmentation"], "counts": found["segmentation"]["counts"].encode()}
    metric.update(gt["images"][0], gt["annotations"], [found])
    assert float(metric.compute()) == 1.0
    with pytest.raises(ValueError, match="detection of image 2 given with image 1"):
        metric.update(gt["images"][0], gt["annotations"], [detection((0, 0, 10, 10), image=2)])
    with pytest.raises(TypeError, match="set cannot be kept"):
        metric.update(gt["images"][0], [annotation(1, (0, 0, 1, 1), note={1})], [])


def test_attribute_binding_class() -> None:
    observations = [
        AttributeObservation(1, 1, "red", True, (0.9, 0.1), 0.3),
        AttributeObservation(1, 2, "blue", True, (0.8, 0.1), None),
        AttributeObservation(2, 3, "blue", False),
    ]
    metric = AttributeBinding(("red", "blue"))
    metric.update(observations[2:])
    metric.update(observations[:2])
    values = metric.compute()
    expected = attribute_binding(observations, ("red", "blue"))
    assert metric.result is not None
    assert metric.result.per_instance == expected.per_instance
    assert {name: float(value) for name, value in values.items()} == {
        name: getattr(expected, name) for name in values
    }


def test_feature_distances_stream_and_sync() -> None:
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(size=(60, 6)), rng.normal(0.5, 1, size=(50, 6))
    fid, other = FrechetDistance(6), FrechetDistance(6)
    fid.update(torch.from_numpy(ours[:25]), real=False)
    other.update(torch.from_numpy(ours[25:]), real=False)
    fid.update(torch.from_numpy(theirs).float(), real=True)
    assert float(synced(fid, [other])) == pytest.approx(frechet_from_features(ours, theirs).value, rel=1e-6)
    kid, other_kid = KernelInceptionDistance(6, subsets=2), KernelInceptionDistance(6, subsets=2)
    kid.update(torch.from_numpy(theirs), real=True)
    for part in (ours[:25], ours[25:]):
        kid.update(torch.from_numpy(part), real=False)
    mean, std = copy.deepcopy(kid).compute()
    assert (float(mean), float(std)) == kernel_distance(ours, theirs, subsets=2)
    assert float(synced(other_kid, [kid])[0]) == pytest.approx(float(mean))
    for bad in (torch.zeros(2, 5), torch.zeros(6), torch.full((1, 6), float("nan"))):
        with pytest.raises(ValueError, match="features"):
            fid.update(bad, real=True)
    with pytest.raises(ValueError, match="num_features"):
        FrechetDistance(0)
