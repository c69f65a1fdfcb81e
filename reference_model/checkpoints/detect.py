"""What kind of checkpoint is it? Told from the names and shapes of its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, Final

from reference_model.checkpoints.tensors import CheckpointError, LazyTensor

__all__ = ["CheckpointKind", "identify", "require_published", "tensors_of"]


class CheckpointKind(Enum):
    """Kinds of checkpoints; the value is how messages call it."""

    INSTANCE_DIFFUSION = "an InstanceDiffusion checkpoint"
    GLIGEN = "a GLIGEN checkpoint (boxes and text)"
    INSTANCE_DIFFUSION_UNET = "the UNet of InstanceDiffusion alone"
    GLIGEN_UNET = "the UNet of GLIGEN alone"
    GLIGEN_OTHER = "a GLIGEN checkpoint for another task (images, keypoints, maps or inpainting)"
    STABLE_DIFFUSION_1 = "a plain Stable Diffusion 1.x checkpoint without grounding"
    STABLE_DIFFUSION_2 = "a Stable Diffusion 2.x checkpoint"
    STABLE_DIFFUSION_XL = "a Stable Diffusion XL checkpoint"
    DIFFUSERS_UNET = "a UNet in diffusers' layout"
    DIFFUSERS_INSTANCE_UNET = "the UNet of InstanceDiffusion in diffusers' layout"
    DIFFUSERS_GLIGEN_UNET = "the UNet of GLIGEN in diffusers' layout"
    LORA = "a LoRA: additions to a model, without the model"
    CONTROLNET = "a ControlNet"
    AUTOENCODER = "an autoencoder alone"
    TEXT_ENCODER = "a text encoder alone"
    FIRST_CONVOLUTION = "a single convolution (weight and bias)"
    UNKNOWN = "no checkpoint of a known kind"


_FIXES: Final = {
    CheckpointKind.INSTANCE_DIFFUSION_UNET: "load it with reference_model.checkpoints.unet_from_published, "
    "or give the whole file with autoencoder and text_encoder",
    CheckpointKind.GLIGEN_UNET: "give the whole file with autoencoder and text_encoder",
    CheckpointKind.GLIGEN_OTHER: "only GLIGEN's generation from boxes and text is supported",
    CheckpointKind.STABLE_DIFFUSION_1: "for training start with InstanceUNet.from_stable_diffusion; "
    "for images give an InstanceDiffusion or GLIGEN checkpoint",
    CheckpointKind.DIFFUSERS_INSTANCE_UNET: "give its pipeline folder to --checkpoint, it needs no conversion",
    CheckpointKind.DIFFUSERS_GLIGEN_UNET: "give its pipeline folder, the one with model_index.json",
    CheckpointKind.LORA: "merge it into its model first",
}
_LORA_MARKS: Final = (
    ".lora_",
    "lora_unet_",
    "lora_te_",
    "lora_A",
    "lora_B",
    "lora_up",
    "lora_down",
    ".hada_",
    ".lokr_",
)
_CROSS_ATTENTION: Final = "transformer_blocks.0.attn2.to_k.weight"
_SD1_CONTEXT: Final = 768
_SD2_CONTEXT: Final = 1024


def identify(content: Mapping[str, Any]) -> CheckpointKind:
    """The kind of a checkpoint.

    Args:
        content: What `open_checkpoint` yields, or names to tensors.

    Returns:
        The kind; a whole checkpoint is one whose `model` has a kind and that has other parts beside it.
    """
    parts = {name for name, value in content.items() if isinstance(value, Mapping)}
    if "model" in parts or "ema" in parts:
        kind = _of_tensors(content["model" if "model" in parts else "ema"])
        alone = {
            CheckpointKind.INSTANCE_DIFFUSION_UNET: CheckpointKind.INSTANCE_DIFFUSION,
            CheckpointKind.GLIGEN_UNET: CheckpointKind.GLIGEN,
        }
        return alone.get(kind, kind) if parts & {"autoencoder", "text_encoder"} else kind
    for wrapper in ("state_dict", "module"):
        if wrapper in parts:
            return _of_tensors(content[wrapper])
    return _of_tensors(content)


def _of_tensors(tensors: Mapping[str, Any]) -> CheckpointKind:
    """The kind of a flat dict of tensors."""
    names = [str(name) for name in tensors]
    if lora := [name for name in names if any(mark in name for mark in _LORA_MARKS)]:
        rest = [name for name in names if not name.endswith((".alpha", ".dora_scale"))]
        if len(lora) >= len(rest) / 2:
            return CheckpointKind.LORA
    if set(names) == {"weight", "bias"}:
        return CheckpointKind.FIRST_CONVOLUTION
    if any(name.startswith("model.diffusion_model.") for name in names):
        prefix = "model.diffusion_model."
        stripped = {
            name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)
        }
        return _of_unet(stripped, set(names))
    return _of_unet(tensors, set(names))


def _of_unet(tensors: Mapping[str, Any], names: set[str]) -> CheckpointKind:
    def has(*prefixes: str) -> bool:
        return any(str(name).startswith(prefixes) for name in tensors)

    diffusers, ldm = has("down_blocks.", "up_blocks."), has("input_blocks.")
    if has("controlnet_cond_embedding.", "control_model."):
        return CheckpointKind.CONTROLNET
    unifusion = has(
        "position_net.convnext", "position_net.linears_list.", "position_net.null_polygon", "scaleu_"
    )
    if unifusion or has("scaleu."):
        return CheckpointKind.DIFFUSERS_INSTANCE_UNET if diffusers else CheckpointKind.INSTANCE_DIFFUSION_UNET
    if has("position_net.", "downsample_net."):
        if not has("position_net.linears.") or not has("position_net.null_positive_feature"):
            return CheckpointKind.GLIGEN_OTHER
        if diffusers:
            return CheckpointKind.DIFFUSERS_GLIGEN_UNET
        first = tensors.get("input_blocks.0.0.weight")
        inpainting = first is not None and len(first.shape) == 4 and first.shape[1] != 4
        return (
            CheckpointKind.GLIGEN_OTHER
            if inpainting or has("downsample_net.")
            else CheckpointKind.GLIGEN_UNET
        )
    if diffusers and has("conv_in."):
        return CheckpointKind.DIFFUSERS_UNET
    if ldm:
        return _of_plain(tensors)
    if has("encoder.conv_in.", "decoder.conv_in.", "first_stage_model."):
        return CheckpointKind.AUTOENCODER
    if any("text_model." in name or name.startswith("cond_stage_model.") for name in names):
        return CheckpointKind.TEXT_ENCODER
    return CheckpointKind.UNKNOWN


def _of_plain(tensors: Mapping[str, Any]) -> CheckpointKind:
    """Which Stable Diffusion a UNet without grounding is, by the width of its text embeddings."""
    for name, tensor in tensors.items():
        if str(name).endswith(_CROSS_ATTENTION) and len(tensor.shape) == 2:
            width = tensor.shape[1]
            if width > _SD2_CONTEXT:
                return CheckpointKind.STABLE_DIFFUSION_XL
            return (
                CheckpointKind.STABLE_DIFFUSION_2
                if width > _SD1_CONTEXT
                else CheckpointKind.STABLE_DIFFUSION_1
            )
    return CheckpointKind.STABLE_DIFFUSION_1


def require_published(content: Mapping[str, Any], wanted: str = "auto") -> CheckpointKind:
    """The kind of a checkpoint that can be converted whole.

    Args:
        content: What `open_checkpoint` yields.
        wanted: ``"instancediffusion"``, ``"gligen"`` or ``"auto"``, either of them.

    Returns:
        `INSTANCE_DIFFUSION` or `GLIGEN`.

    Raises:
        CheckpointError: If it is of another kind; the message calls it what it is.
    """
    kind = identify(content)
    names = {"instancediffusion": CheckpointKind.INSTANCE_DIFFUSION, "gligen": CheckpointKind.GLIGEN}
    if wanted != "auto" and wanted not in names:
        raise CheckpointError(f"format: {wanted!r} is unknown; choose from auto, {', '.join(names)}")
    if kind not in names.values():
        fix = _FIXES.get(kind, "give an InstanceDiffusion or GLIGEN checkpoint")
        sample = ", ".join(list(content)[:3])
        more = f" (names such as {sample})" if kind is CheckpointKind.UNKNOWN and sample else ""
        raise CheckpointError(f"this is {kind.value}{more}; {fix}")
    if wanted != "auto" and kind is not names[wanted]:
        raise CheckpointError(f"this is {kind.value}, not {names[wanted].value}; use --format auto")
    return kind


def tensors_of(content: Mapping[str, Any], part: str) -> dict[str, LazyTensor]:
    """The tensors of one part of a whole checkpoint.

    Raises:
        CheckpointError: If the part is missing, empty or holds anything but tensors.
    """
    value = content.get(part)
    if not isinstance(value, Mapping) or not value:
        raise CheckpointError(f"{part} is missing; give the whole checkpoint")
    other = [str(name) for name, tensor in value.items() if not isinstance(tensor, LazyTensor)]
    if other:
        raise CheckpointError(f"{part}.{other[0]} is not a tensor; the file is damaged")
    return dict(value)
