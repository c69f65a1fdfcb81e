"""Attribute binding as the published InstanceDiffusion evaluation computes it (paper edition).

Source: the behaviour of ``eval/eval_attribute_binding.py`` of the InstanceDiffusion release. Differences from the
strict edition, all kept on purpose:

* the caller crops the box that was *asked for*, whether anything is drawn there or not, so an object that is
  missing is scored on the background;
* crowds are scored like objects, annotations beyond the first 30 of an image are not scored;
* crops that cannot be scored (empty ones) are dropped, and so are images without any;
* both numbers are means of image means.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from metrics.functional.attribute_binding import AttributeInstance, AttributeObservation, attribute_binding

__all__ = ["PaperAttributeResult", "paper_attribute_binding"]


@dataclass(frozen=True, slots=True)
class PaperAttributeResult:
    """Attribute binding of a set of images, as published; None where there is nothing to score.

    Attributes:
        accuracy: Mean over images of the share of crops whose likeliest label is the asked one.
        local_similarity: Mean over images of the mean similarity of crops to their phrases ("CLIP score").
        per_image: (accuracy, local similarity) of each image that has scored crops.
        per_instance: One entry per observation.
        n_scored: Crops that were scored.
        n_unscored: The other observations.
        reasons: How many are not scored, by reason.
    """

    accuracy: float | None
    local_similarity: float | None
    per_image: dict[int, tuple[float, float]]
    per_instance: tuple[AttributeInstance, ...]
    n_scored: int
    n_unscored: int
    reasons: dict[str, int] = field(default_factory=dict)


def paper_attribute_binding(
    observations: Sequence[AttributeObservation], labels: Sequence[str]
) -> PaperAttributeResult:
    """Score attributes on the crops of the asked boxes.

    Args:
        observations: One per annotation. `scores` and `local_similarity` are those of the crop of the asked
            box, None for an empty crop; `found` and `ignored` do not matter.
        labels: All labels, in the order of the observations' scores.

    Returns:
        The numbers.

    Raises:
        ValueError: If labels or annotation ids repeat, scores do not fit the labels or are not finite, or a crop
            has scores but no similarity to its phrase.
    """
    result = attribute_binding([replace(one, found=True, ignored=None) for one in observations], labels)
    hits: defaultdict[int, list[bool]] = defaultdict(list)
    similarities: defaultdict[int, list[float]] = defaultdict(list)
    for observation, row in zip(observations, result.per_instance, strict=True):
        if row.correct is None:
            continue
        similarity = observation.local_similarity
        if similarity is None or not math.isfinite(similarity):
            raise ValueError(
                f"observations: annotation {row.annotation_id}: local_similarity is {similarity}; give a number"
            )
        hits[row.image_id].append(row.correct)
        similarities[row.image_id].append(similarity)
    per_image = {
        image_id: (float(np.mean(hits[image_id])), float(np.mean(similarities[image_id])))
        for image_id in hits
    }
    columns = np.array(list(per_image.values())).reshape(-1, 2)
    accuracy, similarity_mean = columns.mean(axis=0).tolist() if len(columns) else (None, None)
    return PaperAttributeResult(
        accuracy=accuracy,
        local_similarity=similarity_mean,
        per_image=per_image,
        per_instance=result.per_instance,
        n_scored=result.n_scored,
        n_unscored=result.n_unscored,
        reasons=result.reasons,
    )
