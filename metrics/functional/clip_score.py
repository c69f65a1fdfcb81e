"""CLIP score: does the whole image show what its caption says?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from metrics.functional.coco_data import count_reasons

__all__ = ["ClipScoreResult", "clip_score"]

NO_SIMILARITY = "no similarity"


@dataclass(frozen=True, slots=True)
class ClipScoreResult:
    """CLIP score of a set of images.

    Attributes:
        value: Mean over images of max(100 * similarity, 0); None if nothing was scored.
        per_image: The same for each image, None where it is not scored.
        n_scored: Images with a similarity.
        n_unscored: The others.
        reasons: How many are not scored, by reason.
    """

    value: float | None
    per_image: tuple[float | None, ...]
    n_scored: int
    n_unscored: int
    reasons: dict[str, int] = field(default_factory=dict)


def clip_score(similarities: Sequence[float | None]) -> ClipScoreResult:
    """CLIP score from the cosine similarities of images and their captions.

    Source: Hessel et al. 2021, with the scale of torchmetrics (100 instead of 2.5 and 0 as the lowest value).

    Args:
        similarities: One cosine per image, None where there is no image.

    Raises:
        ValueError: If a similarity is no cosine.
    """
    scores: list[float | None] = []
    for position, value in enumerate(similarities):
        if value is not None and not -1.0001 <= value <= 1.0001:
            raise ValueError(f"similarities: entry {position} is {value}; give cosines, or None")
        scores.append(None if value is None else max(100.0 * value, 0.0))
    known = [score for score in scores if score is not None]
    return ClipScoreResult(
        value=float(np.mean(known)) if known else None,
        per_image=tuple(scores),
        n_scored=len(known),
        n_unscored=len(scores) - len(known),
        reasons=count_reasons([NO_SIMILARITY] * (len(scores) - len(known))),
    )
