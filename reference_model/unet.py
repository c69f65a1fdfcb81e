"""The denoiser: Stable Diffusion's UNet with UniFusion, gated self-attention and ScaleU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.configuration_utils import FrozenDict, register_to_config
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from torch import Tensor, nn

from reference_model.attention_masks import MODES, build_attention_masks, level_sizes
from reference_model.box_tokens import BoxTokens
from reference_model.checkpoints.folders import load_component
from reference_model.gated_attention import GatedSelfAttention, Grounding
from reference_model.scaleu import ScaleU
from reference_model.unifusion import FORMATS, UniFusion, resolve_keep

__all__ = ["GROUNDING_NETS", "InstanceUNet"]

GROUNDING_NETS = ("unifusion", "gligen")

DOWN_BLOCKS = ("CrossAttnDownBlock2D", "DownBlock2D")
UP_BLOCKS = ("CrossAttnUpBlock2D", "UpBlock2D")
MID_BLOCK = "UNetMidBlock2DCrossAttn"


class InstanceUNet(UNet2DConditionModel):
    """InstanceDiffusion's denoiser on diffusers' blocks.

    The Stable Diffusion part keeps diffusers' parameter names, so the `unet` folder of an SD1.x model loads
    (with the grounding parts newly initialised). Added: `position_net` (UniFusion), a `fuser` (gated
    self-attention, between self- and cross-attention) in every transformer block, and one ScaleU per layer of
    the up path.

    Args:
        sample_size: Side of the latent the model was trained at; recorded, any size runs.
        in_channels: Latent channels.
        out_channels: Channels of the prediction.
        center_input_sample: Map the input from [0, 1] to [-1, 1].
        flip_sin_to_cos: Order of the timestep embedding (SD: cosine first).
        freq_shift: Shift of its frequencies.
        down_block_types: Per level, `CrossAttnDownBlock2D` or `DownBlock2D`.
        mid_block_type: `UNetMidBlock2DCrossAttn`.
        up_block_types: Per level from the deepest, `CrossAttnUpBlock2D` or `UpBlock2D`.
        only_cross_attention: As in diffusers.
        block_out_channels: Channels per level.
        layers_per_block: ResNet layers per level.
        downsample_padding: Padding of the downsampling convolutions.
        mid_block_scale_factor: As in diffusers.
        dropout: Dropout of the ResNet and transformer layers.
        act_fn: Activation of the ResNet layers.
        norm_num_groups: Groups of the GroupNorms.
        norm_eps: Epsilon of the GroupNorms.
        cross_attention_dim: Size of the text embeddings.
        transformer_layers_per_block: Transformer blocks per attention layer.
        attention_head_dim: Number of heads (diffusers' historical name), one for all levels or one each.
        use_linear_projection: Linear instead of 1x1 convolution around the transformer blocks.
        upcast_attention: Attention scores of the SD layers in float32.
        resnet_time_scale_shift: As in diffusers.
        time_cond_proj_dim: As in diffusers.
        max_instances: Instance slots.
        num_scribble_points: Points of a scribble.
        num_mask_points: Points that stand for a mask.
        num_fourier_freqs: Frequencies of the Fourier features.
        grounding_in_dim: Size of phrase embeddings; None means `cross_attention_dim`.
        grounding_out_dim: Size of grounding tokens; None means `cross_attention_dim`.
        grounding_mid_dim: Hidden size of UniFusion; None means 4 * grounding_out_dim (published: 3072).
        segment_size: Side in pixels of the masks that enter the ConvNeXt.
        convnext_depths: Its blocks per stage; None leaves the segment branch out.
        convnext_widths: Its channels per stage; None likewise.
        use_scaleu: Whether the up path has ScaleU.
        masked_attention: Default mode of instance-masked attention, see `build_attention_masks`.
        local_mask_radius: Radii, as shares of the canvas side, of the local masks that stand for points and
            scribbles (keys "point" and "scribble"); recorded for the code that builds `instance_masks`, not used here.
        grounding_keep: Formats kept by default; recorded likewise, and used by the published masked attention
            when nothing else says which formats the tokens hold.
        grounding_net: `unifusion`, or `gligen`: diffusers' own box tokens of GLIGEN, which take the number of
            slots, frequencies and sizes of these arguments and leave the rest of UniFusion's aside.
        joint_tokens: See `UniFusion`.

    Raises:
        ValueError: If a block type or mode is not one of those above.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int | None = None,
        in_channels: int = 4,
        out_channels: int = 4,
        center_input_sample: bool = False,
        flip_sin_to_cos: bool = True,
        freq_shift: int = 0,
        down_block_types: Sequence[str] = (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
        mid_block_type: str = MID_BLOCK,
        up_block_types: Sequence[str] = ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
        only_cross_attention: bool = False,
        block_out_channels: Sequence[int] = (320, 640, 1280, 1280),
        layers_per_block: int = 2,
        downsample_padding: int = 1,
        mid_block_scale_factor: float = 1,
        dropout: float = 0.0,
        act_fn: str = "silu",
        norm_num_groups: int = 32,
        norm_eps: float = 1e-5,
        cross_attention_dim: int = 768,
        transformer_layers_per_block: int = 1,
        attention_head_dim: int | Sequence[int] = 8,
        use_linear_projection: bool = False,
        upcast_attention: bool = False,
        resnet_time_scale_shift: str = "default",
        time_cond_proj_dim: int | None = None,
        max_instances: int = 30,
        num_scribble_points: int = 20,
        num_mask_points: int = 256,
        num_fourier_freqs: int = 16,
        grounding_in_dim: int | None = None,
        grounding_out_dim: int | None = None,
        grounding_mid_dim: int | None = None,
        segment_size: int = 512,
        convnext_depths: Sequence[int] | None = (3, 3, 9, 3),
        convnext_widths: Sequence[int] | None = (96, 192, 384, 768),
        use_scaleu: bool = True,
        masked_attention: str = "none",
        local_mask_radius: dict[str, float] | None = None,
        grounding_keep: Sequence[str] = FORMATS,
        grounding_net: str = "unifusion",
        joint_tokens: bool = False,
    ) -> None:
        self._check_choices(down_block_types, mid_block_type, up_block_types, masked_attention, grounding_net)
        # The parent registers its own arguments too; they would be unknown when the config is read again.
        config = dict(self.config)
        super().__init__(
            sample_size=sample_size,
            in_channels=in_channels,
            out_channels=out_channels,
            center_input_sample=center_input_sample,
            flip_sin_to_cos=flip_sin_to_cos,
            freq_shift=freq_shift,
            down_block_types=tuple(down_block_types),
            mid_block_type=mid_block_type,
            up_block_types=tuple(up_block_types),
            only_cross_attention=only_cross_attention,
            block_out_channels=tuple(block_out_channels),
            layers_per_block=layers_per_block,
            downsample_padding=downsample_padding,
            mid_block_scale_factor=mid_block_scale_factor,
            dropout=dropout,
            act_fn=act_fn,
            norm_num_groups=norm_num_groups,
            norm_eps=norm_eps,
            cross_attention_dim=cross_attention_dim,
            transformer_layers_per_block=transformer_layers_per_block,
            attention_head_dim=(
                attention_head_dim if isinstance(attention_head_dim, int) else tuple(attention_head_dim)
            ),
            use_linear_projection=use_linear_projection,
            upcast_attention=upcast_attention,
            resnet_time_scale_shift=resnet_time_scale_shift,
            time_cond_proj_dim=time_cond_proj_dim,
        )
        self._internal_dict = FrozenDict(config)
        resolve_keep(grounding_keep)
        token_dim = grounding_out_dim or cross_attention_dim
        phrase_dim = grounding_in_dim or cross_attention_dim
        if grounding_net == "gligen":
            self.position_net: UniFusion | BoxTokens = BoxTokens(
                phrase_dim, token_dim, max_instances=max_instances, num_fourier_freqs=num_fourier_freqs
            )
        else:
            self.position_net = UniFusion(
                in_dim=phrase_dim,
                out_dim=token_dim,
                mid_dim=grounding_mid_dim or 4 * token_dim,
                max_instances=max_instances,
                num_scribble_points=num_scribble_points,
                num_mask_points=num_mask_points,
                num_fourier_freqs=num_fourier_freqs,
                segment_size=segment_size,
                convnext_depths=convnext_depths,
                convnext_widths=convnext_widths,
                joint_tokens=joint_tokens,
            )
        for name, block in list(self.named_modules()):
            if isinstance(block, BasicTransformerBlock):
                block.fuser = GatedSelfAttention(
                    block.dim, token_dim, block.num_attention_heads, block.attention_head_dim, name=name
                )
        self.scaleu = nn.ModuleList(self._up_scalers()) if use_scaleu else None

    @staticmethod
    def _check_choices(
        down: Sequence[str], mid: str, up: Sequence[str], mode: str, grounding_net: str
    ) -> None:
        for key, value, allowed in (
            *(("down_block_types", name, DOWN_BLOCKS) for name in down),
            ("mid_block_type", mid, (MID_BLOCK,)),
            *(("up_block_types", name, UP_BLOCKS) for name in up),
            ("masked_attention", mode, MODES),
            ("grounding_net", grounding_net, GROUNDING_NETS),
        ):
            if value not in allowed:
                raise ValueError(f"{key}: {value!r} is not supported; choose from {', '.join(allowed)}")

    def _up_scalers(self) -> list[ScaleU]:
        """One ScaleU per layer of the up path, as wide as the backbone feature that enters it."""
        channels = self.mid_block.resnets[-1].out_channels
        scalers = []
        for block in self.up_blocks:
            for resnet in block.resnets:
                scalers.append(ScaleU(channels))
                channels = resnet.out_channels
        return scalers

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> Any:
        """Loads a folder written by `save_pretrained`; all arguments are those of diffusers.

        Args:
            pretrained_model_name_or_path: The folder.
            **kwargs: Passed on to diffusers.

        Returns:
            The model in eval mode (and the loading info, if `output_loading_info` asks for it).

        Raises:
            ValueError: If parameters are missing in the folder. Diffusers would leave them uninitialised.
        """
        with_info = kwargs.pop("output_loading_info", False)
        kwargs.setdefault("use_safetensors", True)  # pickled weights could run code
        model, info = super().from_pretrained(
            pretrained_model_name_or_path, output_loading_info=True, **kwargs
        )
        if missing := sorted(info["missing_keys"]):
            raise ValueError(
                f"{pretrained_model_name_or_path}: {len(missing)} parameters missing, such as {missing[0]}; "
                "for the UNet of a Stable Diffusion model use InstanceUNet.from_stable_diffusion"
            )
        return (model, info) if with_info else model

    @classmethod
    def from_stable_diffusion(
        cls, pretrained_model_name_or_path: str | Path, *, subfolder: str | None = None, **config: Any
    ) -> InstanceUNet:
        """Starts from the UNet of a Stable Diffusion 1.x model; the grounding parts are newly initialised.

        The gates start at 0, so the new model predicts what the old one does.

        Args:
            pretrained_model_name_or_path: Folder of a diffusers `UNet2DConditionModel`, or of its pipeline.
            subfolder: "unet" if it is the pipeline's.
            **config: Arguments of `InstanceUNet` for the grounding parts.

        Returns:
            The model, float32, in eval mode.

        Raises:
            ValueError: If the folder's UNet has parameters that this class lacks, or lacks some itself.
        """
        source = _foreign_unet(pretrained_model_name_or_path, subfolder)
        model = cls.from_config(source.config, **config)
        missing, unexpected = model.load_state_dict(source.state_dict(), strict=False)
        added = ("position_net.", "scaleu.")
        lost = [name for name in missing if not name.startswith(added) and ".fuser." not in name]
        if lost or unexpected:
            raise ValueError(
                f"{pretrained_model_name_or_path}: not the UNet of a Stable Diffusion 1.x model; "
                f"missing {lost[:3]}, unexpected {unexpected[:3]}"
            )
        loaded: InstanceUNet = model.eval()
        return loaded

    @classmethod
    def from_gligen(
        cls, pretrained_model_name_or_path: str | Path, *, subfolder: str | None = None
    ) -> InstanceUNet:
        """Reads GLIGEN's UNet as diffusers writes it; every tensor has the same name here.

        Args:
            pretrained_model_name_or_path: Folder of a `UNet2DConditionModel` with gated attention, or of its
                pipeline.
            subfolder: "unet" if it is the pipeline's.

        Returns:
            The model with GLIGEN's box tokens and without ScaleU, float32, in eval mode. It has 30 slots; the
            weights set no limit.

        Raises:
            ValueError: If it is not the UNet of GLIGEN for boxes and text.
        """
        source = _foreign_unet(pretrained_model_name_or_path, subfolder)
        kind = source.config.attention_type
        if kind != "gated":
            raise ValueError(
                f"{pretrained_model_name_or_path}: attention_type {kind!r}; give GLIGEN for boxes and text ('gated')"
            )
        model = cls.from_config(
            source.config,
            grounding_net="gligen",
            grounding_keep=("box",),
            num_fourier_freqs=8,
            use_scaleu=False,
        )
        model.load_state_dict(source.state_dict())
        loaded: InstanceUNet = model.eval()
        return loaded

    def prepare_grounding(
        self,
        grounding_tokens: Tensor,
        *,
        size: tuple[int, int],
        grounding_scale: float | Tensor = 1.0,
        instance_masks: Tensor | None = None,
        masked_attention: str | None = None,
        token_mask: Tensor | None = None,
        keep: Sequence[str] | None = None,
        project: bool = False,
    ) -> Grounding:
        """Gathers what the gated layers need, so that a sampler can do it once per image.

        Args:
            grounding_tokens: `[B, T, C]` from `position_net`.
            size: Rows and columns of the latent.
            grounding_scale: Factor of the gated branches, a number or `[B]`.
            instance_masks: `[B, max_instances, rows, columns]` bool or float, None for no masking.
            masked_attention: "none", "published", "correct" (see `build_attention_masks`); None means the
                config's mode.
            token_mask: `[B, max_instances]` filled slots, for "correct"; None derives it from the masks.
            keep: Formats that the tokens hold, for "published"; None reads the mark that `position_net`
                leaves on its tokens, else `config.grounding_keep`.
            project: Also compute the keys and values of the tokens for every layer.

        Returns:
            The grounding; `forward` accepts it in place of tokens.

        Raises:
            ValueError: If the mode or a shape is wrong.
        """
        mode = self.config.masked_attention if masked_attention is None else masked_attention
        masks: dict[int, Tensor] = {}
        if mode not in MODES:
            raise ValueError(f"masked_attention: unknown mode {mode!r}; choose from {', '.join(MODES)}")
        if instance_masks is not None and mode != "none":
            if keep is None:
                keep = getattr(grounding_tokens, "kept_formats", self.config.grounding_keep)
            masks = build_attention_masks(
                instance_masks,
                sizes=level_sizes(*size, len(self.config.block_out_channels)),
                mode=mode,
                segment_tokens=self.position_net.num_segment_tokens,
                token_mask=token_mask,
                keep=resolve_keep(tuple(keep or ())),
                tokens_per_slot=self.position_net.tokens_per_slot,
            )
        projected = {}
        if project:
            for module in self.modules():
                if isinstance(module, GatedSelfAttention):
                    projected[module.name] = module.project_tokens(grounding_tokens)
        return Grounding(grounding_tokens, grounding_scale, masks, projected)

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float | int,
        encoder_hidden_states: Tensor,
        grounding_tokens: Tensor | Grounding | None = None,
        grounding_scale: float | Tensor = 1.0,
        instance_masks: Tensor | None = None,
        masked_attention: str | None = None,
        *,
        token_mask: Tensor | None = None,
        keep: Sequence[str] | None = None,
        timestep_cond: Tensor | None = None,
        return_dict: bool = True,
    ) -> UNet2DConditionOutput | tuple[Tensor]:
        """Predicts the noise of a batch of latents.

        Args:
            sample: `[B, in_channels, H, W]` noisy latents, any size.
            timestep: A number, or `[B]` timesteps of the training schedule.
            encoder_hidden_states: `[B, L, cross_attention_dim]` text embeddings.
            grounding_tokens: Tokens from `position_net`, or a `Grounding` from `prepare_grounding` (then the
                masking arguments are ignored and its own scale is multiplied by `grounding_scale`). None
                skips the gated layers; ScaleU stays on.
            grounding_scale: Factor of the gated branches; the number 0 skips them.
            instance_masks: See `prepare_grounding`.
            masked_attention: See `prepare_grounding`.
            token_mask: See `prepare_grounding`.
            keep: See `prepare_grounding`.
            timestep_cond: As in diffusers.
            return_dict: Return an output object (field `sample`) instead of a tuple.

        Returns:
            The prediction `[B, out_channels, H, W]`.
        """
        grounding: Grounding | None = None
        if isinstance(grounding_tokens, Grounding):
            scale = grounding_tokens.scale
            both_numbers = not isinstance(scale, Tensor) and not isinstance(grounding_scale, Tensor)
            unchanged = both_numbers and grounding_scale == 1
            grounding = (
                grounding_tokens if unchanged else grounding_tokens.with_scale(scale * grounding_scale)
            )
        elif grounding_tokens is not None and (isinstance(grounding_scale, Tensor) or grounding_scale != 0):
            grounding = self.prepare_grounding(
                grounding_tokens,
                size=(sample.shape[-2], sample.shape[-1]),
                grounding_scale=grounding_scale,
                instance_masks=instance_masks,
                masked_attention=masked_attention,
                token_mask=token_mask,
                keep=keep,
            )
        attention = {
            "encoder_hidden_states": encoder_hidden_states,
            "cross_attention_kwargs": None if grounding is None else {"gligen": {"objs": grounding}},
        }

        if self.config.center_input_sample:
            sample = 2 * sample - 1.0
        # One timestep for all samples is embedded once; it broadcasts.
        shared = not isinstance(timestep, Tensor) or timestep.ndim == 0
        embedded = self.get_time_embed(sample=sample[:1] if shared else sample, timestep=timestep)
        emb = self.time_embedding(embedded, timestep_cond)
        hidden = self.conv_in(sample)
        skips = [hidden]
        for block in self.down_blocks:
            arguments = attention if getattr(block, "has_cross_attention", False) else {}
            hidden, outputs = block(hidden_states=hidden, temb=emb, **arguments)
            skips.extend(outputs)
        hidden = self.mid_block(hidden, emb, **attention)
        hidden = self._up(hidden, skips, emb, attention)
        hidden = self.conv_out(self.conv_act(self.conv_norm_out(hidden)))
        return UNet2DConditionOutput(sample=hidden) if return_dict else (hidden,)

    def _up(self, hidden: Tensor, skips: list[Tensor], emb: Tensor, attention: dict[str, Any]) -> Tensor:
        """The up path; unlike diffusers' own, it lets ScaleU act right before each concatenation."""
        layer = 0
        for block in self.up_blocks:
            attentions = getattr(block, "attentions", None) or [None] * len(block.resnets)
            checkpointing = torch.is_grad_enabled() and block.gradient_checkpointing
            for resnet, attend in zip(block.resnets, attentions, strict=True):
                skip = skips.pop()
                if self.scaleu is not None:
                    hidden, skip = self.scaleu[layer](hidden, skip)
                layer += 1
                hidden = torch.cat((hidden, skip), dim=1)
                if checkpointing:
                    hidden = block._gradient_checkpointing_func(resnet, hidden, emb)
                else:
                    hidden = resnet(hidden, emb)
                if attend is not None:
                    hidden = attend(hidden, **attention, return_dict=False)[0]
            for upsampler in block.upsamplers or ():
                target = tuple(skips[-1].shape[-2:])
                doubled = (2 * hidden.shape[-2], 2 * hidden.shape[-1])
                hidden = upsampler(hidden) if target == doubled else upsampler(hidden, target)
        return hidden


def _foreign_unet(name_or_path: str | Path, subfolder: str | None) -> UNet2DConditionModel:
    """A UNet of diffusers; a folder is checked for missing, broken and oversized tensors first."""
    folder = Path(name_or_path)
    if folder.is_dir():
        return load_component(UNet2DConditionModel, folder, subfolder or "")
    return UNet2DConditionModel.from_pretrained(name_or_path, subfolder=subfolder, use_safetensors=True)
