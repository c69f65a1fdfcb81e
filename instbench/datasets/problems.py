"""Problems of data files, and the small checks that all kinds of files share."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Any

from instbench.errors import InputError
from instbench.plain_files import read_file

__all__ = [
    "Problem",
    "Severity",
    "duplicates",
    "error",
    "id_message",
    "ids_of",
    "is_id",
    "is_number",
    "is_plain_relative_name",
    "is_text",
    "missing_lists",
    "raise_on_errors",
    "read_json",
    "record_name",
    "short",
    "warning",
]

_MAX_NAME, _MAX_PATH = 255, 1024  # bytes of a part, characters of all: what file systems take
_MAX_ID = 2**53  # ids survive every JSON reader up to here


class Severity(StrEnum):
    """How bad a problem is."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding.

    Attributes:
        severity: Error (the file cannot be used) or warning.
        where: Part of the file, e.g. ``"annotation 12: bbox"``.
        message: What is wrong and what to do.
    """

    severity: Severity
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Args:
        path: The file.

    Returns:
        Its content; NaN and Infinity pass and are found by the checks.

    Raises:
        InputError: If the file is missing, unreadable, truncated or no JSON.
    """
    try:
        return json.loads(read_file(path, None))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder; name the JSON file in it") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text (byte {error.start}); is this a JSON file?") from None
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}: no valid JSON at line {error.lineno}, column {error.colno} ({error.msg}); "
            "the file is truncated or damaged"
        ) from None
    except (RecursionError, ValueError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise InputError(f"{path}: no usable JSON ({reason})") from None


def raise_on_errors(problems: Iterable[Problem], source: str) -> None:
    """Raises the first error and says how many more there are.

    Args:
        problems: Findings of a check.
        source: File name for the message.

    Raises:
        InputError: If any finding is an error.
    """
    errors = [problem for problem in problems if problem.severity is Severity.ERROR]
    if errors:
        more = f" (and {len(errors) - 1} more; `instbench validate` lists them)" if len(errors) > 1 else ""
        raise InputError(f"{source}: {errors[0]}{more}")


def is_plain_relative_name(name: Any) -> bool:
    """Whether a file name from a data file is safe to join to a folder: relative, no ``..``, no tricks."""
    if not is_text(name) or any(ord(character) < 32 for character in name):
        return False
    if len(name) > _MAX_PATH or any(len(part.encode()) > _MAX_NAME for part in name.split("/")):
        return False
    if "\\" in name or ":" in name or name.startswith(("/", "~")):
        return False
    return all(part not in ("", ".", "..") for part in name.split("/")) and PurePosixPath(name).name != ""


def is_text(value: Any) -> bool:
    """Whether a value is text with more than white space in it that can be written as UTF-8."""
    if not isinstance(value, str) or not value.strip():
        return False
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, from "\\ud800" in JSON
        return False
    return True


def is_id(value: Any) -> bool:
    """Whether a value can be an id: an integer from 0 to 2**53."""
    return type(value) is int and 0 <= value <= _MAX_ID


def error(where: str, message: str) -> Problem:
    """A finding that makes the file unusable."""
    return Problem(Severity.ERROR, where, message)


def warning(where: str, message: str) -> Problem:
    """A finding that the file can be used in spite of."""
    return Problem(Severity.WARNING, where, message)


def id_message(value: Any) -> str:
    """What is wrong with something that is no id."""
    if value is None:
        return "is missing; every record needs an integer id here"
    return f"must be an integer from 0 to 2**53, not {short(value)}"


def short(value: Any) -> str:
    """A value out of a file in at most 60 characters, on one line."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested too deeply; an integer of too many digits
        return f"a {type(value).__name__} too large to show"
    return text if len(text) <= 60 else text[:57] + "..."


def record_name(kind: str, record: Mapping[str, Any], position: int) -> str:
    """A record for messages: its id, or its position where it has none."""
    return f"{kind} {record['id']}" if is_id(record.get("id")) else f"{kind} at position {position}"


def is_number(value: Any) -> bool:
    """Whether a value is a finite number; true and false are none."""
    if type(value) not in (int, float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer that no float holds
        return False


def missing_lists(data: Any, keys: Iterable[str]) -> list[Problem]:
    """Problems of a file's top level: it must be an object with these lists."""
    if isinstance(data, list):
        return [
            error(
                "top level", "is a list (detection results?); expected a COCO annotation object with images"
            )
        ]
    if not isinstance(data, Mapping):
        return [error("top level", f"must be a COCO annotation object, not {type(data).__name__}")]
    problems = []
    for key in keys:
        if key not in data:
            problems.append(error(key, "is missing; expected a COCO file with this list"))
        elif not isinstance(data[key], list):
            problems.append(error(key, f"must be a list, not {type(data[key]).__name__}"))
    return problems


def ids_of(records: Iterable[Any]) -> set[int]:
    """The usable ids of records."""
    return {record["id"] for record in records if isinstance(record, dict) and is_id(record.get("id"))}


def duplicates(records: Iterable[Any], kind: str) -> Iterator[Problem]:
    """Problems of records' ids: missing, unusable or used twice."""
    seen: set[Any] = set()
    for position, record in enumerate(records):
        if not isinstance(record, dict):
            continue
        value = record.get("id")
        if not is_id(value):
            yield error(f"{kind} at position {position}: id", id_message(value))
        elif value in seen:
            yield error(f"{kind} {value}: id", "occurs twice; ids must be unique")
        else:
            seen.add(value)
