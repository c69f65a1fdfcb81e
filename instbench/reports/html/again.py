"""The commands that make a run, or one of its images, again."""

from __future__ import annotations

import shlex
from pathlib import Path

from instbench.execution.ablation_questions import Question, find_question
from instbench.generators.variants import split_name
from instbench.registry import READY_MADE
from instbench.runs.records import RunRecord

__all__ = ["ablation_of", "command_for_image", "command_for_run"]

_SAMPLING = ("num_inference_steps", "guidance_scale", "alpha", "mis")
_DATA = ("annotations", "captions", "images")


def command_for_run(run: RunRecord, output: str = "runs/again") -> str:
    """The command that makes a run again; for a run of an ablation, together with the others of its question.

    Args:
        run: ``run.json``.
        output: Folder to write.

    Returns:
        One line for a POSIX shell, every word quoted where it must be.
    """
    question = ablation_of(run)
    words = _words(run, _asked_limit(run)) if question is None else _ablation_words(run, question)
    return shlex.join([*words, "-o", output])


def ablation_of(run: RunRecord) -> Question | None:
    """The question that a run is part of the answer to; None for other runs."""
    variant = split_name(run.model)[1]
    return None if variant is None else find_question(_benchmark(run), variant)


def command_for_image(folder: Path, run: RunRecord, key: str, position: int) -> str:
    """The command that makes one image again.

    Drawn from the run where a model made it. Ready pictures come as the last one of a shorter run: an image depends on
    its own layout, the settings and the seed alone.

    Args:
        folder: The run folder.
        run: ``run.json``.
        key: Key of the image.
        position: Position of its layout in ``layouts.jsonl``, from 0.

    Returns:
        One line for a POSIX shell.
    """
    if run.images_elsewhere is None and run.model not in READY_MADE:
        return shlex.join(["instbench", "draw", "--from", f"{folder.as_posix()}/{key}", "-o", "drawn/again"])
    return shlex.join([*_words(run, position + 1), "-o", "runs/again"])


def _asked_limit(run: RunRecord) -> int | None:
    limit = run.settings_asked.get("limit")
    return limit if isinstance(limit, int) else None


def _benchmark(run: RunRecord) -> str:
    return str(run.benchmark.get("name", run.identity.get("benchmark", "")))


def _ablation_words(run: RunRecord, question: Question) -> list[str]:
    words = ["instbench", "ablate", "shapes", "--question", question.name]
    if question.needs_training and run.checkpoint is not None:
        words += ["--trained", Path(run.checkpoint).parent.as_posix()]
    limit, steps = _asked_limit(run), (run.settings_asked.get("sampling") or {}).get("num_inference_steps")
    words += [] if limit is None else ["--limit", str(limit)]
    words += ["--seed", str(run.identity.get("seed", 0))]
    return words + ([] if steps is None else ["--num-inference-steps", str(steps)])


def _words(run: RunRecord, limit: int | None) -> list[str]:
    benchmark = _benchmark(run)
    asked = run.settings_asked
    if run.images_elsewhere is not None:
        words = ["instbench", "score", run.checkpoint or "IMAGES", "--benchmark", benchmark]
        words += ["--name", run.model]
    else:
        words = ["instbench", "run", benchmark, "--model", run.model]
        words += [] if run.checkpoint is None else ["--checkpoint", run.checkpoint]
        words += _options(asked.get("sampling") or {}, _SAMPLING)
    words += ["--edition", str(run.identity.get("edition", "strict"))]
    words += [] if limit is None else ["--limit", str(limit)]
    words += ["--seed", str(run.identity.get("seed", asked.get("seed", 0)))]
    words += _options(asked.get("data") or {}, _DATA)
    evaluators = asked.get("evaluators") or {}
    return words + _options(evaluators, sorted(evaluators))


def _options(values: dict[str, object], names: object) -> list[str]:
    words: list[str] = []
    for name in names if isinstance(names, list | tuple) else ():
        if values.get(name) is not None:
            words += [f"--{name.replace('_', '-')}", str(values[name])]
    return words
