"""What a run ran on: versions of the packages and facts about the machine."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = ["cpu_model", "machine", "package_versions"]

PACKAGES = (
    "diffusers",
    "instbench",
    "numpy",
    "open_clip_torch",
    "pillow",
    "pycocotools",
    "scipy",
    "torch",
    "torch-fidelity",
    "torchmetrics",
    "torchvision",
    "transformers",
    "ultralytics",
)


def package_versions() -> dict[str, str]:
    """Returns the versions of the installed packages that can change a number."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def cpu_model() -> str:
    """Returns the name of the processor, as far as the system tells."""
    path = Path("/proc/cpuinfo")
    if path.is_file():
        for line in path.read_text(errors="replace").splitlines():
            if line.lower().startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def machine() -> dict[str, Any]:
    """Returns facts about the machine; torch's are added only if torch is loaded already."""
    facts: dict[str, Any] = {
        "platform": platform.platform(),
        "cpu": cpu_model(),
        "cpu_count": os.cpu_count(),
    }
    torch = sys.modules.get("torch")
    if torch is not None:
        facts["torch_threads"] = torch.get_num_threads()
        facts["accelerator"] = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    return facts
