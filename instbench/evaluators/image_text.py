"""The open_clip image-text model: folders in open_clip's own ``local-dir`` form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from instbench.devices import resolve_device
from instbench.errors import InputError
from instbench.evaluators.folders import (
    CARD_NAME,
    ImageTextCard,
    check_room,
    default_batch_size,
    file_hashes,
    load_weights,
    one_line,
    read_card,
    read_json,
)

__all__ = [
    "CONFIG_NAME",
    "TOKENIZER_FOLDER",
    "WEIGHTS_NAME",
    "OpenClipImageText",
    "build_clip",
    "clip_tokenizer",
]

CONFIG_NAME = "open_clip_config.json"
WEIGHTS_NAME = "open_clip_model.safetensors"
TOKENIZER_FOLDER = "tokenizer"


def build_clip(model_config: Mapping[str, Any], source: str = CONFIG_NAME) -> nn.Module:
    """Builds an untrained ``open_clip.CLIP``.

    Args:
        model_config: ``embed_dim``, ``vision_cfg`` and ``text_cfg`` as open_clip names them.
        source: Where they come from, for messages.

    Raises:
        InputError: A field is unknown or missing, or asks for a download.
    """
    import open_clip

    text, vision = dict(model_config.get("text_cfg", {})), dict(model_config.get("vision_cfg", {}))
    if "hf_model_name" in text or "timm_model_name" in vision:
        raise InputError(
            f"{source}: towers from other libraries are not supported; use a native open_clip model"
        )
    # Fields that only say where the tokenizer is fetched from; ours lies in the folder.
    text = {key: value for key, value in text.items() if not key.startswith(("hf_", "tokenizer_"))}
    try:
        config = {**model_config, "text_cfg": text, "vision_cfg": vision}
        model: nn.Module = open_clip.CLIP(**config)
    except (TypeError, ValueError, KeyError) as error:
        raise InputError(f"{source}: not a model that open_clip can build ({one_line(error)})") from error
    return model


def clip_tokenizer(folder: Path, context_length: int) -> Callable[[Sequence[str]], torch.Tensor]:
    """The tokenizer of an evaluator folder: its own, or open_clip's where it brings none.

    Args:
        folder: The evaluator folder; a ``tokenizer`` folder inside holds a ``CLIPTokenizer``.
        context_length: Tokens per text.

    Returns:
        Function from texts to int64 [len(texts), context_length].

    Raises:
        InputError: The tokenizer folder is unreadable.
    """
    own = folder / TOKENIZER_FOLDER
    if not own.is_dir():
        import open_clip

        standard = open_clip.SimpleTokenizer(context_length=context_length)
        return lambda texts: cast(torch.Tensor, standard(list(texts)))
    from transformers import CLIPTokenizer

    try:
        tokenizer = CLIPTokenizer.from_pretrained(own, local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{own}: not a readable CLIP tokenizer ({one_line(error)})") from error

    def encode(texts: Sequence[str]) -> torch.Tensor:
        cleaned = [" ".join(text.lower().split()) for text in texts]
        encoded = tokenizer(
            cleaned, padding="max_length", truncation=True, max_length=context_length, return_tensors="pt"
        )
        return cast(torch.Tensor, encoded["input_ids"])

    return encode


class OpenClipImageText:
    """An open_clip model that compares images with texts.

    Args:
        model: An ``open_clip.CLIP`` with weights.
        transform: Image preprocessing, PIL image to float32 [3, S, S].
        tokenize: Texts to token ids.
        hashes: SHA-256 of the files that the model was made from.
        device: Where to run.
        batch_size: Images per forward pass; None takes one on the CPU, 64 on an accelerator.
        facts: What else the result depends on (architecture, preprocessing), for the identity.
    """

    def __init__(
        self,
        model: nn.Module,
        transform: Callable[[Image.Image], torch.Tensor],
        tokenize: Callable[[Sequence[str]], torch.Tensor],
        hashes: Mapping[str, str] | None = None,
        *,
        device: str | torch.device = "auto",
        batch_size: int | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self._facts = dict(facts or {})
        self._device = resolve_device(device)
        self._model = model.eval().requires_grad_(False).to(self._device)
        self._transform = transform
        self._tokenize = tokenize
        self._hashes = dict(hashes or {})
        self._batch_size = batch_size or default_batch_size(self._device, 64)
        self._text_cache: dict[str, NDArray[np.float32]] = {}

    @classmethod
    def from_folder(cls, folder: Path | str, *, device: str | torch.device = "auto") -> OpenClipImageText:
        """Loads ``evaluator.json``, ``open_clip_config.json``, ``open_clip_model.safetensors``, ``tokenizer/``.

        A folder without ``evaluator.json`` but with ``open_clip_config.json`` does too.

        Raises:
            InputError: Something is missing or broken, or the weights are a pickle.
        """
        from open_clip.transform import image_transform

        folder = Path(folder)
        path = folder / CONFIG_NAME
        if (folder / CARD_NAME).exists() or not path.exists():
            read_card(folder, ImageTextCard)
        config = read_json(path)
        for field in ("model_cfg", "preprocess_cfg"):
            if not isinstance(config.get(field), dict):
                raise InputError(f"{path}: field {field} is missing; see open_clip's local-dir form")

        def build() -> nn.Module:
            return build_clip(config["model_cfg"], str(path))

        check_room(build, config["model_cfg"], path, folder / WEIGHTS_NAME)
        model = build()
        load_weights(model, folder / WEIGHTS_NAME)
        preprocess = config["preprocess_cfg"]
        transform = image_transform(
            cast(Any, model).visual.image_size,
            is_train=False,
            mean=preprocess.get("mean"),
            std=preprocess.get("std"),
            resize_mode=preprocess.get("resize_mode"),
            interpolation=preprocess.get("interpolation"),
        )
        names = [CONFIG_NAME, WEIGHTS_NAME]
        names += [str(p.relative_to(folder)) for p in (folder / TOKENIZER_FOLDER).glob("*") if p.is_file()]
        tokenize = clip_tokenizer(folder, int(cast(int, model.context_length)))
        return cls(model.float(), transform, tokenize, file_hashes(folder, names), device=device)

    def identity(self) -> Mapping[str, Any]:
        """Kind and SHA-256 of the files; for weights by name also architecture and preprocessing."""
        return {"kind": "open-clip", **self._facts, "sha256": dict(self._hashes)}

    def similarity(self, images: Sequence[Image.Image], texts: Sequence[str]) -> NDArray[np.float32]:
        """Cosine similarities.

        Args:
            images: Images or crops of any size but zero.
            texts: Texts; their embeddings are kept for the next call.

        Returns:
            float32 [len(images), len(texts)], in [-1, 1].

        Raises:
            InputError: An image is empty.
        """
        # Unlike a matrix product, this sums every entry alike, however many images and texts there are.
        products = np.einsum("id,td->it", self.image_embeddings(images), self.text_embeddings(texts))
        return products.astype(np.float32)

    @torch.inference_mode()
    def image_embeddings(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Unit vectors, float32 [len(images), embed_dim]."""
        for position, image in enumerate(images):
            if image.width == 0 or image.height == 0:
                raise InputError(f"image {position}: size {image.width}x{image.height}; skip empty crops")
        rows: list[NDArray[np.float32]] = []
        for start in range(0, len(images), self._batch_size):
            chunk = [self._transform(image) for image in images[start : start + self._batch_size]]
            embedded = cast(Any, self._model).encode_image(
                torch.stack(chunk).to(self._device), normalize=True
            )
            rows.append(embedded.float().cpu().numpy())
        return np.concatenate(rows) if rows else np.zeros((0, self._embed_dim), np.float32)

    @torch.inference_mode()
    def text_embeddings(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors, float32 [len(texts), embed_dim]."""
        new = [text for text in dict.fromkeys(texts) if text not in self._text_cache]
        for start in range(0, len(new), self._batch_size):
            chunk = new[start : start + self._batch_size]
            embedded = cast(Any, self._model).encode_text(
                self._tokenize(chunk).to(self._device), normalize=True
            )
            self._text_cache.update(zip(chunk, embedded.float().cpu().numpy(), strict=True))
        if not texts:
            return np.zeros((0, self._embed_dim), np.float32)
        return np.stack([self._text_cache[text] for text in texts])

    @property
    def _embed_dim(self) -> int:
        return int(cast(torch.Tensor, self._model.text_projection).shape[-1])
