"""Seeds derived by hashing, so that an image never depends on batch, order, shard or worker."""

from __future__ import annotations

import hashlib

__all__ = ["derive_seed"]


def derive_seed(benchmark: str, version: int, image_key: str, *, repeat: int = 0, seed: int = 0) -> int:
    """Derives the seed of one image.

    The generator is left out on purpose: two models start from the same noise on the same layout,
    which makes comparisons paired.

    Args:
        benchmark: Benchmark name.
        version: Benchmark version.
        image_key: Key of the layout.
        repeat: Index of the image among several for one layout.
        seed: The user's seed.

    Returns:
        An integer in [0, 2**63).
    """
    text = f"instbench-seed-v1\n{benchmark}\n{version}\n{image_key}\n{repeat}\n{seed}"
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
