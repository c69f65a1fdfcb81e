"""Benchmark suite for instance-conditioned image generation.

The verbs of the command line are functions here too: `run`, `generate` and `score`. They are loaded
when first used, so that importing the package stays fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from instbench._version import __version__
from instbench.errors import InputError

if TYPE_CHECKING:
    from instbench.api import generate, run, score

__all__ = ["InputError", "__version__", "generate", "run", "score"]


def __getattr__(name: str) -> Any:
    """Loads the verbs on first use."""
    if name in {"generate", "run", "score"}:
        from instbench import api

        return getattr(api, name)
    raise AttributeError(f"module 'instbench' has no attribute {name!r}")
