"""Mild image degradations, so that the evaluators can judge generated images.

Generated images are a little blurred, noisy or off in tone; the degradations here stay inside what
leaves the colour word, the texture and the shape of an object unambiguous.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["degrade"]


def degrade(
    image: NDArray[np.uint8], rng: np.random.Generator, clean_share: float = 0.3
) -> NDArray[np.uint8]:
    """Applies a random mix of tone shift, blur, down-and-up sampling, noise and JPEG compression.

    Args:
        image: uint8 [H, W, 3], RGB.
        rng: Source of randomness.
        clean_share: Share of the images that stay as they are.

    Returns:
        uint8 [H, W, 3], RGB.
    """
    if rng.random() < clean_share:
        return image
    out = image.astype(np.float32)
    # Tone: contrast, brightness and a cast of at most 6 of 255 per channel keep all eight colours apart.
    gain, shift = rng.uniform(0.92, 1.08), rng.uniform(-8, 8)
    out = (out - 128) * gain + 128 + shift + rng.uniform(-6, 6, size=3).astype(np.float32)
    kind = rng.random()
    height, width = image.shape[:2]
    if kind < 0.35:
        out = cv2.GaussianBlur(out, (0, 0), rng.uniform(0.3, 0.9))
    elif kind < 0.6:
        factor = rng.uniform(0.55, 0.9)
        small = cv2.resize(
            out, (max(4, round(width * factor)), max(4, round(height * factor))), interpolation=cv2.INTER_AREA
        )
        out = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    if rng.random() < 0.5:
        out = out + rng.normal(0, rng.uniform(1, 9), size=out.shape).astype(np.float32)
    if rng.random() < 0.3:
        # Blotches as a decoder leaves them: smooth noise of low amplitude.
        coarse = rng.normal(0, rng.uniform(2, 8), size=(height // 8 + 1, width // 8 + 1, 3)).astype(
            np.float32
        )
        out = out + cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    result = np.clip(np.rint(out), 0, 255).astype(np.uint8)
    if rng.random() < 0.25:
        done, code = cv2.imencode(
            ".jpg", result[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(45, 96))]
        )
        decoded = cv2.imdecode(code, cv2.IMREAD_COLOR) if done else None
        if decoded is not None:
            result = np.ascontiguousarray(decoded[..., ::-1]).astype(np.uint8)
    return result
