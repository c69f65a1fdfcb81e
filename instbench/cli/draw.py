"""`instbench draw`: pictures of a layout that a person wrote, or of one layout of a run."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from instbench.cli.options import (
    add_network_options,
    add_sampling_options,
    local_path,
    positive,
    session_from,
)
from instbench.cli.output import say
from instbench.errors import EXIT_DONE, InputError

__all__ = ["register", "run"]

_DESCRIPTION = """\
Draws a layout. LAYOUT.json is one of: our own format (a line of a run's layouts.jsonl); a short form,
{"caption", "units": "relative" or "pixels", "width", "height", "instances": [{"phrase", "box": [x0, y0, x1, y1],
"point", "scribble", "mask"}]}; the published demo's form, {"caption", "width", "height", "annos": [...]}; or the
draw.json of an earlier drawing, which is made again. See docs/drawing.md."""

_GRAMMAR = """\
  move I DX,DY            shift instance I by shares of the canvas (right and down are positive)
  resize I W,H            give instance I this width and height; the centre stays, as far as the canvas allows
  add "PHRASE" X0,Y0,X1,Y1   one more instance, at the end
  replace I "PHRASE"      another object in the same place
  remove I                leave instance I out
  caption "TEXT"          another global prompt
I counts from 0, as `instbench draw` lists them; each edit sees the result of the one before. Numbers are
shares of the canvas."""


def register(subparsers: Any) -> None:
    """Adds the verb."""
    parser = subparsers.add_parser(
        "draw",
        help="draw a layout written by hand, or one of a run",
        description=_DESCRIPTION,
        epilog=f"edits:\n{_GRAMMAR}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "layout", nargs="?", type=Path, metavar="LAYOUT.json", help="the layout, or a draw.json"
    )
    parser.add_argument(
        "--from",
        dest="source",
        metavar="RUN/IMAGE",
        help="start from an image of a run, a folder or an address, with its settings and noise: the same picture",
    )
    parser.add_argument(
        "-o", "--output", type=local_path, metavar="DIR", help="folder (default: drawn/<name>)"
    )
    parser.add_argument("--model", metavar="M", help="name (see ls) or package.module:factory")
    parser.add_argument("--checkpoint", type=Path, metavar="PATH", help="checkpoint of the model")
    parser.add_argument(
        "--seed", type=int, metavar="S", help="seed of the noise (default: 0, or the source's)"
    )
    parser.add_argument("-n", "--images", type=positive, metavar="N", help="pictures, each of its own noise")
    parser.add_argument(
        "--conditions",
        type=_conditions,
        metavar="box,mask,...",
        help="formats that the model is shown (default: those in the layout, or of the run)",
    )
    parser.add_argument(
        "--size", type=positive, metavar="PIXELS", help="side of the canvas (default: the model's)"
    )
    parser.add_argument(
        "--edit",
        action="append",
        default=[],
        metavar="EDIT",
        help="change the layout and draw it before and after from the same noise; may be repeated (see below)",
    )
    parser.add_argument("--json", action="store_true", help="print the content of draw.json")
    add_sampling_options(parser, "the model's or the source's own")
    add_network_options(parser)


def run(args: argparse.Namespace) -> int:
    """Runs the verb."""
    from instbench.execution.draw import DrawSettings, draw
    from instbench.execution.draw_changes import against_picture
    from instbench.execution.draw_source import from_file, from_run
    from instbench.generators.base import SamplingSettings
    from instbench.layouts.editing import parse_edit

    edits = [parse_edit(text) for text in args.edit]
    if (args.layout is None) == (args.source is None):
        raise InputError("give either LAYOUT.json or --from RUN/IMAGE; see `instbench draw --help`")
    source = from_run(args.source) if args.layout is None else from_file(args.layout)
    name = source.layout.image_key if args.layout is None else _safe(args.layout.stem)
    output = args.output or Path("drawn") / name
    settings = DrawSettings(
        images=args.images,
        seed=args.seed,
        model=args.model,
        checkpoint=args.checkpoint,
        conditions=args.conditions,
        canvas_size=args.size,
        sampling=SamplingSettings(args.num_inference_steps, args.guidance_scale, args.alpha, args.mis),
    )
    drawing = draw(source, output, session_from(args), settings, edits)
    if args.json:
        print(json.dumps(drawing.record, indent=2, sort_keys=True))
        return EXIT_DONE
    for number, instance in enumerate(drawing.shown.instances):
        say(f"{number:>3}  {_line(instance.phrase)}")
    _report_info(drawing)
    if drawing.changes is not None:
        _report_changes(drawing.changes)
    elif source.picture is not None:
        say(against_picture(drawing.images[0].image, source.picture, source.picture_place))
    say(f"{drawing.folder}: {len(drawing.images)} images made")
    return EXIT_DONE


def _report_changes(changes: Any) -> None:
    say("\nmean difference of the pixels, of 255:")
    for one in changes.instances:
        number = f"{one.before}" if one.before == one.after else f"{_or(one.before)}->{_or(one.after)}"
        what = ", ".join(dict.fromkeys(one.verbs)) or "as it was"
        say(f"{_level(one.difference)}  {number:>5}  {_line(one.phrase)} ({what})")
    say(f"{_level(changes.inside)}  inside the boxes of what changed")
    say(f"{_level(changes.outside)}  everywhere else\n")


def _or(position: int | None) -> str:
    return "-" if position is None else str(position)


def _level(value: float | None) -> str:
    return f"{'-':>7}" if value is None else f"{value:7.2f}"


def _report_info(drawing: Any) -> None:
    first = drawing.images[0].info
    if first.get("dropped_instances"):
        say(
            f"the model has too few slots: the last {first['dropped_instances']} instances are not drawn",
            error=True,
        )
    for text, cut in dict(first.get("truncated") or {}).items():
        say(f"cut for the model: {_line(text)} (left out: {_line(str(cut))})", error=True)


def _conditions(text: str) -> frozenset[Any]:
    from instbench.layouts.types import Condition

    try:
        return frozenset(Condition(word.strip()) for word in text.split(","))
    except ValueError:
        known = ", ".join(Condition)
        raise argparse.ArgumentTypeError(f"{text!r}: give some of {known}, with commas between") from None


def _safe(name: str) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip(".-")[:60] or "layout"


def _line(text: str) -> str:
    """One line of at most 80 characters that no terminal takes for a command."""
    clean = "".join(letter if letter.isprintable() else " " for letter in text)
    return clean if len(clean) <= 80 else f"{clean[:77]}..."
