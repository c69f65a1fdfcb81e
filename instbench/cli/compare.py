"""`instbench compare`: runs side by side, with intervals and paired tests."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from instbench.cli.options import location
from instbench.cli.output import make_console, say
from instbench.errors import EXIT_DONE

__all__ = ["register", "run"]

_FORMATS = ("table", "csv", "markdown", "latex", "json", "html")
_ENDINGS = {".csv": "csv", ".md": "markdown", ".tex": "latex", ".json": "json", ".html": "html"}


def register(subparsers: Any) -> None:
    """Adds the verb."""
    parser = subparsers.add_parser(
        "compare",
        help="runs side by side: differences with intervals and p values",
        description="Compares runs on the same layouts, seeds and evaluators. Folders of runs are compared benchmark "
        "by benchmark. RUN,RUN,... are runs of one model with several seeds, which count as repeats. Runs that differ "
        "in more than the model are refused.",
    )
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN[,RUN...]",
        help="run folder or its address, or folder of runs; with commas: repeats of one model that differ in the seed",
    )
    parser.add_argument("--baseline", type=int, default=0, metavar="N", help="number of the baseline, from 0")
    parser.add_argument("--labels", nargs="+", metavar="NAME", help="names, one per RUN")
    parser.add_argument("--slices", action="store_true", help="also every number in every bin")
    parser.add_argument("--win-rate", action="store_true", help="on how many images a run does better")
    parser.add_argument(
        "--format",
        choices=_FORMATS,
        help="default: by the ending of -o (.csv, .md, .tex, .json, .html), else table",
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write there instead of printing")


def _repeats(text: str) -> list[Path | str]:
    """The folders of one model; a comma parts them, unless a folder has that name."""
    from instbench.errors import InputError

    names = [text] if Path(text).exists() else text.split(",")
    if not all(names):
        raise InputError(f"{text}: a run is missing beside a comma; write RUN,RUN")
    return [location(name) for name in names]


def run(args: argparse.Namespace) -> int:
    """Runs the verb."""
    from instbench.api import compare
    from instbench.errors import InputError
    from instbench.reports.comparison import comparison_terminal, write_comparison
    from instbench.runs.atomic import write_bytes

    output: Path | None = args.output
    table_format = args.format or _ENDINGS.get(output.suffix.lower() if output else "", "table")
    if output is not None and table_format == "table":
        raise InputError(f"-o {output}: the format table is for the terminal; add --format csv or another")
    if output is not None and not output.parent.is_dir():
        raise InputError(f"-o {output}: no folder {output.parent}; make it first, or choose another")
    comparisons = compare(
        [_repeats(text) for text in args.runs],
        labels=args.labels,
        baseline=args.baseline,
        slices=args.slices,
        objects=args.win_rate,
    )
    if table_format == "table":
        console = make_console()
        for one in comparisons:
            console.print(comparison_terminal(one, win_rate=args.win_rate))
        return EXIT_DONE
    text = write_comparison(comparisons, table_format, win_rate=args.win_rate)
    if output is None:
        say(text.removesuffix("\n"))
    else:
        write_bytes(output, text.encode())
        say(output)
    return EXIT_DONE
