"""Work in a local staging folder that mirrors a run folder at an address."""

from __future__ import annotations

import contextlib
import json
import logging
import tempfile
import threading
import time
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from instbench.datasets.home import data_home
from instbench.errors import InputError
from instbench.runs.atomic import TEMPORARY_PREFIX, append_line, sha256_bytes, watching, write_bytes
from instbench.runs.away import HASHES_NAME, ImageHashes, KnownImage, supplying
from instbench.runs.images import whole_size
from instbench.runs.lock import RunLock
from instbench.runs.remote import Target, TargetFile, TargetLock, is_url
from instbench.runs.store import belongs_to_run, split_run

__all__ = ["PUSH_EVERY", "Place", "Where", "opened"]

logger = logging.getLogger(__name__)

Where = str | Path

PUSH_EVERY = 25
"""Images after which a growing file (an archive, the log) is pushed again."""
_PUSH_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class _Known:
    """What was last seen of a file.

    Attributes:
        token: The target's, see `TargetFile`.
        size: Bytes of the copy here.
        time_ns: Time of the copy here.
    """

    token: str
    size: int
    time_ns: int

    @classmethod
    def of(cls, token: str, path: Path) -> _Known:
        """What is known of a file whose copy is at a path."""
        found = path.stat()
        return cls(token, found.st_size, found.st_mtime_ns)

    def line(self, name: str) -> str:
        """The entry of the state file."""
        return json.dumps({"name": name, **asdict(self)})


@dataclass(frozen=True, slots=True)
class Place:
    """Where to work.

    Attributes:
        folder: A local folder.
        address: The address that it mirrors, without credentials; None if it is the place itself.
    """

    folder: Path
    address: str | None = None

    def named(self, path: Path) -> str:
        """What to call a path in it."""
        if self.address is None:
            return str(path)
        below = path.relative_to(self.folder).as_posix()
        return self.address if below == "." else f"{self.address}/{below}"


@contextlib.contextmanager
def opened(where: Where, *, write: bool, only: Collection[str] | None = None) -> Iterator[Place]:
    """Makes a run folder, or a folder of runs, available as a local one.

    A local path is yielded as it is. What is at an address is fetched; with `write` the address is locked, every
    file that is finished in the block is pushed, and what is deleted in it is deleted there.

    Args:
        where: A path, or an address for fsspec.
        write: Whether the block writes.
        only: Names of the files of a run that a block needs that does not write; None for all.

    Yields:
        The place to work in.

    Raises:
        InputError: If the address is in use, cannot be reached or holds something else.
    """
    if not is_url(where):
        yield Place(Path(where))
        return
    target = Target(str(where))
    if not write:
        with tempfile.TemporaryDirectory(prefix="instbench-") as temporary:
            mirror = _Mirror(target, Path(temporary))
            with _named(mirror.root, target):
                mirror.pull(only)
                with supplying(mirror.root, mirror):
                    yield Place(mirror.root, target.name)
        return
    target.check_folder()
    staging = data_home() / "staging" / sha256_bytes(target.name.encode())[:16]
    staging.mkdir(parents=True, exist_ok=True)
    with (
        _named(staging, target),
        _named(staging / "run", target),
        RunLock(staging),
        TargetLock(target) as lock,
    ):
        mirror = _Mirror(target, staging, lock)
        mirror.pull()
        logger.info("%s: mirrored in %s", target.name, mirror.root)
        try:
            with watching(mirror.finished), supplying(mirror.root, mirror):
                yield Place(mirror.root, target.name)
        except BaseException:
            with contextlib.suppress(InputError):  # the first error is the one to report
                mirror.flush()
            raise
        mirror.flush()


@contextlib.contextmanager
def _named(folder: Path, target: Target) -> Iterator[None]:
    """Speaks of the address in messages about a folder that stands for it."""
    try:
        yield
    except InputError as error:
        here, there = str(folder), target.name
        details = tuple(line.replace(here, there) for line in error.details)
        raise InputError(str(error).replace(here, there), details=details) from None


class _Mirror:
    """A staging folder and its target.

    ``mirror.jsonl`` beside the folder says what was last seen there of each file: a file that the target has with
    another token is newer there, one that it no longer has was deleted there, and one that was never there is ours
    to push. Single images are left where they are until somebody reads them; ``image_hashes.jsonl`` says enough of them
    for most purposes.
    """

    def __init__(self, target: Target, staging: Path, lock: TargetLock | None = None) -> None:
        self.target = target
        self.root = staging / "run"
        self._lock = lock
        self._state_file = staging / "mirror.jsonl"
        self._state = self._read_state()
        self._away: dict[str, TargetFile] = {}
        self._fetching: set[str] = set()
        self._gone: set[str] = set()
        self._hashes: dict[str, ImageHashes] = {}
        self._mutex = threading.RLock()
        self._waiting: dict[str, int] = {}
        self._pushed_at = time.monotonic()

    # -- from the target

    def pull(self, only: Collection[str] | None = None) -> None:
        """Fetches what is there and not here, but for single images; or only files of these names in a run."""
        there = self.target.files()
        self._refuse_strangers(there)
        self.root.mkdir(exist_ok=True)
        if self._lock is not None:
            for name in there:
                if name.rpartition("/")[2].startswith(TEMPORARY_PREFIX):  # of a writer that was killed
                    self.target.remove(name)
        there = {name: file for name, file in there.items() if _is_ours(name)}
        if only is not None:
            there = {name: file for name, file in there.items() if split_run(name)[1] in only}
        elif self._lock is None:
            there = {name: file for name, file in there.items() if not _is_written_only(name)}
        self._drop_former_runs(there)
        for name in [name for name in self._state if name not in there]:
            (self.root / name).unlink(missing_ok=True)
            self._note(name, None)
        # run.json last: until then the folder is of the run that was here.
        for name, file in sorted(there.items(), key=lambda item: item[0].endswith("run.json")):
            path = self.root / name
            known = self._state.get(name)
            if path.is_file() and known is not None and known.token == file.token:
                continue
            if _is_image(name):
                path.unlink(missing_ok=True)
                self._away[name] = file
                self._state.pop(name, None)
            else:
                self.target.get(name, path)
                self._note(name, _Known.of(file.token, path))
        self._compact()

    def _drop_former_runs(self, there: dict[str, TargetFile]) -> None:
        """Where another run is there now, what was made here and never pushed belongs to the former."""
        for path in [self.root / "run.json", *self.root.glob("*/run.json")]:
            if not path.is_file():
                continue
            name = self._name(path)
            known = self._state.get(name)
            if name not in there:
                same = known is None  # never pushed: it is ours to push
            else:
                same = known is not None and known.token == there[name].token
                same = same or _identity(self.target.read_bytes(name)) == _identity(path.read_bytes())
            if not same:
                run = split_run(name)[0]
                for one in [one for one in self._local() if split_run(one)[0] == run and one not in there]:
                    (self.root / one).unlink()

    def _refuse_strangers(self, there: dict[str, TargetFile]) -> None:
        if any(split_run(name)[1] == "run.json" for name in there):
            return
        strangers = sorted(
            name for name in there if not name.rpartition("/")[2].startswith(".") and not _is_ours(name)
        )
        if strangers:
            raise InputError(
                f"{self.target.name}: holds files that are no run ({', '.join(strangers[:3])}); choose another address"
            )

    # -- images that are there and not here, see `Supplier`

    def away(self, folder: Path) -> dict[str, int]:
        """Returns names and bytes of the images of a folder that are only there."""
        below = self._name(folder) + "/"
        here = list(self._away.items())
        return {name.removeprefix(below): file.size for name, file in here if name.startswith(below)}

    def known(self, path: Path) -> KnownImage | None:
        """What is known of an image that is only there."""
        name = self._name(path)
        file = self._away.get(name)
        return None if file is None else self._hashes_of(name).find(path.name, file.token)

    def fetch(self, path: Path) -> bool:
        """Fetches an image that is only there."""
        name = self._name(path)
        file = self._away.get(name)
        if file is None:
            return False
        self._fetching.add(name)
        try:
            self.target.get(name, path)
        finally:
            self._fetching.discard(name)
        with self._mutex:
            self._away.pop(name, None)
            self._note(name, _Known.of(file.token, path))
            if self._lock is not None:
                self._note_hash(name, file.token)
        return True

    def forget(self, folder: Path) -> None:
        """Deletes the images of a folder that are only there, with the next ``run.json``."""
        for name in [f"{self._name(folder)}/{name}" for name in self.away(folder)]:
            del self._away[name]
            self._gone.add(name)
        self._hashes.pop(split_run(self._name(folder) + "/")[0], None)

    def _hashes_of(self, name: str) -> ImageHashes:
        run = split_run(name)[0]
        if run not in self._hashes:
            self._hashes[run] = ImageHashes(self.root / run / HASHES_NAME)
        return self._hashes[run]

    def _note_hash(self, name: str, token: str) -> None:
        path = self.root / name
        data = path.read_bytes()
        size = whole_size(data)
        if size is not None:
            self._hashes_of(name).add(path.name, token, KnownImage(sha256_bytes(data), *size))

    # -- to the target

    def finished(self, path: Path) -> None:
        """Pushes a file that was just finished; files that grow are pushed now and then."""
        if self.root not in path.parents:
            return
        name = self._name(path)
        if _is_ours(name) and name not in self._fetching:
            with self._mutex:  # images are read and written in threads beside the one that observes
                self._finished(name)

    def _finished(self, name: str) -> None:
        self._away.pop(name, None)
        if not _grows(name):
            if name.endswith("run.json"):
                self._push_waiting()
                self._remove_gone()
            self._push(name)
            return
        full = [
            one for one in self._waiting if one != name and one.endswith(".tar") and name.endswith(".tar")
        ]
        self._waiting[name] = self._waiting.get(name, 0) + 1
        for one in full:
            self._push(one)
        if self._waiting[name] >= PUSH_EVERY or time.monotonic() - self._pushed_at > _PUSH_SECONDS:
            self._push_waiting()

    def flush(self) -> None:
        """Makes the target equal to this folder."""
        self._remove_gone()
        for images in (True, False):  # the file of their hashes grows with the images
            for name in [name for name in self._local() if _is_image(name) == images]:
                known = self._state.get(name)
                if known is None or _Known.of(known.token, self.root / name) != known:
                    self._push(name)

    def _push_waiting(self) -> None:
        for name in list(self._waiting):
            self._push(name)
        self._pushed_at = time.monotonic()

    def _push(self, name: str) -> None:
        self._waiting.pop(name, None)
        if not (self.root / name).is_file():
            return
        if self._lock is not None:
            self._lock.check()
        before = _Known.of("", self.root / name)  # what is written meanwhile is pushed again
        token = self.target.put(self.root / name, name).token
        self._gone.discard(name)
        self._note(name, replace(before, token=token))
        if _is_image(name):
            self._note_hash(name, token)

    def _remove_gone(self) -> None:
        gone = {*self._gone, *(name for name in list(self._state) if not (self.root / name).exists())}
        for name in sorted(gone, key=lambda name: (name.endswith("run.json"), name)):
            if self._lock is not None:
                self._lock.check()
            self.target.remove(name)
            self._gone.discard(name)
            self._note(name, None)

    # -- what is known

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _local(self) -> list[str]:
        names = (self._name(path) for path in self.root.rglob("*") if path.is_file())
        return sorted(
            (name for name in names if _is_ours(name)),
            key=lambda name: (name.endswith("run.json"), name),
        )

    def _note(self, name: str, known: _Known | None) -> None:
        with self._mutex:  # images are fetched in one thread while observations are pushed in another
            if known is None:
                self._state.pop(name, None)
                append_line(self._state_file, json.dumps({"name": name, "token": None}))
            else:
                self._state[name] = known
                append_line(self._state_file, known.line(name))

    def _read_state(self) -> dict[str, _Known]:
        state: dict[str, _Known] = {}
        if not self._state_file.is_file():
            return state
        for line in self._state_file.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line)
                name = str(entry["name"])
                if entry["token"] is None or not _is_ours(name):
                    state.pop(name, None)
                else:
                    state[name] = _Known(str(entry["token"]), int(entry["size"]), int(entry["time_ns"]))
            except (ValueError, KeyError, TypeError, RecursionError):
                logger.debug("%s: skipped a torn line", self._state_file)
        return state

    def _compact(self) -> None:
        lines = [known.line(name) + "\n" for name, known in self._state.items()]
        write_bytes(self._state_file, "".join(lines).encode())


def _is_ours(name: str) -> bool:
    """Whether a run, or a run in a folder of runs, has a file of this name."""
    return belongs_to_run(split_run(name)[1])


def _grows(name: str) -> bool:
    """Whether a file is written piece by piece."""
    return name.endswith(".tar") or split_run(name)[1] in ("images.jsonl", HASHES_NAME)


def _is_image(name: str) -> bool:
    """Whether a file is a single image."""
    return split_run(name)[1].startswith("images/") and name.endswith(".png")


def _is_written_only(name: str) -> bool:
    """Whether no verb reads a file that another one wrote."""
    return split_run(name)[1].startswith(("report.html", "report_files/", "overlays/"))


def _identity(run_json: bytes | None) -> tuple[str, str] | None:
    """Which run, and which part of it, a ``run.json`` is of; None if it cannot be read."""
    try:
        record = json.loads(run_json or b"")
        return str(record["identity_sha256"]), str(record.get("shard"))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
