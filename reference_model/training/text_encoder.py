"""Recipe of the text encoder: a small `CLIPTextModel` trained on text alone, before any image is made.

Three losses make it a useful conditioner: words of a phrase can be read from its pooled state; each token of a
caption knows the category and attributes of its own phrase said so far; the pooled state of a caption holds its
words, its pairs (which attribute goes with which category) and its repeats. A contrast between paraphrases keeps
distinct phrases apart.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from reference_model.training.common import step_seed, write_recipe
from reference_model.training.data import read_folder
from reference_model.training.loop import FitReport, LoopSettings, fit
from reference_model.training.text_data import LabelledText, TextWorld

__all__ = ["TextEncoderRecipe", "TextObjective", "build_text_encoder", "main", "train_text_encoder"]

logger = logging.getLogger(__name__)

_IGNORED = -100


@dataclass(frozen=True)
class TextEncoderRecipe:
    """Every number of the recipe.

    Attributes:
        hidden: Width of the model.
        layers: Transformer layers.
        heads: Attention heads.
        intermediate: Width of the feed-forward layers.
        max_length: Positions.
        phrases: Distinct phrases per step (each in two paraphrases).
        captions: Captions per step.
        noise_texts: Texts of unrelated words per step.
        steps: Optimizer steps.
        lr: Largest learning rate.
        warmup: Steps of warm-up.
        ema: Decay of the averaged weights.
        phrase_weight: Weight of reading words from pooled phrases.
        token_weight: Weight of reading words from tokens.
        caption_weight: Weight of reading units from pooled captions.
        contrast_weight: Weight of the contrast between paraphrases.
        temperature: Temperature of the contrast.
        holdout: Scenes at the end whose captions are never trained on.
        seed: Root of all randomness.
    """

    hidden: int = 128
    layers: int = 2
    heads: int = 4
    intermediate: int = 256
    max_length: int = 77
    phrases: int = 32
    captions: int = 48
    noise_texts: int = 8
    steps: int = 700
    lr: float = 1.5e-3
    warmup: int = 60
    ema: float = 0.995
    phrase_weight: float = 1.0
    token_weight: float = 1.0
    caption_weight: float = 8.0
    contrast_weight: float = 0.2
    temperature: float = 0.2
    holdout: int = 500
    seed: int = 0


def build_text_encoder(recipe: TextEncoderRecipe, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """The untrained model, float32; its initial weights depend on the recipe's seed alone.

    The last layer norm is fixed at unit gain, so that every output state has unit variance over its channels.
    """
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden,
        intermediate_size=recipe.intermediate,
        projection_dim=recipe.hidden,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        max_position_embeddings=recipe.max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = CLIPTextModel(config)
    for name, parameter in model.named_parameters():
        if "final_layer_norm" in name:
            parameter.requires_grad_(False)
    return model


class TextObjective(nn.Module):
    """A text encoder with the linear heads that its losses need; the heads are thrown away afterwards.

    Args:
        encoder: The text encoder.
        tokenizer: Its tokenizer.
        world: Source of texts and labels.
        recipe: Sizes and weights.
    """

    def __init__(
        self, encoder: CLIPTextModel, tokenizer: CLIPTokenizer, world: TextWorld, recipe: TextEncoderRecipe
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self._tokenizer, self._world, self._recipe = tokenizer, world, recipe
        width = recipe.hidden
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed + 1)
            sizes = {kind: len(words) + 1 for kind, words in world.kinds.items()}
            self.phrase_heads = nn.ModuleDict({kind: nn.Linear(width, size) for kind, size in sizes.items()})
            self.token_heads = nn.ModuleDict({kind: nn.Linear(width, size) for kind, size in sizes.items()})
            self.unit_head = nn.Linear(width, len(world.units))

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Token states ``[B, T, C]``, pooled states ``[B, C]`` and character offsets ``[B, T, 2]`` of texts."""
        batch = self._tokenizer(
            list(texts), padding=True, truncation=True, return_offsets_mapping=True, return_tensors="pt"
        )
        device = self.unit_head.weight.device
        output = self.encoder(input_ids=batch["input_ids"].to(device))
        return output.last_hidden_state, output.pooler_output, batch["offset_mapping"]

    def _token_labels(self, texts: Sequence[LabelledText], offsets: Tensor) -> dict[str, Tensor]:
        """Classes ``[B, T]`` of what each phrase has mentioned up to a token; outside of phrases, ignored."""
        starts, ends = offsets[..., 0], offsets[..., 1]
        labels = {kind: torch.full(starts.shape, _IGNORED) for kind in self._world.kinds}
        for row, item in enumerate(texts):
            for span in item.phrases:
                inside = (starts[row] >= span.start) & (ends[row] <= span.end) & (ends[row] > starts[row])
                for kind in labels:
                    labels[kind][row, inside] = 0
                for mention in span.mentions:
                    labels[mention.kind][row, inside & (ends[row] >= mention.end)] = mention.label
        return labels

    def _phrase_labels(self, texts: Sequence[LabelledText]) -> dict[str, Tensor]:
        labels = {kind: torch.zeros(len(texts), dtype=torch.long) for kind in self._world.kinds}
        for row, item in enumerate(texts):
            for mention in item.phrases[0].mentions:
                labels[mention.kind][row] = mention.label
        return labels

    def forward(self, step: int, scenes: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Loss of one step, from texts drawn for that step among the first ``scenes`` scenes."""
        recipe, world = self._recipe, self._world
        rng = np.random.default_rng(step_seed(recipe.seed, step, 1))
        chosen = rng.choice(len(world.phrases), size=min(recipe.phrases, len(world.phrases)), replace=False)
        single = [world.phrase(world.phrases[index], rng) for _ in range(2) for index in chosen]
        single += [world.noise(rng) for _ in range(recipe.noise_texts)]
        captions = []
        for index in rng.integers(scenes, size=recipe.captions):
            scene = world.scenes[index]
            captions.append(world.caption(scene, int(rng.integers(len(scene.captions)))))
        losses = self._losses(single, captions, len(chosen))
        total = (
            recipe.phrase_weight * losses["phrase"]
            + recipe.token_weight * losses["token"]
            + recipe.caption_weight * losses["caption"]
            + recipe.contrast_weight * losses["contrast"]
        )
        return total, dict(losses)

    def _losses(
        self, single: list[LabelledText], captions: list[LabelledText], paraphrased: int
    ) -> dict[str, Tensor]:
        device = self.unit_head.weight.device
        texts = [*single, *captions]
        tokens, pooled, offsets = self.encode([item.text for item in texts])
        phrase_labels, token_labels = self._phrase_labels(single), self._token_labels(texts, offsets)
        phrase = torch.zeros((), device=device)
        token = torch.zeros((), device=device)
        for kind in self._world.kinds:
            logits = self.phrase_heads[kind](pooled[: len(single)])
            phrase = phrase + F.cross_entropy(logits, phrase_labels[kind].to(device))
            logits = self.token_heads[kind](tokens).flatten(0, 1)
            targets = token_labels[kind].flatten().to(device)
            token = token + F.cross_entropy(logits, targets, ignore_index=_IGNORED)
        units = torch.from_numpy(self._world.unit_targets(captions)).to(device)
        caption = F.binary_cross_entropy_with_logits(self.unit_head(pooled[len(single) :]), units)
        views = F.normalize(pooled[: 2 * paraphrased], dim=-1).unflatten(0, (2, paraphrased))
        similarity = views[0] @ views[1].T / self._recipe.temperature
        contrast = F.cross_entropy(similarity, torch.arange(paraphrased, device=device))
        return {"phrase": phrase, "token": token, "caption": caption, "contrast": contrast}

    @torch.no_grad()
    def figures(self, first_scene: int) -> dict[str, float]:
        """How well words are read back on the scenes from ``first_scene`` on and on all phrases."""
        world = self._world
        rng = np.random.default_rng(0)
        single = [world.phrase(text, rng) for text in world.phrases]
        captions = [world.caption(scene, 0) for scene in world.scenes[first_scene:]]
        result: dict[str, float] = {}
        tokens, pooled, _ = self.encode([item.text for item in single])
        labels = self._phrase_labels(single)
        for kind in world.kinds:
            guess = self.phrase_heads[kind](pooled).argmax(-1).cpu()
            result[f"phrase_{kind}_accuracy"] = float((guess == labels[kind]).float().mean())
        unit = F.normalize(pooled, dim=-1)
        similarity = (unit @ unit.T).fill_diagonal_(float("nan"))
        result["phrase_cosine_mean"] = float(similarity.nanmean())
        result["phrase_cosine_max"] = float(similarity.nan_to_num(-1.0).max())
        result["pooled_std"] = float(pooled.std())
        tokens, pooled, offsets = self.encode([item.text for item in captions])
        for kind, wanted in self._token_labels(captions, offsets).items():
            guess = self.token_heads[kind](tokens).argmax(-1).cpu()
            counted = wanted != _IGNORED
            result[f"token_{kind}_accuracy"] = float((guess == wanted)[counted].float().mean())
        wanted = torch.from_numpy(world.unit_targets(captions)).bool()
        guess = self.unit_head(pooled).cpu() > 0
        hits = (guess & wanted).sum()
        result["caption_unit_f1"] = float(2 * hits / (guess.sum() + wanted.sum()).clamp_min(1))
        return result


def train_text_encoder(
    data: Sequence[Path],
    tokenizer: CLIPTokenizer,
    output: Path,
    recipe: TextEncoderRecipe,
    *,
    device: torch.device | str = "cpu",
    max_minutes: float | None = None,
    stop_at: int | None = None,
) -> FitReport:
    """Trains the text encoder, or goes on where an earlier session stopped.

    Args:
        data: COCO-format folders; their words are merged.
        tokenizer: Tokenizer of the model.
        output: Run folder; when the last step is reached it holds the model (transformers layout) and
            ``recipe.json`` as well.
        recipe: All numbers.
        device: Where to train.
        max_minutes: Stop (resumable) after this many minutes.
        stop_at: Stop (resumable) after this many steps in total.

    Raises:
        ValueError: If the folders lack texts, or the folder holds a run with other settings.
    """
    world = TextWorld([read_folder(path) for path in data])
    scenes = len(world.scenes) - recipe.holdout
    if scenes < 1:
        raise ValueError(
            f"{data[0]}: {len(world.scenes)} scenes do not leave a hold-out of {recipe.holdout}; export more"
        )
    # The hold-out is a fixed random choice, so that several folders are all part of it.
    order = np.random.default_rng(recipe.seed).permutation(len(world.scenes))
    world.scenes = tuple(world.scenes[index] for index in order)
    objective = TextObjective(build_text_encoder(recipe, tokenizer), tokenizer, world, recipe).to(device)
    settings = LoopSettings(
        steps=recipe.steps, lr=recipe.lr, warmup=recipe.warmup, ema=recipe.ema, seed=recipe.seed, log_every=50
    )
    report = fit(
        objective,
        lambda step: objective(step, scenes),
        settings,
        output,
        recipe=recipe,
        max_minutes=max_minutes,
        stop_at=stop_at,
    )
    if report.complete:
        objective.eval()
        figures: dict[str, Any] = objective.figures(scenes if recipe.holdout else 0)
        figures["words"] = {kind: list(words) for kind, words in world.kinds.items()}
        objective.encoder.save_pretrained(output, safe_serialization=True)
        write_recipe(output, recipe, steps=report.step, minutes=report.minutes, figures=figures)
        logger.info("text encoder: %s", figures)
    return report


def main(argv: list[str] | None = None) -> int:
    """Command line of the recipe; returns the exit code (0 done, 1 stopped before the last step)."""
    default = TextEncoderRecipe()
    parser = argparse.ArgumentParser(
        prog="python -m reference_model.training text-encoder", description=__doc__
    )
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="COCO-format folders")
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder of the tokenizer")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the run and the model")
    parser.add_argument("--steps", type=int, default=default.steps)
    parser.add_argument("--hidden", type=int, default=default.hidden)
    parser.add_argument("--lr", type=float, default=default.lr)
    parser.add_argument("--holdout", type=int, default=default.holdout)
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--max-minutes", type=float, help="stop, resumable, after so many minutes")
    arguments = parser.parse_args(argv)
    if not (arguments.tokenizer / "tokenizer.json").is_file():
        raise ValueError(f"{arguments.tokenizer}: holds no tokenizer.json; train the tokenizer first")
    recipe = TextEncoderRecipe(
        hidden=arguments.hidden,
        intermediate=2 * arguments.hidden,
        steps=arguments.steps,
        lr=arguments.lr,
        holdout=arguments.holdout,
        seed=arguments.seed,
    )
    report = train_text_encoder(
        arguments.data,
        CLIPTokenizer.from_pretrained(arguments.tokenizer, local_files_only=True),
        arguments.output,
        recipe,
        device=arguments.device,
        max_minutes=arguments.max_minutes,
    )
    return 0 if report.complete else 1
