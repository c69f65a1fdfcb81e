"""The recipes of the grounded UNet: every number, and where the published ones come from."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch

from reference_model.training.rules import FormatRules, PaperRules, Rules
from reference_model.unet import InstanceUNet

__all__ = [
    "RECIPES",
    "UNetRecipe",
    "changed_values",
    "grounding_settings",
    "identity",
    "learning_rate_factor",
    "open_gates",
    "recipe_from_overrides",
    "shapes_unet",
]

OPTIMIZERS = ("muon", "adamw")
TRAINABLE = ("all", "grounding")


@dataclass(frozen=True)
class UNetRecipe:
    """Every number of a recipe. The defaults are those of the small weights.

    Values of the backbone (``channels`` to ``layers_per_block``) are those of the base where there is one.

    Attributes:
        steps: Optimizer steps.
        warmup: Steps of linear warm-up.
        cooldown: Last steps, over which the rate falls linearly to 0.
        batch_size: Samples per step over all processes.
        lr: Peak rate of Muon and AdamW.
        weight_decay: Decoupled decay of the weight matrices.
        clip: Largest gradient norm, or None.
        ema: Largest decay of the averaged weights.
        optimizer: ``"muon"`` (matrices; AdamW for the rest) or ``"adamw"``.
        betas: Of AdamW.
        gate: Start value of the gated layers' raw gates. The published zero suits a base that already
            draws; from scratch the gates start open.
        beta_schedule: Noise schedule of the diffusers scheduler.
        beta_start: First variance of the schedule, where it takes one.
        beta_end: Last variance of the schedule, likewise.
        prediction_type: What the network predicts.
        channels: Channels per level.
        cross_attention: Which levels (from the finest) have attention, on the way down and up.
        attention_head_dim: Channels per attention head.
        layers_per_block: Residual blocks per level on the way down (one more on the way up).
        max_instances: Instance slots.
        num_mask_points: Points that stand for a mask.
        num_fourier_freqs: Frequencies of the location features.
        grounding_mid_dim: Hidden size of the UniFusion tokenizers.
        segment_size: Side of the masks for the segment branch.
        convnext_depths: Blocks per stage of the segment branch, None without it.
        convnext_widths: Channels per stage of the segment branch, None likewise.
        masked_attention: How location reaches the gated attention.
        local_mask_radius: Relative radii of the local masks of points and scribbles, or None.
        use_scaleu: Whether ScaleU is built in.
        grounding_keep: Formats that the model is built for.
        grounding_net: Where the tokens come from, ``"unifusion"`` or ``"gligen"``.
        joint_tokens: Whether UniFusion makes one token per object for all formats together.
        autocast: Dtype of the matrix products (weights stay float32), or None. On CPUs with bfloat16
            units it is 1.4 times as fast here; without them it is far slower.
        rules: What samples show.
        image_size: Side of the square canvas, or None for images that all have one size as they are.
        min_box_area: Smallest share of the canvas that a box covers; smaller instances are left out.
        cache_captions: Encode all captions once (118 kB each at width 768); else in every step.
        seed: Root of all randomness.
        trainable: ``"all"``, or ``"grounding"``: UniFusion, gated layers and ScaleU on a frozen base.
        micro_batch: Most samples per forward pass; None takes a process's whole share at once. With a number, a
            step draws the same samples however many processes share it.
        stratified: Whether the time steps of a batch are spread evenly; else they are independent.
        ema_ramp: Whether the average forgets its start in the first steps; else its decay is constant.
        gradient_checkpointing: Compute activations again in the backward pass, to save memory.
        anew: Parts that start anew where training starts from trained weights; first words of parameter names,
            such as ``"position_net"``.
        base_sha256: Hash of the weights that training starts from; measured, never set.
    """

    steps: int = 4000
    warmup: int = 100
    cooldown: int = 1000
    batch_size: int = 64
    lr: float = 3e-3
    weight_decay: float = 0.01
    clip: float | None = 1.0
    ema: float = 0.998
    optimizer: str = "muon"
    betas: tuple[float, float] = (0.9, 0.99)
    gate: float = 1.0
    beta_schedule: str = "squaredcos_cap_v2"
    beta_start: float = 0.0001
    beta_end: float = 0.02
    prediction_type: str = "v_prediction"
    channels: tuple[int, ...] = (64, 128)
    cross_attention_down: tuple[bool, ...] = (True, True)
    cross_attention_up: tuple[bool, ...] = (False, True)
    attention_head_dim: int = 64
    layers_per_block: int = 1
    max_instances: int = 16
    num_mask_points: int = 64
    num_fourier_freqs: int = 8
    grounding_mid_dim: int = 192
    segment_size: int = 128
    convnext_depths: tuple[int, ...] | None = (1, 1, 1, 1)
    convnext_widths: tuple[int, ...] | None = (16, 24, 32, 48)
    masked_attention: str = "correct"
    local_mask_radius: tuple[float, float] | None = (0.15, 0.08)
    use_scaleu: bool = True
    grounding_keep: tuple[str, ...] = ("box", "point", "scribble", "mask")
    grounding_net: str = "unifusion"
    joint_tokens: bool = False
    autocast: str | None = "bfloat16"
    rules: Rules = field(default_factory=FormatRules)
    image_size: int | None = None
    min_box_area: float = 0.0
    cache_captions: bool = True
    seed: int = 0
    trainable: str = "all"
    micro_batch: int | None = None
    stratified: bool = True
    ema_ramp: bool = True
    gradient_checkpointing: bool = False
    anew: tuple[str, ...] = ()
    base_sha256: str | None = None

    def __post_init__(self) -> None:
        for name, allowed in (("optimizer", OPTIMIZERS), ("trainable", TRAINABLE)):
            value = getattr(self, name)
            if value not in allowed:
                raise ValueError(f"{name}: {value!r} is unknown; use one of {', '.join(allowed)}")
        size = self.micro_batch
        if size is not None and (size < 1 or (size < self.batch_size and self.batch_size % size)):
            raise ValueError(f"micro_batch: {size} does not divide batch_size {self.batch_size}; change one")


PAPER = UNetRecipe(
    # Ours: 40 epochs (main_submitit.py: --total_epochs) of 5 million images, the smaller of the numbers that
    # dataset-generation/README.md calls enough. How many images the published run saw is not stated.
    steps=390_625,
    warmup=5000,  # README.md, training command: --warmup_steps 5000
    cooldown=0,  # main_submitit.py: --scheduler_type constant
    batch_size=512,  # README.md: --batch_size 8 on 8 nodes of 8 GPUs
    micro_batch=8,  # the same
    lr=5e-5,  # README.md: --base_learning_rate 0.00005
    weight_decay=0.0,  # main_submitit.py: --weight_decay 0.0
    clip=None,  # trainer.py: gradients are not clipped
    ema=0.9999,  # main_submitit.py: --ema_rate 0.9999; README.md: --enable_ema true
    ema_ramp=False,  # utils/optimizer.py: update_ema
    stratified=False,  # trainer.py: get_input
    trainable="grounding",  # utils/optimizer.py: get_trainable_params
    gradient_checkpointing=True,  # configs/train_sd15.yaml: use_checkpoint
    optimizer="adamw",  # trainer.py
    betas=(0.9, 0.999),  # PyTorch's default, trainer.py gives none
    gate=0.0,  # ldm/modules/attention.py: GatedSelfAttentionDense
    beta_schedule="scaled_linear",  # ldm/models/diffusion/ldm.py
    beta_start=0.00085,  # configs/train_sd15.yaml: linear_start
    beta_end=0.012,  # configs/train_sd15.yaml: linear_end
    prediction_type="epsilon",  # trainer.py
    max_instances=30,  # configs/train_sd15.yaml: max_boxes_per_data
    num_mask_points=256,  # dataset/decode_item.py
    num_fourier_freqs=16,  # text_grounding_net.py
    grounding_mid_dim=3072,  # configs/train_sd15.yaml: mid_dim
    segment_size=512,  # text_grounding_net.py: resize_input
    convnext_depths=(3, 3, 9, 3),  # ConvNeXt-tiny
    convnext_widths=(96, 192, 384, 768),
    # README.md: --use_masked_att true. The published masks have their axes exchanged ("published"), and
    # `efficient_attention: True` of configs/train_sd15.yaml would leave them out (ldm/modules/attention.py).
    masked_attention="correct",
    local_mask_radius=None,
    autocast="bfloat16",  # trainer.py: autocast to float16 with a gradient scaler
    rules=PaperRules(),
    image_size=512,  # configs/train_sd15.yaml
    min_box_area=0.01,  # dataset/decode_item.py: min_box_size
    cache_captions=False,
)
"""The published fine-tuning of Stable Diffusion 1.5, value by value with its source."""

SHAPES_GLIGEN = UNetRecipe(
    grounding_net="gligen",
    grounding_keep=("box",),
    rules=FormatRules(all_formats=0.0, random_subset=0.0, keep_only=(1.0, 0.0, 0.0, 0.0)),
    use_scaleu=False,
    masked_attention="none",
    local_mask_radius=None,
    convnext_depths=None,
    convnext_widths=None,
)
"""The recipe `shapes` with GLIGEN's parts: box tokens, no ScaleU, no instance masks; all else is equal."""

RECIPES = {"shapes": UNetRecipe(), "shapes-gligen": SHAPES_GLIGEN, "paper": PAPER}
"""Recipes by name."""


def shapes_unet(recipe: UNetRecipe, latent_channels: int, latent_size: int, context_dim: int) -> InstanceUNet:
    """Builds the UNet of a recipe with open gates.

    Args:
        recipe: The recipe.
        latent_channels: Channels of the autoencoder's latents.
        latent_size: Side of the latents.
        context_dim: Width of the text encoder.

    Returns:
        The network, in training mode.
    """
    unet = InstanceUNet(
        sample_size=latent_size,
        in_channels=latent_channels,
        out_channels=latent_channels,
        block_out_channels=recipe.channels,
        layers_per_block=recipe.layers_per_block,
        down_block_types=tuple(
            "CrossAttnDownBlock2D" if crossed else "DownBlock2D" for crossed in recipe.cross_attention_down
        ),
        up_block_types=tuple(
            "CrossAttnUpBlock2D" if crossed else "UpBlock2D"
            for crossed in reversed(recipe.cross_attention_up)
        ),
        attention_head_dim=tuple(channels // recipe.attention_head_dim for channels in recipe.channels),
        cross_attention_dim=context_dim,
        norm_num_groups=16,
        **grounding_settings(recipe, context_dim),
    )
    open_gates(unet, recipe.gate)
    return unet


def grounding_settings(recipe: UNetRecipe, context_dim: int) -> dict[str, Any]:
    """Arguments of `InstanceUNet` for the grounding parts.

    Args:
        recipe: The recipe.
        context_dim: Width of the text encoder.
    """
    radius = recipe.local_mask_radius
    return {
        "max_instances": recipe.max_instances,
        "num_mask_points": recipe.num_mask_points,
        "num_fourier_freqs": recipe.num_fourier_freqs,
        "grounding_in_dim": context_dim,
        "grounding_out_dim": context_dim,
        "grounding_mid_dim": recipe.grounding_mid_dim,
        "segment_size": recipe.segment_size,
        "convnext_depths": recipe.convnext_depths,
        "convnext_widths": recipe.convnext_widths,
        "use_scaleu": recipe.use_scaleu,
        "masked_attention": recipe.masked_attention,
        "local_mask_radius": None if radius is None else {"point": radius[0], "scribble": radius[1]},
        "grounding_keep": recipe.grounding_keep,
        "grounding_net": recipe.grounding_net,
        "joint_tokens": recipe.joint_tokens,
    }


@torch.no_grad()
def open_gates(unet: InstanceUNet, value: float) -> None:
    """Sets the raw gates of all gated layers."""
    for name, parameter in unet.named_parameters():
        if name.endswith(("alpha_attn", "alpha_dense")):
            parameter.fill_(value)


def learning_rate_factor(step: int, recipe: UNetRecipe) -> float:
    """Multiplier of the peak rate at a zero-based step."""
    rise = min(1.0, (step + 1) / max(1, recipe.warmup))
    fall = (recipe.steps - step) / recipe.cooldown if recipe.cooldown else 1.0
    return max(0.0, min(rise, fall))


def recipe_from_overrides(overrides: list[str], recipe: str = "shapes") -> UNetRecipe:
    """Applies ``NAME=JSON`` overrides to a recipe; ``rules`` takes an object of those rules that change.

    Args:
        overrides: The overrides.
        recipe: Name of the recipe, see `RECIPES`.

    Raises:
        ValueError: If a name is unknown or a value is not JSON.
    """
    base = RECIPES[recipe]
    values: dict[str, Any] = {}
    for item in overrides:
        name, _, text = item.partition("=")
        if name not in UNetRecipe.__dataclass_fields__ or name == "base_sha256":
            raise ValueError(f"--set {item}: no recipe value {name!r}; see UNetRecipe")
        try:
            value = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"--set {item}: the value of {name!r} is not JSON ({error})") from error
        if name == "rules":
            unknown = sorted(set(value) - set(base.rules.__dataclass_fields__))
            if unknown:
                raise ValueError(
                    f"--set {item}: no rule {', '.join(map(repr, unknown))}; see {type(base.rules).__name__}"
                )
            value = _changed_rules(values.get(name, base.rules), value, f"--set {item}")
        values[name] = _tuple(value)
    return replace(base, **values)


def _changed_rules(rules: Rules, changes: dict[str, Any], where: str) -> Rules:
    """Rules with some numbers changed; all of them are probabilities or weights."""
    for name, value in changes.items():
        numbers = value if isinstance(value, list) else [value]
        old = getattr(rules, name)
        fits = len(numbers) == (len(old) if isinstance(old, tuple) else 1)
        if not fits or not all(isinstance(number, int | float) and 0 <= number <= 1 for number in numbers):
            raise ValueError(f"{where}: {name!r} takes {np.size(old)} number(s) in [0, 1]")
    return replace(rules, **{name: _tuple(value) for name, value in changes.items()})


def identity(recipe: UNetRecipe) -> dict[str, Any]:
    """The recipe as JSON values without the length of the run, which may change on resuming."""
    content: dict[str, Any] = json.loads(json.dumps(asdict(recipe)))
    return {key: value for key, value in content.items() if key not in ("steps", "cooldown")}


def changed_values(recipe: UNetRecipe, saved: dict[str, Any]) -> list[str]:
    """Names of the values in which a recipe differs from a saved `identity`.

    A value that the saved one lacks is newer than it; its default is what was done then.
    """
    now, defaults = identity(recipe), identity(UNetRecipe())
    return sorted(key for key, value in now.items() if value != saved.get(key, defaults[key]))


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
