"""Layouts from COCO-format annotations."""

from __future__ import annotations

import logging
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from instbench.errors import InputError
from instbench.layouts.geometry import boxes_xywh_to_xyxy, boxes_xyxy_to_relative, clip_boxes_xyxy
from instbench.layouts.prompts import (
    PROMPT_RULES,
    Attribute,
    PromptRule,
    attribute_word,
    paper_prompt,
    strict_prompt,
)
from instbench.layouts.types import Instance, Layout, MaskRLE

if TYPE_CHECKING:  # the datasets package builds on this one
    from instbench.datasets.coco import CocoAnnotation, CocoAnnotations, CocoImage
    from instbench.layouts.locations import PaperPoints

__all__ = ["MAX_INSTANCES", "Edition", "from_coco", "image_key"]

logger = logging.getLogger(__name__)

Edition = Literal["strict", "paper"]

MAX_INSTANCES = 30
"""Instances per image that can be asked for (published grounding slots)."""

_PROGRESS_FROM = 500  # images; below, it is a matter of seconds


def image_key(image_id: int) -> str:
    """The safe key of an image: its id, zero-padded to 12 digits.

    Raises:
        InputError: If the id is no non-negative integer.
    """
    if type(image_id) is not int or image_id < 0:
        raise InputError(f"image id {image_id!r}: must be a non-negative integer")
    return f"{image_id:012d}"


def from_coco(
    annotations: Path | str | Mapping[str, Any] | CocoAnnotations,
    captions: Path | str | Mapping[str, Any] | None = None,
    *,
    edition: str = "strict",
    attribute: str | None = None,
    dataset: str = "coco",
    image_ids: Collection[int] | None = None,
    limit: int | None = None,
    images_dir: Path | None = None,
    max_instances: int = MAX_INSTANCES,
    prompt: str = "caption",
    seed: int = 0,
    numpy_seed: int | np.random.RandomState | None = None,
    python_seed: int | random.Random | None = None,
    attribute_words: Sequence[str] | None = None,
) -> list[Layout]:
    """Makes one layout per image, images without instances included.

    Strict edition: crowds, degenerate annotations (zero-area or outside box, empty mask) and those
    beyond the first ``max_instances`` others in file order stay in the layout with ``is_ignored`` and a
    reason. Paper edition: every annotation is requested, crowds too, as the published script does;
    generators take as many as they have slots.

    Args:
        annotations: COCO ``instances`` file, its content, or annotations already read.
        captions: COCO ``captions`` file or its content; None makes prompts from names.
        edition: ``"strict"`` or ``"paper"``.
        attribute: Ask for a colour or texture on every instance (see `instbench.layouts.prompts`).
        dataset: Name of the dataset, kept in the layouts.
        image_ids: Only these images; None takes all.
        limit: Only the first images in ascending order of id.
        images_dir: Folder of the real images; fills `Layout.source_path`.
        max_instances: Cap of the strict edition. The paper edition keeps all annotations, draws points for
            all of them, and caps what is shown later (see `instbench.layouts.published`).
        prompt: Rule of the global prompt (see `instbench.layouts.prompts`).
        seed: Seed of scribbles and mask points. Strict edition: hashed with the annotation id. Paper edition:
            one stream for the whole file, as if the published script ran after ``numpy.random.seed(seed)``
            and ``random.seed(seed)``.
        numpy_seed: Paper edition: seed of numpy's stream (scribbles) where it differs from `seed`, or the stream.
        python_seed: Paper edition: seed of Python's stream (mask points of masks below 128 pixels) where it
            differs from `seed`, or the stream.
        attribute_words: Words that are asked for by ``annotation_id % len(words)``; None takes the published
            lists.

    Returns:
        Layouts in ascending order of image id.

    Raises:
        InputError: If a file is bad, an option or id is unknown, or an image path leaves ``images_dir``.
    """
    from instbench.datasets.coco import CocoAnnotations, CocoCaptions
    from instbench.progress import track

    _check_options(edition, attribute, prompt, limit, max_instances)
    if attribute_words is not None and not attribute_words:
        raise InputError("attribute_words is empty; give at least one word, or None")
    if edition != "paper" and (numpy_seed is not None or python_seed is not None):
        raise InputError("numpy_seed and python_seed belong to the paper edition; give seed")
    coco = annotations if isinstance(annotations, CocoAnnotations) else CocoAnnotations.read(annotations)
    texts = CocoCaptions.read(captions).by_image if captions is not None else {}
    chosen = _choose(coco, image_ids, limit)
    builder = _Builder(
        coco,
        cast(Edition, edition),
        cast("Attribute | None", attribute),
        cast(PromptRule, prompt),
        max_instances,
        seed,
        None if attribute_words is None else tuple(attribute_words),
    )
    if edition == "paper":
        from instbench.layouts.locations import PaperPoints

        streams = (seed if numpy_seed is None else numpy_seed, seed if python_seed is None else python_seed)
        builder.paper = PaperPoints(*streams)
    layouts = []
    for image_id in track(chosen, description="layouts") if len(chosen) >= _PROGRESS_FROM else chosen:
        image = coco.images[image_id]
        instances = builder.instances(image)
        layouts.append(
            Layout(
                image_key=image_key(image_id),
                dataset=dataset,
                image_id=image_id,
                caption=builder.caption(texts.get(image_id, ()), instances),
                source_width=image.width,
                source_height=image.height,
                instances=instances,
                source_path=_source_path(image, images_dir),
                absent_category_ids=image.neg_category_ids,
                partial_category_ids=image.not_exhaustive_category_ids,
            )
        )
    if captions is not None:
        _report_uncaptioned([image_id for image_id in chosen if image_id not in texts])
    _report_ignored(layouts)
    return layouts


@dataclass(slots=True)
class _Builder:
    coco: CocoAnnotations
    edition: Edition
    attribute: Attribute | None
    prompt: PromptRule
    max_instances: int
    seed: int
    attribute_words: tuple[str, ...] | None = None
    paper: PaperPoints | None = None

    def instances(self, image: CocoImage) -> tuple[Instance, ...]:
        built: list[Instance] = []
        requested = 0
        for annotation in self.coco.by_image[image.id]:
            if self.edition == "paper":
                built.append(self._paper_instance(annotation, image))
                continue
            instance = self._strict_instance(annotation, image, full=requested >= self.max_instances)
            requested += not instance.is_ignored
            built.append(instance)
        return tuple(built)

    def caption(self, captions: tuple[str, ...], instances: tuple[Instance, ...]) -> str:
        phrases = [instance.phrase for instance in instances if not instance.is_ignored]
        if self.edition == "paper":
            return paper_prompt(captions, phrases, self.prompt)
        return strict_prompt(captions, phrases, self.prompt, attribute_run=self.attribute is not None)

    def _strict_instance(self, annotation: CocoAnnotation, image: CocoImage, *, full: bool) -> Instance:
        from instbench.datasets.validation import degenerate_box_reason
        from instbench.layouts.locations import strict_mask_points, strict_point, strict_scribble
        from instbench.layouts.rle import decode

        rle = self._mask(annotation, image)
        mask = None if rle is None else decode(rle)
        box = self._box(annotation, image, clip=True)
        reason: str | None
        if annotation.is_crowd:
            reason = "crowd"
        elif degenerate_box_reason(annotation.bbox_xywh, image.width, image.height) or (
            mask is not None and not mask.any()
        ):
            reason = "degenerate"
        else:
            reason = "over-cap" if full else None
        phrase, color, texture = self._words(annotation)
        instance = Instance(
            phrase=phrase,
            category=self.coco.categories[annotation.category_id],
            category_id=annotation.category_id,
            annotation_id=annotation.id,
            box_xyxy=box,
            mask=rle,
            color=color,
            texture=texture,
            is_crowd=annotation.is_crowd,
            is_ignored=reason is not None,
            ignore_reason=reason,
            area=annotation.area,
            frequency=self.coco.frequencies.get(annotation.category_id),
        )
        if reason is not None:  # never conditions a model and is never scored: needs no points
            return instance
        return replace(
            instance,
            point_xy=strict_point(box, mask),
            scribble_xy=None if mask is None else strict_scribble(mask, annotation.id, seed=self.seed),
            mask_points_xy=None if mask is None else strict_mask_points(mask, annotation.id, seed=self.seed),
        )

    def _paper_instance(self, annotation: CocoAnnotation, image: CocoImage) -> Instance:
        from instbench.layouts.locations import InstancePoints
        from instbench.layouts.rle import decode

        rle = self._mask(annotation, image)
        box = self._box(annotation, image, clip=False)
        centre = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        points = InstancePoints(centre, None, None)
        if self.paper is not None and rle is not None:
            points = self.paper.draw(box, decode(rle))
        name = self.coco.categories[annotation.category_id]
        word = None if self.attribute is None else self._word(self.attribute, annotation.id)
        return Instance(
            phrase=name if word is None else f"{word} {name}",
            category=name,
            category_id=annotation.category_id,
            annotation_id=annotation.id,
            box_xyxy=box,
            mask=rle,
            point_xy=points.point_xy,
            scribble_xy=points.scribble_xy,
            mask_points_xy=points.mask_points_xy,
            color=word if self.attribute == "color" else None,
            texture=word if self.attribute == "texture" else None,
            is_crowd=annotation.is_crowd,
            area=annotation.area,
            frequency=self.coco.frequencies.get(annotation.category_id),
        )

    def _words(self, annotation: CocoAnnotation) -> tuple[str, str | None, str | None]:
        """Phrase, colour and texture that are asked for in the strict edition."""
        name = self.coco.categories[annotation.category_id].replace("_", " ")  # LVIS names
        own = annotation.attributes
        if self.attribute is not None:
            word = own.get(self.attribute) or self._word(self.attribute, annotation.id)
            color, texture = (word, None) if self.attribute == "color" else (None, word)
            return f"{word} {name}", color, texture
        if not annotation.captions:
            return name, None, None
        phrase = " ".join(annotation.captions[0].split())
        said = set(phrase.lower().split())
        color, texture = own.get("color"), own.get("texture")
        color = color if color is not None and color.lower() in said else None
        texture = texture if texture is not None and texture.lower() in said else None
        return phrase, color, texture

    def _word(self, attribute: Attribute, annotation_id: int) -> str:
        return attribute_word(attribute, annotation_id, self.attribute_words)

    def _mask(self, annotation: CocoAnnotation, image: CocoImage) -> MaskRLE | None:
        from instbench.layouts.rle import from_coco_segmentation

        if annotation.segmentation is None:
            return None
        try:
            return from_coco_segmentation(annotation.segmentation, image.height, image.width)
        except InputError as error:
            raise InputError(f"{self.coco.source}: annotation {annotation.id}: {error}") from None

    @staticmethod
    def _box(
        annotation: CocoAnnotation, image: CocoImage, *, clip: bool
    ) -> tuple[float, float, float, float]:
        corners = boxes_xywh_to_xyxy(annotation.bbox_xywh)
        relative = boxes_xyxy_to_relative(corners, image.width, image.height)
        x0, y0, x1, y1 = (clip_boxes_xyxy(relative) if clip else relative).tolist()
        return x0, y0, x1, y1


def _check_options(
    edition: str, attribute: str | None, prompt: str, limit: int | None, max_instances: int
) -> None:
    if edition not in ("strict", "paper"):
        raise InputError(f"edition {edition!r} is unknown; choose 'strict' or 'paper'")
    if attribute not in (None, "color", "texture"):
        raise InputError(f"attribute {attribute!r} is unknown; choose 'color', 'texture' or none")
    if prompt not in PROMPT_RULES:
        raise InputError(f"prompt rule {prompt!r} is unknown; choose one of {', '.join(PROMPT_RULES)}")
    if limit is not None and limit < 1:
        raise InputError(f"limit must be at least 1, not {limit}")
    if max_instances < 1:
        raise InputError(f"max_instances must be at least 1, not {max_instances}")


def _choose(coco: CocoAnnotations, image_ids: Collection[int] | None, limit: int | None) -> list[int]:
    if image_ids is None:
        chosen = sorted(coco.images)
    else:
        unknown = sorted((i for i in set(image_ids) if i not in coco.images), key=str)
        if unknown:
            more = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
            raise InputError(f"{coco.source}: image id {unknown[0]!r}{more} is not in images; check the ids")
        chosen = sorted(set(image_ids))
    return chosen if limit is None else chosen[:limit]


def _source_path(image: CocoImage, images_dir: Path | None) -> str | None:
    if images_dir is None or image.file_name is None:
        return None
    # Names were checked when the file was read; a link inside the folder could still lead out of it.
    path = images_dir / image.file_name
    if not path.resolve().is_relative_to(images_dir.resolve()):
        raise InputError(
            f"image {image.id}: file_name {image.file_name!r} leads out of {images_dir}; remove the link"
        )
    return str(path)


def _report_ignored(layouts: list[Layout]) -> None:
    degenerate = [
        str(instance.annotation_id)
        for layout in layouts
        for instance in layout.instances
        if instance.ignore_reason == "degenerate"
    ]
    if degenerate:
        shown = ", ".join(degenerate[:5]) + (", ..." if len(degenerate) > 5 else "")
        logger.warning("%d degenerate annotations kept but not asked for (ids %s)", len(degenerate), shown)


def _report_uncaptioned(image_ids: list[int]) -> None:
    if image_ids:
        shown = ", ".join(map(str, image_ids[:5])) + (", ..." if len(image_ids) > 5 else "")
        logger.warning(
            "%d images have no caption (ids %s); their prompts are made of names", len(image_ids), shown
        )
