"""How much memory a run took: resident memory of the processes, and what torch took of each GPU."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from instbench.runs.records import DeviceMemoryRecord, MemoryRecord

__all__ = ["DeviceMemory", "device_memory", "free_memory", "largest_memory", "measure_memory", "reset_peaks"]

_RSS_UNIT = 1 if sys.platform == "darwin" else 1024
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """Memory of one GPU as torch sees it, in bytes.

    Attributes:
        allocated: In use by tensors.
        peak: Most in use by tensors since `reset_peaks`.
        usable: What tensors of this process could fill: free, cached and in use.
    """

    allocated: int
    peak: int
    usable: int


def _cuda() -> Any:
    """`torch.cuda` if this process uses it, else None; never loads torch."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return None
    return torch.cuda


def device_memory() -> list[DeviceMemory]:
    """The GPUs that hold tensors of this process; empty without any."""
    cuda = _cuda()
    found = []
    for index in range(0 if cuda is None else cuda.device_count()):
        allocated, peak = cuda.memory_allocated(index), cuda.max_memory_allocated(index)
        if peak:
            usable = cuda.mem_get_info(index)[0] + cuda.memory_reserved(index)
            found.append(DeviceMemory(allocated, peak, usable))
    return found


def reset_peaks() -> None:
    """Forgets the peaks of the GPUs; those of the process cannot be forgotten."""
    cuda = _cuda()
    for index in range(0 if cuda is None else cuda.device_count()):
        cuda.reset_peak_memory_stats(index)


def free_memory() -> int:
    """Memory in bytes that this process may still take: of the machine, and of its control group."""
    free = int(psutil.virtual_memory().available)
    try:
        limit = int((_CGROUP / "memory.max").read_text(encoding="ascii"))  # "max" without a limit
        used = int((_CGROUP / "memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return free
    return max(0, min(free, limit - used))


def largest_memory(records: Iterable[MemoryRecord]) -> MemoryRecord | None:
    """The largest peaks of several processes, with the batch sizes of the first; None without any."""
    largest: MemoryRecord | None = None
    for record in records:
        if largest is None:
            largest = record.model_copy(deep=True)
            continue
        largest.peak_rss_bytes = max(largest.peak_rss_bytes, record.peak_rss_bytes)
        largest.peak_rss_children_bytes = max(largest.peak_rss_children_bytes, record.peak_rss_children_bytes)
        for name, device in record.devices.items():
            known = largest.devices.setdefault(name, device.model_copy())
            known.peak_allocated_bytes = max(known.peak_allocated_bytes, device.peak_allocated_bytes)
            known.peak_reserved_bytes = max(known.peak_reserved_bytes, device.peak_reserved_bytes)
    return largest


def measure_memory(before: MemoryRecord | None = None) -> MemoryRecord:
    """The peaks so far.

    Args:
        before: Peaks of earlier calls; the larger ones are kept.

    Returns:
        The peaks, with the batch sizes of `before`.
    """
    own, children = (
        resource.getrusage(who).ru_maxrss * _RSS_UNIT
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    now = MemoryRecord(peak_rss_bytes=own, peak_rss_children_bytes=children)
    cuda = _cuda()
    for index in range(0 if cuda is None else cuda.device_count()):
        allocated, reserved = cuda.max_memory_allocated(index), cuda.max_memory_reserved(index)
        if reserved:
            now.devices[f"cuda:{index}"] = DeviceMemoryRecord(
                name=cuda.get_device_name(index),
                peak_allocated_bytes=allocated,
                peak_reserved_bytes=reserved,
            )
    return largest_memory([now] if before is None else [before, now]) or now
