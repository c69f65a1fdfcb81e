"""Pictures of layouts and detections, for reports and for looking at a run.

What was asked for is drawn with solid lines, what a detector found with dashed ones. Colours tell
instances apart; they do not stand for categories or attributes.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from instbench.layouts.geometry import boxes_xyxy_to_pixels, points_to_pixels
from instbench.layouts.rle import decode, resize
from instbench.layouts.types import Instance, Layout, MaskRLE

if TYPE_CHECKING:
    from instbench.evaluators.base import Detections

__all__ = [
    "Mark",
    "asked_and_found",
    "draw_detections",
    "draw_layout",
    "draw_marks",
    "instance_color",
    "side_by_side",
]

Color = tuple[int, int, int]
Box = tuple[float, float, float, float]

_PALETTE: tuple[Color, ...] = (
    (230, 25, 75),
    (0, 130, 200),
    (60, 180, 75),
    (245, 130, 48),
    (145, 30, 180),
    (0, 170, 170),
    (240, 50, 230),
    (150, 110, 20),
    (128, 0, 0),
    (70, 90, 255),
    (110, 160, 0),
    (220, 80, 140),
)
_IGNORED: Color = (120, 120, 120)
_GREY: Color = (208, 208, 208)
_PAPER: Color = (255, 255, 255)
_INK: Color = (30, 30, 30)
_SMALL = 256  # pixels; smaller pictures are enlarged so that labels can be read
_ENLARGEMENT = 3
_MARGIN = 8
_ON_GREY, _ON_PICTURE = 0.4, 0.2  # opacity of masks; the colours below must stay recognisable


def instance_color(index: int) -> Color:
    """RGB colour of the instance at a position; repeats after twelve."""
    return _PALETTE[index % len(_PALETTE)]


def draw_layout(image: Image.Image | None, layout: Layout, size: int | None = None) -> Image.Image:
    """Draws what was asked for.

    Boxes, translucent masks, points (crosses) and scribbles (dots) are drawn as far as the layout has
    them: a restricted layout shows just what the generator saw. Ignored instances are thin and grey.

    Args:
        image: Background, squashed to the square canvas; None for a grey one.
        layout: The layout.
        size: Side of the picture in pixels; None takes the width of the image (or 512) and enlarges small
            ones three times.

    Returns:
        RGB, size x size.
    """
    side = size or _display_size(image.width if image is not None else 512)
    canvas = _Canvas.on(image, side, side)
    order = sorted(enumerate(layout.instances), key=lambda item: not item[1].is_ignored)
    for index, instance in order:
        opacity = _ON_GREY if image is None else _ON_PICTURE
        canvas.shade(instance.mask, _IGNORED if instance.is_ignored else instance_color(index), opacity)
    for index, instance in order:
        _outline_instance(canvas, instance, index)
    for index, instance in order:
        if not instance.is_ignored:
            canvas.label(instance.phrase, _anchor(instance, side), instance_color(index))
    return canvas.image


def draw_detections(
    image: Image.Image, detections: Detections, size: int | None = None, *, min_score: float = 0.3
) -> Image.Image:
    """Draws what a detector found, with dashed boxes.

    Args:
        image: The picture that was looked at; detections are in its pixels.
        detections: The detections.
        size: Width of the result in pixels; None takes that of the image and enlarges small ones.
        min_score: Detections below this score are left out.

    Returns:
        RGB, in the aspect ratio of the image.
    """
    width = size or _display_size(image.width)
    height = max(1, round(image.height * width / image.width))
    canvas = _Canvas.on(image, width, height)
    shown = [index for index in range(len(detections)) if detections.scores[index] >= min_score]
    if detections.masks is not None:
        for rank, index in enumerate(shown):
            canvas.shade(detections.masks[index], instance_color(rank), _ON_PICTURE)
    scale = np.array([width / image.width, height / image.height] * 2)
    boxes = [_as_box(detections.boxes_xyxy[index] * scale) for index in shown]
    for rank, box in enumerate(boxes):
        canvas.rectangle(box, instance_color(rank), dashed=True)
    for rank, index in enumerate(shown):
        text = f"{detections.categories[index]} {float(detections.scores[index]):.2f}"
        canvas.label(text, boxes[rank], instance_color(rank))
    return canvas.image


def asked_and_found(
    image: Image.Image,
    layout: Layout,
    detections: Detections,
    size: int | None = None,
    *,
    min_score: float = 0.3,
) -> Image.Image:
    """Puts side by side: the layout on grey, the image, the image with its detections.

    Args:
        image: The generated picture.
        layout: What was asked for.
        detections: What the detector found in the picture.
        size: Side of each panel in pixels; None chooses one at which labels can be read.
        min_score: Detections below this score are left out.

    Returns:
        RGB picture of three titled panels with the caption below.
    """
    side = size or _display_size(image.width)
    square = _resized(image.convert("RGB"), side, side)
    found = draw_detections(image, detections, side, min_score=min_score)
    panels = (
        ("asked", draw_layout(None, layout, side)),
        ("image", square),
        ("found", found if found.size == square.size else _resized(found, side, side)),
    )
    return side_by_side(panels, layout.caption)


def side_by_side(panels: Sequence[tuple[str, Image.Image]], caption: str) -> Image.Image:
    """Puts square pictures of one size in a row, each with its title, and a caption below.

    Args:
        panels: Title and picture of each.
        caption: At most three lines are shown.

    Returns:
        RGB.
    """
    side = panels[0][1].width
    font = _font(side)
    line = round(font.size * 1.4)
    total = len(panels) * side + (len(panels) + 1) * _MARGIN
    characters = max(20, int((total - 2 * _MARGIN) / (0.52 * font.size)))
    lines = textwrap.wrap(_printable(caption), characters, max_lines=3, placeholder=" ...")
    sheet = Image.new("RGB", (total, side + line * (1 + len(lines)) + 3 * _MARGIN), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for position, (title, panel) in enumerate(panels):
        left = _MARGIN + position * (side + _MARGIN)
        draw.text((left, _MARGIN // 2), title, fill=_INK, font=font)
        sheet.paste(panel, (left, _MARGIN + line))
    for number, text in enumerate(lines):
        draw.text((_MARGIN, side + 2 * _MARGIN + line * (1 + number)), text, fill=_INK, font=font)
    return sheet


@dataclass(frozen=True, slots=True)
class Mark:
    """A rectangle to draw.

    Attributes:
        box: Relative (x0, y0, x1, y1).
        text: Label, empty for none.
        color: RGB.
        dashed: Dashed or solid.
    """

    box: Box
    text: str
    color: Color
    dashed: bool = False


def draw_marks(image: Image.Image, marks: Sequence[Mark], size: int | None = None) -> Image.Image:
    """Draws labelled rectangles.

    Args:
        image: The square picture.
        marks: The rectangles.
        size: Side of the result in pixels; None takes that of the image and enlarges small ones.

    Returns:
        RGB, size x size.
    """
    side = size or _display_size(image.width)
    canvas = _Canvas.on(image, side, side)
    boxes = [_as_box(boxes_xyxy_to_pixels(mark.box, side, side)) for mark in marks]
    for mark, box in zip(marks, boxes, strict=True):
        canvas.rectangle(box, mark.color, dashed=mark.dashed)
    for mark, box in zip(marks, boxes, strict=True):
        if mark.text:
            canvas.label(mark.text, box, mark.color)
    return canvas.image


@dataclass(slots=True)
class _Canvas:
    """A picture being drawn on, with the places that labels have taken."""

    image: Image.Image
    draw: ImageDraw.ImageDraw
    font: ImageFont.FreeTypeFont
    line: int
    taken: list[Box] = field(default_factory=list)

    @classmethod
    def on(cls, image: Image.Image | None, width: int, height: int) -> _Canvas:
        if image is None:
            picture = Image.new("RGB", (width, height), _GREY)
        else:
            picture = _resized(image.convert("RGB"), width, height)
        side = min(width, height)
        return cls(picture, ImageDraw.Draw(picture), _font(side), max(2, round(side / 200)))

    def shade(self, mask: MaskRLE | None, color: Color, opacity: float) -> None:
        if mask is None:
            return
        inside = decode(resize(mask, self.image.height, self.image.width))
        padded = np.pad(inside, 1)
        core = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        pixels = np.asarray(self.image, dtype=np.float32).copy()
        pixels[inside] = (1 - opacity) * pixels[inside] + opacity * np.array(color, dtype=np.float32)
        pixels[inside & ~core] = color
        self.image.paste(Image.fromarray(pixels.round().astype(np.uint8)))

    def rectangle(self, box: Box, color: Color, *, dashed: bool = False, thin: bool = False) -> None:
        width = 1 if thin else self.line
        x0, y0, x1, y1 = box[0], box[1], max(box[0], box[2] - 1), max(box[1], box[3] - 1)
        if not dashed:
            self.draw.rectangle((x0, y0, x1, y1), outline=color, width=width)
            return
        for start, end in (
            ((x0, y0), (x1, y0)),
            ((x1, y0), (x1, y1)),
            ((x0, y1), (x1, y1)),
            ((x0, y0), (x0, y1)),
        ):
            self._dashes(start, end, color, width)

    def cross(self, x: float, y: float, color: Color) -> None:
        arm = 4 * self.line
        for ink, width in ((_PAPER, 3 * self.line), (color, self.line + 1)):
            reach = arm + (self.line if ink == _PAPER else 0)
            self.draw.line((x - reach, y, x + reach, y), fill=ink, width=width)
            self.draw.line((x, y - reach, x, y + reach), fill=ink, width=width)

    def dot(self, x: float, y: float, color: Color) -> None:
        radius = 1.5 * self.line
        self.draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color, outline=_PAPER)

    def label(self, text: str, anchor: Box, color: Color) -> None:
        """Writes a label at the first free place around a box: above, inside, below, then further down."""
        text = _printable(text)
        text = text if len(text) <= 32 else text[:29] + "..."
        left, top, right, bottom = self.draw.textbbox((0, 0), text, font=self.font)
        width, height = right - left + 6, bottom - top + 6
        x0, y0, x1, y1 = anchor
        tops = (y0 - height, y0, y1 - height, y1)
        candidates = [(x, y) for y in tops for x in (x0, x1 - width)]
        candidates += [(x0, y0 + step * height) for step in range(1, 8)]
        places = [self._clamped(x, y, width, height) for x, y in candidates]
        place = next((p for p in places if not any(_overlap(p, other) for other in self.taken)), places[0])
        self.taken.append(place)
        self.draw.rectangle(place, fill=color)
        ink = _INK if _luminance(color) > 150 else _PAPER
        self.draw.text((place[0] + 3 - left, place[1] + 3 - top), text, fill=ink, font=self.font)

    def _clamped(self, x: float, y: float, width: float, height: float) -> Box:
        x = max(0.0, min(x, self.image.width - width))
        y = max(0.0, min(y, self.image.height - height))
        return x, y, x + width - 1, y + height - 1

    def _dashes(self, start: tuple[float, float], end: tuple[float, float], color: Color, width: int) -> None:
        length = max(abs(end[0] - start[0]), abs(end[1] - start[1]))
        dash = 4 * self.line
        for offset in np.arange(0.0, length, 2 * dash):
            near, far = offset / length, min((offset + dash) / length, 1.0)
            a, b = (
                (start[0] + (end[0] - start[0]) * share, start[1] + (end[1] - start[1]) * share)
                for share in (near, far)
            )
            self.draw.line((*a, *b), fill=color, width=width)


def _outline_instance(canvas: _Canvas, instance: Instance, index: int) -> None:
    side = canvas.image.width
    color = _IGNORED if instance.is_ignored else instance_color(index)
    if instance.box_xyxy is not None:
        box = _as_box(boxes_xyxy_to_pixels(instance.box_xyxy, side, side))
        canvas.rectangle(box, color, thin=instance.is_ignored)
    if instance.is_ignored:
        return
    for x, y in points_to_pixels(instance.scribble_xy, side, side) if instance.scribble_xy else ():
        canvas.dot(float(x), float(y), color)
    if instance.point_xy is not None:
        x, y = points_to_pixels(instance.point_xy, side, side)
        canvas.cross(float(x), float(y), color)


def _anchor(instance: Instance, side: int) -> Box:
    """The box in pixels that the label of an instance belongs to, from whatever format there is."""
    if instance.box_xyxy is not None:
        return _as_box(boxes_xyxy_to_pixels(instance.box_xyxy, side, side))
    if instance.mask is not None:
        inside = decode(resize(instance.mask, side, side))
        rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        if len(rows):
            return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
    points = instance.scribble_xy or ((instance.point_xy,) if instance.point_xy else ())
    if not points:
        return 0.0, 0.0, 0.0, 0.0
    pixels = points_to_pixels(points, side, side)
    pad = side / 40
    return _as_box((*(pixels.min(axis=0) - pad), *(pixels.max(axis=0) + pad)))


def _display_size(width: int) -> int:
    return width * _ENLARGEMENT if width < _SMALL else width


def _resized(image: Image.Image, width: int, height: int) -> Image.Image:
    if image.size == (width, height):
        return image.copy()
    whole = width % image.width == 0 and height % image.height == 0
    return image.resize((width, height), Image.Resampling.NEAREST if whole else Image.Resampling.BICUBIC)


def _font(side: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size=max(11, round(side / 30)))
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("Pillow was built without FreeType; install the official wheel")
    return font


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)


def _luminance(color: Color) -> float:
    return 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]


def _overlap(a: Box, b: Box) -> bool:
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]


def _as_box(values: Sequence[float] | np.ndarray) -> Box:
    x0, y0, x1, y1 = (float(value) for value in values)
    return x0, y0, x1, y1
