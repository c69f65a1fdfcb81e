from __future__ import annotations

import pytest
import torch

from metrics import ClipScore, clip_score


def test_mean_of_scaled_similarities() -> None:
    result = clip_score([0.25, -0.1, None, 0.35])
    assert result.value == pytest.approx((25 + 0 + 35) / 3)
    assert result.per_image == (pytest.approx(25.0), 0.0, None, pytest.approx(35.0))
    assert (result.n_scored, result.n_unscored, result.reasons) == (3, 1, {"no similarity": 1})
    assert clip_score([]).value is None
    with pytest.raises(ValueError, match="similarities: entry 1 is 25; give cosines"):
        clip_score([0.1, 25])


def test_the_metric_equals_the_formula_of_torchmetrics() -> None:
    generator = torch.Generator().manual_seed(0)
    images, texts = (torch.randn(6, 8, generator=generator) for _ in range(2))
    parts = [ClipScore(), ClipScore()]
    parts[0].update(images[:2], texts[:2])
    parts[1].update(images[2:], texts[2:])
    parts[0].merge_state(parts[1])
    # torchmetrics: 100 * cosine, mean over images, at least 0; ours is at least 0 image by image.
    cosines = torch.nn.functional.cosine_similarity(images, texts)
    expected = (100 * cosines).clamp(min=0).mean()
    assert float(parts[0].compute()) == pytest.approx(float(expected), abs=1e-4)
    assert torch.isnan(ClipScore().compute())
    with pytest.raises(ValueError, match="images"):
        parts[0].update(images, texts[:3])
