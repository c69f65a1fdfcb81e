"""The parts of a report that need no script: numbers, slices, failures, facts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from instbench.reports.html.again import ablation_of, command_for_run
from instbench.reports.html.markup import bar, details, escape, isolated, section, table
from instbench.reports.html.reading import RunData
from instbench.reports.summary import format_value
from instbench.runs.records import MetricRecord, ResultsRecord

__all__ = ["command_line", "facts_section", "failures_section", "numbers_section", "slices_section"]


def numbers_section(results: ResultsRecord) -> str:
    """The metrics with their intervals, and what was not scored and why."""
    rows = []
    for name, record in results.metrics.items():
        reasons = "; ".join(f"{count} {reason}" for reason, count in record.reasons.items())
        rows.append(
            (
                f"<code>{escape(name)}</code>",
                f"<strong>{escape(format_value(record))}</strong>",
                escape(interval_text(record.ci95, record.unit)),
                bar(record.value, record.ci95) if record.unit == "fraction" else "",
                "higher" if record.higher_is_better else "lower",
                str(record.n_scored),
                isolated(reasons or record.n_unscored or "0"),
            )
        )
    headings = ("metric", "value", "95 % interval", "0 to 1", "better", "scored", "not scored, and why")
    counts = ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in results.counts.items())
    note = f'<p class="note">{escape(counts)}. A dash is "not scored", never zero.</p>'
    return section("numbers", "Numbers", table(headings, rows, numbers=(1, 2, 5)) + note)


def interval_text(interval: tuple[float, float] | None, unit: str) -> str:
    """An interval as text; a dash where none was computed."""
    if interval is None:
        return "-"
    ends = (format_value(MetricRecord(value=end, n_scored=0, unit=unit)) for end in interval)
    return " to ".join(ends)


def failures_section(results: ResultsRecord) -> str:
    """What went wrong, by kind; empty without a detector."""
    failures = results.failures
    if failures is None:
        return ""
    total = sum(failures.counts.values())
    rows = []
    for kind, count in sorted(failures.counts.items(), key=lambda item: (item[0] != "correct", -item[1])):
        gain = failures.ap50_gains.get(kind)
        share = count / total if total else None
        rows.append(
            (
                f'<span class="kind" data-kind="{escape(kind)}">{escape(kind)}</span>',
                str(count),
                "-" if share is None else f"{share:.1%}",
                bar(share, kind="" if kind == "correct" else "wrong"),
                "" if gain is None else f"{gain:+.3f}",
            )
        )
    notes = [f"{failures.n_extra} objects found that nobody asked for"]
    notes += (
        [] if failures.ap50 is None else [f"AP50 of what was asked, attributes included: {failures.ap50:.3f}"]
    )
    notes += [f"{failures.n_unscored} without a kind"] if failures.n_unscored else []
    headings = ("kind", "objects", "share", "of all", "AP50 gained if put right")
    note = f'<p class="note">{escape("; ".join(notes))}.</p>'
    return section("failures", "What went wrong", table(headings, rows, numbers=(1, 2, 4)) + note)


def slices_section(results: ResultsRecord) -> str:
    """Every number in every bin, as bars."""
    parts = []
    for number, slices in results.slices.items():
        for name, bins in slices.items():
            rows = []
            for label, record in bins.items():
                interval = getattr(record, "ci95", None)
                value = "-" if record.value is None else f"{record.value:.3f}"
                scored = f"{record.n_scored}" + (f" (+{record.n_unscored})" if record.n_unscored else "")
                text = interval_text(interval, "fraction")
                rows.append((isolated(label), bar(record.value, interval), value, text, escape(scored)))
            headings = (name.replace("_", " "), "0 to 1", "mean", "95 %", "n")
            caption = f"<h3>{escape(number.replace('_', ' '))} by {escape(name.replace('_', ' '))}</h3>"
            parts.append(f'<div class="slice">{caption}{table(headings, rows, numbers=(2, 3, 4))}</div>')
    if not parts:
        return ""
    note = '<p class="note">Means over requested objects; n in brackets: not scored.</p>'
    return section("slices", "Slices", note + f'<div class="slices">{"".join(parts)}</div>')


def command_line(command: str) -> str:
    """A command in a box with a button that copies it."""
    return (
        f'<div class="command"><pre tabindex="0">{escape(command)}</pre>'
        f'<button type="button" data-copy="{escape(command)}">Copy</button></div>'
    )


def facts_section(data: RunData, title: str = "How it was made", name: str = "facts") -> str:
    """What was run, with which weights, and the command that makes it again."""
    run, identity = data.run, data.run.identity
    pairs: dict[str, object] = {
        "benchmark": f"{identity.get('benchmark')} v{identity.get('benchmark_version')}",
        "edition": identity.get("edition"),
        "model": run.model,
        "checkpoint": run.checkpoint or "the model's own",
        "conditions": ", ".join(identity.get("conditions", ())) or "none",
        "seed": identity.get("seed"),
        **{key.replace("_", " "): value for key, value in run.settings_resolved.items()},
        "canvas": f"{identity.get('canvas_size')} pixels",
        "layouts": f"{identity.get('layouts_count')}, SHA-256 {identity.get('layouts_sha256')}",
        "identity": run.identity_sha256,
        "status": run.status if run.error is None else f"{run.status}: {run.error}",
        "started": run.started_at,
    }
    weights = [*_hashes("generator", identity.get("generator", {}))]
    for role, evaluator in data.results.evaluators.items():
        weights += [(f"{role}: {evaluator.name}", file, digest) for file, digest in evaluator.sha256.items()]
    rows = [
        (isolated(role), isolated(file), f"<code>{escape(digest)}</code>") for role, file, digest in weights
    ]
    versions = ((escape(key), escape(value)) for key, value in run.versions.items())
    machine = ((escape(key.replace("_", " ")), isolated(value)) for key, value in run.environment.items())
    timings = ((escape(key), f"{value:.1f} s") for key, value in run.timings.items())
    question = ablation_of(run)
    others = "" if question is None else f" (with the other runs of the question {escape(question.name)!r})"
    content = (
        f"<h3>Make it again{others}</h3>"
        + command_line(command_for_run(run))
        + _pairs(pairs)
        + details("Weights", table(("what", "file", "SHA-256"), rows))
        + details("Versions", table(("package", "version"), versions))
        + details("Machine and time", table(("fact", "value"), [*machine, *timings]))
    )
    return section(name, title, content)


def _pairs(pairs: Mapping[str, object]) -> str:
    items = (
        f"<div><dt>{escape(key)}</dt><dd>{isolated('-' if value in (None, '') else value)}</dd></div>"
        for key, value in pairs.items()
    )
    return f'<dl class="facts">{"".join(items)}</dl>'


def _hashes(role: str, identity: Any) -> Iterable[tuple[str, str, str]]:
    hashes = identity.get("sha256") if isinstance(identity, Mapping) else None
    if isinstance(hashes, Mapping):
        yield from ((role, str(file), str(digest)) for file, digest in hashes.items())
    elif isinstance(hashes, str):
        yield role, "", hashes
