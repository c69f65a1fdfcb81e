"""Which device a network runs on: one rule for generators and evaluators."""

from __future__ import annotations

from typing import TYPE_CHECKING

from instbench.errors import InputError

if TYPE_CHECKING:
    import torch

__all__ = ["resolve_device"]


def resolve_device(device: str | torch.device, *, mps: bool = False) -> torch.device:
    """Turns the name of a device into one that is there.

    Args:
        device: A torch device, or ``"auto"``: CUDA where there is one, else the CPU.
        mps: Let ``"auto"`` take Apple's GPU where there is no CUDA.

    Returns:
        The device.

    Raises:
        InputError: If the name is unknown or there is no such device here.
    """
    import torch

    if str(device) == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if mps and torch.backends.mps.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError:
        raise InputError(f"--device {device}: unknown; write auto, cpu, cuda, cuda:1 or mps") from None
    known = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (resolved.index or 0) >= known.get(resolved.type, 1):
        raise InputError(f"--device {device}: there is no such device here; use --device cpu")
    return resolved
