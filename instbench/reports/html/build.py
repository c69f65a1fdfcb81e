"""Builds the report of one run."""

from __future__ import annotations

import logging
from pathlib import Path

from instbench.errors import InputError
from instbench.reports.html.again import command_for_image
from instbench.reports.html.entries import Entry, make_entries, to_json
from instbench.reports.html.gallery import gallery_section
from instbench.reports.html.markup import escape, isolated, json_block, page
from instbench.reports.html.pictures import make_pictures
from instbench.reports.html.reading import RunData, read_run_data
from instbench.reports.html.sections import (
    facts_section,
    failures_section,
    numbers_section,
    slices_section,
)
from instbench.runs.atomic import write_bytes

__all__ = ["build_report", "check_output", "image_commands", "write_page"]

logger = logging.getLogger(__name__)


def build_report(run_folder: Path, output: Path | None = None) -> Path:
    """Writes the report of a scored run as one HTML page.

    Thumbnails go into the page; where they are larger than `pictures.EMBEDDED_LIMIT` together, they go into a folder
    beside it (``report_files``).

    Args:
        run_folder: The run folder.
        output: The page to write; None is ``report.html`` in the run folder.

    Returns:
        Path of the page.

    Raises:
        InputError: If the folder holds no scored run, or the page cannot lie at `output`.
    """
    data = read_run_data(run_folder)
    output = check_output(output if output is not None else run_folder / "report.html")
    keys = [layout.image_key for layout in data.layouts]
    pictures, linked = make_pictures([(data.folder, keys)], output)
    entries = make_entries([data], pictures, [image_commands(data)])
    run = data.run
    title = f"{run.identity.get('benchmark')}: {run.model}"
    parts = (
        numbers_section(data.results),
        failures_section(data.results),
        slices_section(data.results),
        gallery_section(entries, (run.model,)),
        facts_section(data),
    )
    lead = f"{isolated(run.benchmark.get('description', ''))} ({escape(run.identity.get('edition', ''))} edition)"
    return write_page(output, title, lead, "".join(parts), entries, (run.model,), linked=linked)


def image_commands(data: RunData) -> dict[str, str]:
    """The command that makes each image of a run again, by image key."""
    return {
        layout.image_key: command_for_image(data.folder.root, data.run, layout.image_key, position)
        for position, layout in enumerate(data.layouts)
    }


def check_output(output: Path) -> Path:
    """Refuses a place where no page can be written.

    Raises:
        InputError: If it is a folder, does not end in .html, or its folder is missing.
    """
    if output.is_dir() or output.suffix.lower() not in {".html", ".htm"}:
        raise InputError(f"{output}: is no name of an HTML file; give -o FILE.html")
    if not output.parent.is_dir():
        raise InputError(f"{output.parent}: no such folder; make it first, or choose another -o")
    return output


def write_page(
    output: Path,
    title: str,
    lead: str,
    content: str,
    entries: list[Entry],
    labels: tuple[str, ...],
    *,
    linked: bool,
) -> Path:
    """Puts a page together and writes it atomically.

    Args:
        output: The page.
        title: Plain text.
        lead: One line below the title, as HTML.
        content: The sections.
        entries: The images of the gallery.
        labels: Names of the runs.
        linked: Whether the pictures lie beside the page.

    Returns:
        `output`.
    """
    links = "".join(
        f'<a href="#{name}">{text}</a>'
        for name, text in (
            ("numbers", "Numbers"),
            ("failures", "Failures"),
            ("slices", "Slices"),
            ("gallery", "Images"),
            ("differ", "Settings that differ"),
            ("facts", "How it was made"),
        )
        if f'id="{name}"' in content
    )
    body = (
        f"<header><h1>{isolated(title)}</h1><p>{lead}</p>"
        f'<nav aria-label="Sections">{links}<button type="button" id="theme">Dark or light</button></nav></header>'
        f"<main>{content}</main>" + json_block("data", {"labels": list(labels), "images": to_json(entries)})
    )
    document = page(title, body, linked_images=linked)
    write_bytes(output, document.encode("utf-8", errors="replace"))
    logger.info("%s: %.1f MB", output, output.stat().st_size / 1e6)
    return output
