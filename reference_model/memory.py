"""Out of memory: how it is recognised, and what is given back before something smaller is tried.

Free of torch until there is something to give back.
"""

from __future__ import annotations

import gc
import sys

__all__ = ["is_out_of_memory", "release_memory"]

# PyTorch has a type of its own for GPUs; the CPU's allocator, cuBLAS and Apple's GPU raise a plain RuntimeError.
_TYPE = "OutOfMemoryError"
_MESSAGES = (
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or in the machine."""
    if isinstance(error, MemoryError) or any(kind.__name__ == _TYPE for kind in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _MESSAGES)


def release_memory() -> None:
    """Collects garbage and gives cached blocks back to the GPU.

    Call it outside the ``except`` block: as long as the error lives, its frames hold the tensors.
    """
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
