"""How strongly grounding acts at each sampling step (the published alpha schedule)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

__all__ = ["Merge", "alpha_schedule", "check_merge", "mis_steps"]

Merge = Literal["average", "crop"]
"""How the chains of the Multi-Instance Sampler become one: averaged (published), or cropped and pasted."""


def alpha_schedule(num_steps: int, alpha: float | Sequence[float] | None = 1.0) -> list[float]:
    """Grounding scale per step: full, then falling linearly, then off.

    Shares are turned into steps by truncation, as published (``int(0.58 * 50) == 28``); the "off" stage takes
    what is left. The falling stage runs from ``1 - 1/n`` down to 0 and includes the 0.

    Args:
        num_steps: Number of sampling steps.
        alpha: Share of the steps with grounding on, or the three shares ``(full, decay, off)``; None means on in all
            steps, as published.

    Returns:
        One scale in [0, 1] per step.

    Raises:
        ValueError: If a share is outside [0, 1], the three do not add up to 1, or the falling stage has a
            length for which the published rule gives one value too many (49, for example).
    """
    alpha = 1.0 if alpha is None else alpha
    shares = (float(alpha), 0.0, 1.0 - float(alpha)) if isinstance(alpha, int | float) else tuple(alpha)
    if len(shares) != 3 or not all(0.0 <= share <= 1.0 for share in shares):
        raise ValueError(f"alpha: {alpha!r} is not a share in [0, 1] or three shares (full, decay, off)")
    if abs(sum(shares) - 1.0) > 1e-6:
        raise ValueError(f"alpha: the shares {shares} add up to {sum(shares):g}; they must add up to 1")
    full, decay = int(shares[0] * num_steps), int(shares[1] * num_steps)
    falling: list[float] = []
    if decay:
        falling = [float(value) for value in np.arange(0, 1, 1 / decay)[::-1]]
        if len(falling) != decay:
            # Rounding in arange; the published code stops here too, so no recorded value exists.
            raise ValueError(
                f"alpha: a falling stage of {decay} steps is not supported; change its share or the steps"
            )
    return [1.0] * full + falling + [0.0] * (num_steps - full - decay)


def check_merge(merge: str) -> None:
    """Checks the name of a merge.

    Raises:
        ValueError: If it is not one of `Merge`.
    """
    if merge not in ("average", "crop"):
        raise ValueError(f"mis_merge: {merge!r} is unknown; choose from average, crop")


def mis_steps(num_steps: int, mis: float) -> int:
    """Number of steps of the Multi-Instance Sampler, truncated as published.

    Args:
        num_steps: Number of sampling steps.
        mis: Share of the steps in [0, 1).

    Returns:
        ``int(num_steps * mis)``.

    Raises:
        ValueError: If the share is outside [0, 1).
    """
    if not 0.0 <= mis < 1.0:
        raise ValueError(f"mis: {mis!r} is not a share of the steps in [0, 1)")
    return int(num_steps * mis)
