"""Pipeline folders: reading their parts, and writing so that nothing is lost or half done."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from reference_model.checkpoints.inspection import inspect_component
from reference_model.checkpoints.tensors import CheckpointError, check_finite, listing

__all__ = [
    "GLIGEN_PIPELINE",
    "INSTANCE_PIPELINE",
    "Conversion",
    "appearing",
    "check_target",
    "load_component",
    "pipeline_class",
]

INSTANCE_PIPELINE: Final = "InstanceDiffusionPipeline"
GLIGEN_PIPELINE: Final = "StableDiffusionGLIGENPipeline"


@dataclass(frozen=True, slots=True)
class Conversion:
    """What a conversion did.

    Attributes:
        kind: What was converted, in words.
        output: What was written.
        weights: Which weights the UNet has: ``"ema"`` or ``"model"``.
        dtype: Type of the numbers written.
        parameters: Parameters of the UNet.
        left_out: Parts of the source that were not needed.
    """

    kind: str
    output: Path
    weights: str
    dtype: str
    parameters: int
    left_out: tuple[str, ...] = ()


def pipeline_class(folder: Path) -> str:
    """The pipeline class that a folder names.

    Raises:
        CheckpointError: If it names none.
    """
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        return str(index["_class_name"])
    except OSError:
        raise CheckpointError(
            f"{folder}: has no model_index.json; give a pipeline folder or a checkpoint file"
        ) from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise CheckpointError(f"{folder / 'model_index.json'}: damaged; copy the folder again") from None


def load_component(kind: Any, folder: Path, name: str, dtype: Any = None) -> Any:
    """Loads one component of a folder, from safetensors alone, in eval mode.

    Args:
        kind: Its class, of diffusers or transformers.
        folder: The pipeline folder.
        name: The component's folder in it.
        dtype: Type of the numbers; None leaves it to the library.

    Raises:
        CheckpointError: If it cannot be loaded: pickles, a damaged header, a configuration that asks for more than
            the files hold, tensors that are missing or of the wrong shape (the libraries would fill them with random
            numbers), NaN or infinite weights; all are named.
    """
    inspect_component(folder / name, kind)
    options: dict[str, Any] = {"use_safetensors": True, "local_files_only": True, "output_loading_info": True}
    if dtype is not None:
        options["torch_dtype" if hasattr(kind, "load_config") else "dtype"] = dtype
    try:
        model, info = kind.from_pretrained(folder / name, **options)
    except Exception as error:  # whatever a damaged folder makes the loaders raise
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{folder / name}: cannot be loaded from safetensors ({reason})") from None
    odd = sorted(str(one) for key in ("missing_keys", "mismatched_keys") for one in info[key])
    if odd:
        raise CheckpointError(
            f"{folder / name}: tensors missing or of another shape: {listing(odd)}; give the complete checkpoint"
        )
    check_finite(model.state_dict(), str(folder / name))
    return model.eval()


def check_target(output: Path, source: Path, overwrite: bool) -> None:
    """Refuses to write where something else would be lost.

    Raises:
        CheckpointError: If `output` exists and may not be replaced, or has no folder to lie in.
    """
    if not output.resolve().parent.is_dir():
        raise CheckpointError(f"{output}: its folder does not exist; make it first")
    if not output.exists():
        return
    if not overwrite:
        raise CheckpointError(f"{output}: already exists; give another name or --overwrite")
    if source.resolve().is_relative_to(output.resolve()):
        raise CheckpointError(f"{output}: holds what is to be converted; give another name")
    ours = output.is_file() if output.suffix == ".safetensors" else (output / "model_index.json").is_file()
    if not ours:
        raise CheckpointError(f"{output}: --overwrite replaces earlier conversions only; give another name")


@contextmanager
def appearing(output: Path) -> Iterator[Path]:
    """A path to write to, which becomes `output` when everything went well and vanishes otherwise."""
    target = output.resolve()
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
        partial = Path(scratch) / target.name
        yield partial
        if target.exists():
            target.replace(Path(scratch) / "old")
        partial.replace(target)
