"""What training samples show: every random rule, next to its number and the number's source.

`FormatRules` is the recipe of the small weights: one draw per sample. `PaperRules` repeats the published
training code, which draws the formats once per forward pass for all samples of a process.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from reference_model.training.locations import NAME_LEVEL, Locations

__all__ = ["FORMATS", "Choice", "FormatRules", "PaperRules", "Rules"]

FORMATS = ("box", "point", "scribble", "mask")
_NONE = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class Choice:
    """What one sample shows.

    Attributes:
        caption: Row of `Locations.captions`; 0 is the empty caption.
        instances: int [K], instances in the order of their slots.
        phrases: int [K], rows of `Locations.phrases`.
        shown: bool [K, 4], formats per instance in the order of `FORMATS`.
        exists: bool [K], instances that take part; one without a format has its phrase alone.
        flipped: Whether the image is mirrored left to right.
    """

    caption: int
    instances: NDArray[np.int64] = field(default_factory=lambda: _NONE)
    phrases: NDArray[np.int64] = field(default_factory=lambda: _NONE)
    shown: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((0, 4), dtype=bool))
    exists: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=bool))
    flipped: bool = False


@dataclass(frozen=True)
class FormatRules:
    """Rules of the small weights; the probabilities of the first four cases, the rest is `keep_only`.

    The numbers were found on Shapes; none is published.

    Attributes:
        unconditional: Empty caption, no instances (for classifier-free guidance).
        text_only: Caption without instances, so that grounding can be switched off.
        no_caption: Instances with an empty caption.
        all_formats: Every instance shows all four formats.
        random_subset: Every instance shows its own non-empty random subset of the formats (hybrid).
        keep_only: Weights of box, point, scribble and mask where all instances show one format.
        full_phrase: Probability that phrases and caption have full detail; else one of the shorter
            levels, the same for the whole sample.
    """

    unconditional: float = 0.08
    text_only: float = 0.08
    no_caption: float = 0.05
    all_formats: float = 0.08
    random_subset: float = 0.10
    keep_only: tuple[float, float, float, float] = (0.30, 0.22, 0.24, 0.24)
    full_phrase: float = 0.7

    box_centres: ClassVar[bool] = False  # points lie inside their masks

    def _shown(self, count: int, case: float, rng: np.random.Generator) -> NDArray[np.bool_]:
        if case < self.all_formats:
            return np.ones((count, 4), dtype=bool)
        if case < self.all_formats + self.random_subset:
            chosen = rng.random((count, 4)) < 0.4
            chosen[np.arange(count), rng.integers(4, size=count)] = True
            return chosen
        weights = np.asarray(self.keep_only)
        chosen = np.zeros((count, 4), dtype=bool)
        chosen[:, rng.choice(4, p=weights / weights.sum())] = True
        return chosen

    def choices(
        self, locations: Locations, images: NDArray[np.int64], slots: int, rng: np.random.Generator
    ) -> Iterator[Choice]:
        """One choice per image; further instances than slots are left out at random.

        Args:
            locations: The data.
            images: int [B], images of the batch.
            slots: Instance slots.
            rng: Source of all choices, used as the choices are taken.
        """
        for image in images:
            level = 0 if rng.random() < self.full_phrase else int(rng.integers(1, 4))
            case = rng.random()
            if case < self.unconditional:
                yield Choice(0)
                continue
            case -= self.unconditional
            own = locations.captions_of(int(image))
            caption = int(own[min(level, len(own) - 1)])
            if case < self.text_only:
                yield Choice(caption)
                continue
            case -= self.text_only
            chosen = rng.permutation(locations.instances_of(int(image)))[:slots]
            shown = self._shown(len(chosen), rng.random(), rng)
            shown[:, 2:] &= locations.has_mask[chosen, None]
            yield Choice(
                caption=0 if case < self.no_caption else caption,
                instances=chosen,
                phrases=locations.phrase_ids[chosen, level],
                shown=shown,
                exists=np.asarray(shown.any(axis=1)),
            )


@dataclass(frozen=True)
class PaperRules:
    """The published rules. Files are those of the published code.

    The formats are drawn once per forward pass, for all samples of a process
    (``ldm/modules/diffusionmodules/text_grounding_net.py``, ``UniFusion.forward`` and
    ``reset_dropout_train``), in this order: drop each; a kept mask brings back box and point, a kept box the
    point; then the two keep-only rules; if nothing is left, the box. "Mask" is the 256 points and the
    segment branch together.

    Attributes:
        drop: Probability that box, point, scribble and mask are dropped (``drop_box_ratio`` and its
            siblings, 0.1 each).
        keep_point_only: Only the point is kept (``keep_point_only_ratio``, 0.1).
        keep_mask: If the mask is not dropped: mask, box and point are kept, the scribble is not
            (``keep_seg_only_ratio``, 0.1). The published ratios for box, scribble and mask alone are 0.
        caption: Probability of the caption, else an empty one (``prob_use_caption: 0.5`` in
            ``configs/train_sd15.yaml``); with several captions one at random (the published data has one).
        own_phrase: Probability per instance that its own caption names it, else its category's name
            (``--random_blip 0.5`` in the training command of ``README.md``).
        no_grounding: Probability that a whole forward pass shows no instances, for guidance; captions stay
            (``forward_single_input`` in ``ldm/modules/diffusionmodules/openaimodel.py``, 0.1).
        flip: Probability of a mirrored image (``random_flip`` in ``configs/train_sd15.yaml`` and
            ``dataset/decode_item.py``: 0.5).
    """

    drop: tuple[float, float, float, float] = (0.1, 0.1, 0.1, 0.1)
    keep_point_only: float = 0.1
    keep_mask: float = 0.1
    caption: float = 0.5
    own_phrase: float = 0.5
    no_grounding: float = 0.1
    flip: float = 0.5

    box_centres: ClassVar[bool] = True  # points are the centres of the boxes (``dataset/decode_item.py``)

    def kept(self, rng: np.random.Generator) -> NDArray[np.bool_]:
        """Draws the formats of one forward pass, bool [4] in the order of `FORMATS`."""
        box, point, scribble, mask = (rng.random(4) >= np.asarray(self.drop)).tolist()
        box |= mask
        point |= box or mask
        if rng.random() < self.keep_point_only:
            box, point, scribble, mask = False, True, False, False
        if rng.random() < self.keep_mask and mask:
            box, point, scribble = True, True, False
        if not (box or point or scribble or mask):
            box = True
        return np.array([box, point, scribble, mask])

    def choices(
        self, locations: Locations, images: NDArray[np.int64], slots: int, rng: np.random.Generator
    ) -> Iterator[Choice]:
        """One choice per image; the largest boxes take the slots, the largest first (``decode_item.py``).

        Args:
            locations: The data.
            images: int [B], images of the batch.
            slots: Instance slots (``max_boxes_per_data: 30``).
            rng: Source of all choices, used as the choices are taken.
        """
        nothing = rng.random() < self.no_grounding
        kept = self.kept(rng)
        for image in images:
            own = locations.captions_of(int(image))
            caption = int(own[rng.integers(len(own))]) if rng.random() < self.caption else 0
            instances = locations.instances_of(int(image))
            boxes = locations.boxes[instances].astype(np.float64)
            areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
            chosen = instances[np.argsort(-areas, kind="stable")[:slots]]
            levels = np.where(rng.random(len(chosen)) < self.own_phrase, 0, NAME_LEVEL)
            shown = np.tile(kept, (len(chosen), 1))
            shown[:, 2:] &= locations.has_mask[chosen, None]
            flipped = bool(rng.random() < self.flip)
            if nothing:
                yield Choice(caption, flipped=flipped)
                continue
            yield Choice(
                caption=caption,
                instances=chosen,
                phrases=locations.phrase_ids[chosen, levels],
                shown=shown,
                exists=np.ones(len(chosen), dtype=bool),
                flipped=flipped,
            )


Rules = FormatRules | PaperRules
