"""The ultralytics detector: YOLO networks from safetensors folders or ``.pt`` files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from instbench.devices import resolve_device
from instbench.errors import InputError
from instbench.evaluators.base import Detections
from instbench.evaluators.folders import (
    DetectorCard,
    count_numbers,
    default_batch_size,
    file_hashes,
    load_weights,
    one_line,
    read_card,
)
from instbench.evaluators.yolo_model import build_yolo_model, quiet_ultralytics
from instbench.layouts import rle
from instbench.plain_files import read_file

__all__ = ["UltralyticsDetector"]

WEIGHTS_NAME = "model.safetensors"
ARCHITECTURE_NAME = "model.yaml"
_GREY = 114
_PROTOTYPE_STRIDE = 4
_MOST_BYTES = 2**20


class _NoAliases(yaml.SafeLoader):
    """A safe loader without aliases, with which a few lines can stand for thousands of millions of values."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias (*) is not allowed here")
        return super().compose_node(parent, index)


class UltralyticsDetector:
    """A YOLO detection or segmentation network with ultralytics' own pre- and postprocessing.

    Images are letterboxed to the fixed square input, candidates go through ultralytics'
    non-maximum suppression, boxes and masks are scaled back to the image. The input size is fixed, so
    an image's detections do not depend on the images that it is batched with.

    Args:
        model: A ``SegmentationModel`` or ``DetectionModel`` with weights, as the card's kind says.
        card: Categories, input size and thresholds.
        hashes: SHA-256 of the files that the network was made from.
        device: Where to run.
        batch_size: Images per forward pass. None takes one on the CPU, where results are then the same
            to the last bit whatever the batch, and 16 on an accelerator, where they agree to rounding.
    """

    def __init__(
        self,
        model: nn.Module,
        card: DetectorCard,
        hashes: Mapping[str, str] | None = None,
        *,
        device: str | torch.device = "auto",
        batch_size: int | None = None,
    ) -> None:
        with quiet_ultralytics():
            from ultralytics.data.augment import LetterBox
        self._device = resolve_device(device)
        # Fusing folds batch normalisation into the convolutions, as ultralytics does before inference.
        fused = cast(Any, model.eval().requires_grad_(False)).fuse(verbose=False)
        self._model: nn.Module = fused.to(self._device)
        self._letterbox = LetterBox(new_shape=(card.image_size, card.image_size), auto=False)
        self._hashes = dict(hashes or {})
        self._batch_size = batch_size or default_batch_size(self._device, 16)
        self.card = card
        self.categories = card.categories

    @classmethod
    def from_folder(cls, folder: Path | str, *, device: str | torch.device = "auto") -> UltralyticsDetector:
        """Loads ``evaluator.json``, ``model.yaml`` and ``model.safetensors``.

        Raises:
            InputError: Something is missing or broken, or the weights are a pickle.
        """
        folder = Path(folder)
        card = read_card(folder, DetectorCard)
        architecture = folder / ARCHITECTURE_NAME
        try:
            spec = _NoAliases(read_file(architecture, _MOST_BYTES).decode("utf-8")).get_single_data()
        except FileNotFoundError as error:
            raise InputError(
                f"{architecture}: no such file; give the network's ultralytics architecture"
            ) from error
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
            raise InputError(
                f"{architecture}: not readable as YAML ({one_line(error)}); write it again"
            ) from error
        if not isinstance(spec, dict):
            raise InputError(f"{architecture}: expected a mapping with backbone and head")
        held = count_numbers(folder / WEIGHTS_NAME)
        model = build_yolo_model(spec, len(card.categories), card.kind, str(architecture), held=held)
        load_weights(model, folder / WEIGHTS_NAME)
        hashes = file_hashes(folder, (WEIGHTS_NAME, ARCHITECTURE_NAME))
        return cls(model.float(), card, hashes, device=device)

    @classmethod
    def from_checkpoint(cls, path: Path | str, *, device: str | torch.device = "auto") -> UltralyticsDetector:
        """Loads a ``.pt`` file of ultralytics, running nothing in it; settings as `read_yolo_checkpoint` says.

        Raises:
            InputError: The file is missing, damaged, of another kind or asks for code to be run.
        """
        from instbench.evaluators.yolo_checkpoint import read_yolo_checkpoint

        path = Path(path)
        found = read_yolo_checkpoint(path)
        return cls(found.model, found.card, file_hashes(path.parent, (path.name,)), device=device)

    def identity(self) -> Mapping[str, Any]:
        """Kind, SHA-256 of the files, categories, input size and thresholds."""
        hidden = {"figures", "training", "schema_version"}
        if not self.card.border:
            hidden.add("border")
        settings = self.card.model_dump(mode="json", exclude=hidden)
        return {**settings, "sha256": dict(self._hashes)}

    def detect(self, images: Sequence[Image.Image]) -> list[Detections]:
        """Finds objects.

        Args:
            images: Images of any size; converted to RGB.

        Returns:
            One `Detections` per image, in order; boxes in pixels of the image, clipped to it.
        """
        found: list[Detections] = []
        for start in range(0, len(images), self._batch_size):
            pixels = [np.asarray(image.convert("RGB")) for image in images[start : start + self._batch_size]]
            found += self._detect_batch(pixels)
        return found

    @torch.inference_mode()
    def _detect_batch(self, pixels: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        with quiet_ultralytics():
            from ultralytics.utils import ops
            from ultralytics.utils.nms import non_max_suppression
        card = self.card
        border = card.border
        stacked = np.stack([self._letterbox(image=image) for image in pixels])
        if border:
            sides = ((0, 0), (border, border), (border, border), (0, 0))
            stacked = np.pad(stacked, sides, constant_values=_GREY)
        tensor = torch.from_numpy(stacked).to(self._device).permute(0, 3, 1, 2).contiguous().float() / 255
        output = self._model(tensor)[0]
        predictions, prototypes = (
            output if card.kind == "ultralytics-segment" else (output, [None] * len(pixels))
        )
        kept = non_max_suppression(
            predictions,
            conf_thres=card.confidence,
            iou_thres=card.iou,
            max_det=card.max_detections,
            nc=len(card.categories),
            multi_label=card.multi_label,
            # ultralytics gives up after a time limit, which would make results depend on the machine.
            max_time_img=1e6,
            end2end=bool(getattr(self._model, "end2end", False)),
        )
        results = []
        for rows, prototype, image in zip(kept, prototypes, pixels, strict=True):
            height, width = image.shape[:2]
            inner = rows[:, :4] - border
            boxes = ops.scale_boxes((card.image_size, card.image_size), inner, (height, width))
            masks = None
            if prototype is not None:
                cells = border // _PROTOTYPE_STRIDE
                inside = slice(cells, prototype.shape[-1] - cells)
                masks = ops.process_mask_native(
                    prototype[:, inside, inside].contiguous(), rows[:, 6:], boxes, (height, width)
                )
            results.append(self._detections(boxes, rows, masks))
        return results

    def _detections(self, boxes: torch.Tensor, rows: torch.Tensor, masks: torch.Tensor | None) -> Detections:
        # Like ultralytics, drop what has an empty mask or no extent.
        keep = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        if masks is not None:
            masks = masks.bool()
            keep &= masks.flatten(1).any(dim=1)
            masks = masks[keep].cpu()
        boxes, rows = boxes[keep], rows[keep]
        return Detections(
            boxes_xyxy=boxes.cpu().numpy().astype(np.float32).reshape(-1, 4),
            scores=rows[:, 4].cpu().numpy().astype(np.float32),
            categories=tuple(self.categories[int(index)] for index in rows[:, 5].tolist()),
            masks=None if masks is None else tuple(rle.encode(mask) for mask in masks.numpy()),
        )
