from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from instbench.datasets.fetching import transfer
from instbench.datasets.fetching.transfer import Receipt, TransferSettings, download
from instbench.errors import InputError
from tests.instbench.datasets.fetching.server import Reply, Server

DATA = bytes(range(256)) * 4000  # about 1 MB
SHA256 = hashlib.sha256(DATA).hexdigest()
QUICK = TransferSettings(connect_timeout=5, read_timeout=5, attempts=4)


class Fetcher:
    """Downloads ``/file.zip`` into a folder and records the pauses."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server = server
        self.target = folder / "file.zip"
        self.part = folder / "file.zip.part"
        self.pauses: list[float] = []
        server.files["/file.zip"] = DATA

    def __call__(self, **changes: Any) -> Receipt:
        options: dict[str, Any] = {"size": len(DATA), "sha256": SHA256, "settings": QUICK}
        return download(
            f"{self.server.address}/file.zip", self.target, sleep=self.pauses.append, **(options | changes)
        )

    @property
    def ranges(self) -> list[str | None]:
        return [asked for _, asked in self.server.requests]


@pytest.fixture
def fetch(server: Server, tmp_path: Path) -> Fetcher:
    return Fetcher(server, tmp_path)


def test_a_file_comes_whole_and_leaves_nothing_else(fetch: Fetcher) -> None:
    assert fetch() == Receipt(len(DATA), SHA256)
    assert fetch.target.read_bytes() == DATA
    assert list(fetch.target.parent.iterdir()) == [fetch.target]
    assert fetch.pauses == []


def test_a_file_that_is_there_is_checked_and_not_fetched(fetch: Fetcher) -> None:
    fetch.target.write_bytes(DATA)
    assert fetch().sha256 == SHA256
    assert fetch.ranges == []
    fetch.target.write_bytes(DATA[:-1] + b"x")
    with pytest.raises(InputError, match=r"file.zip: its SHA-256 is .* delete it and fetch again"):
        fetch()
    assert fetch.target.exists()  # it may be the user's own
    fetch.target.write_bytes(b"short")
    with pytest.raises(InputError, match=f"has 5 bytes, not {len(DATA)}"):
        fetch()


@pytest.mark.parametrize("reset", [False, True])
def test_a_broken_connection_is_gone_on_with(fetch: Fetcher, reset: bool) -> None:
    fetch.server.replies = [Reply(cut=400_000, reset=reset), Reply(cut=300_000)]
    assert fetch().sha256 == SHA256
    assert fetch.target.read_bytes() == DATA
    assert len(fetch.pauses) == 2
    assert fetch.pauses[0] == QUICK.backoff
    if not reset:  # a reset may lose bytes on their way
        assert fetch.ranges == [None, "bytes=400000-", "bytes=700000-"]


def test_an_interrupted_call_is_gone_on_with(fetch: Fetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch.server.replies = [Reply(cut=400_000)]

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(
            f"{fetch.server.address}/file.zip", fetch.target, size=len(DATA), sha256=SHA256, sleep=interrupt
        )
    assert fetch.part.stat().st_size == 400_000
    assert fetch().sha256 == SHA256
    assert fetch.ranges == [None, "bytes=400000-"]


def test_a_server_without_ranges_sends_all_of_it_again(fetch: Fetcher) -> None:
    fetch.server.usual = Reply(ranges=False)
    fetch.server.replies = [Reply(cut=400_000)]
    assert fetch().sha256 == SHA256
    assert fetch.target.read_bytes() == DATA


def test_a_server_without_ranges_that_always_breaks_off_is_given_up(fetch: Fetcher) -> None:
    fetch.server.usual = Reply(ranges=False, cut=900_000)
    with pytest.raises(InputError, match=r"gave up after 4 failures .* go on from here"):
        fetch()
    assert len(fetch.ranges) == 4
    assert fetch.pauses == [1, 2, 4]
    assert not fetch.target.exists()


def test_another_version_on_the_server_is_not_mixed_in(fetch: Fetcher) -> None:
    old = bytes(len(DATA))
    fetch.server.etag = '"zero"'
    fetch.server.replies = [Reply(body=old, cut=400_000), *[Reply(status=503)] * 3]
    with pytest.raises(InputError, match="gave up"):
        fetch(sha256=None)
    fetch.server.etag = '"one"'
    assert fetch(sha256=None).sha256 == SHA256
    assert fetch.ranges[-1] == "bytes=400000-"


def test_without_checksum_and_version_nothing_is_gone_on_with(fetch: Fetcher) -> None:
    fetch.server.etag = None
    fetch.server.replies = [Reply(cut=400_000)]
    assert fetch(sha256=None, size=None).sha256 == SHA256
    assert fetch.ranges == [None, None]


def test_a_damaged_part_is_fetched_again(fetch: Fetcher) -> None:
    fetch.part.write_bytes(b"x" * 1000)
    note = {"url": f"{fetch.server.address}/file.zip", "validator": '"one"'}
    fetch.part.with_name("file.zip.part.json").write_text(json.dumps(note))
    assert fetch().sha256 == SHA256
    assert fetch.ranges == ["bytes=1000-", None]


@pytest.mark.parametrize("note", ["", "[]", '{"url": "http://elsewhere/file.zip", "validator": null}'])
def test_a_part_of_unknown_origin_is_not_used(fetch: Fetcher, note: str) -> None:
    fetch.part.write_bytes(b"x" * 1000)
    fetch.part.with_name("file.zip.part.json").write_text(note)
    assert fetch().sha256 == SHA256
    assert fetch.ranges == [None]


def test_a_complete_part_needs_no_request(fetch: Fetcher) -> None:
    fetch.part.write_bytes(DATA)
    note = {"url": f"{fetch.server.address}/file.zip", "validator": None}
    fetch.part.with_name("file.zip.part.json").write_text(json.dumps(note))
    assert fetch().sha256 == SHA256
    assert fetch.ranges == []


def test_a_range_that_is_refused_starts_again(fetch: Fetcher) -> None:
    fetch.server.replies = [Reply(cut=1000), Reply(status=416)]
    assert fetch().sha256 == SHA256
    assert fetch.ranges == [None, "bytes=1000-", None]


@pytest.mark.parametrize("content_range", ["", "bytes 5-9/10", f"bytes 7-{len(DATA) - 1}/{len(DATA)}"])
def test_the_wrong_part_is_not_taken(fetch: Fetcher, content_range: str) -> None:
    fetch.server.replies = [Reply(cut=1000), Reply(headers={"Content-Range": content_range})]
    if content_range.endswith("/10"):
        with pytest.raises(InputError, match=f"offers 10 bytes, but the file has {len(DATA)}"):
            fetch()
        return
    assert fetch().sha256 == SHA256
    assert fetch.target.read_bytes() == DATA


def test_a_wrong_checksum_leaves_nothing(fetch: Fetcher) -> None:
    fetch.server.usual = Reply(body=bytes(len(DATA)))
    with pytest.raises(InputError, match=rf"its SHA-256 is [0-9a-f]{{64}}, not {SHA256}; nothing was kept"):
        fetch()
    assert list(fetch.target.parent.iterdir()) == []
    assert len(fetch.ranges) == 1


def test_a_wrong_length_is_refused_before_it_is_fetched(fetch: Fetcher) -> None:
    fetch.server.usual = Reply(headers={"Content-Length": "12"})
    with pytest.raises(InputError, match=f"offers 12 bytes, but the file has {len(DATA)}"):
        fetch()
    fetch.server.usual = Reply(headers={"Content-Length": str(len(DATA) + 1)}, cut=len(DATA))
    with pytest.raises(InputError, match=f"offers {len(DATA) + 1} bytes"):
        fetch()
    with pytest.raises(InputError, match="gave up after 4 failures"):
        fetch(size=None, sha256=None)


def test_a_file_of_unknown_size_is_bounded(fetch: Fetcher) -> None:
    assert fetch(size=None, sha256=None) == Receipt(len(DATA), SHA256)
    fetch.target.unlink()
    fetch.server.usual = Reply(headers={"Content-Length": None}, cut=len(DATA))
    small = TransferSettings(attempts=1, max_bytes=1000)
    with pytest.raises(InputError, match="sends more than 1000 bytes"):
        fetch(size=None, sha256=None, settings=small)


def test_a_missing_file_is_said_at_once(fetch: Fetcher) -> None:
    del fetch.server.files["/file.zip"]
    with pytest.raises(
        InputError, match="the server answers 404 Not Found; check the address or name another"
    ):
        fetch()
    assert len(fetch.ranges) == 1


def test_a_busy_server_is_tried_again_when_it_asks_for(fetch: Fetcher) -> None:
    fetch.server.replies = [
        Reply(status=503, headers={"Retry-After": "7"}),
        Reply(status=429, headers={"Retry-After": "100000"}),
        Reply(status=500),
    ]
    assert fetch().sha256 == SHA256
    assert fetch.pauses == [7, QUICK.longest_pause, 4]


def test_a_web_page_is_not_taken_for_the_file(fetch: Fetcher) -> None:
    fetch.server.usual = Reply(
        body=b"<html>log in</html>", headers={"Content-Type": "text/html; charset=utf-8"}
    )
    with pytest.raises(InputError, match="a web page instead of the file"):
        fetch(size=None, sha256=None)
    assert not fetch.target.exists()


def test_redirects_are_followed_to_http_only(fetch: Fetcher) -> None:
    fetch.server.replies = [Reply(status=302, headers={"Location": "/moved/file.zip"})]
    fetch.server.files["/moved/file.zip"] = DATA
    assert fetch().sha256 == SHA256
    fetch.target.unlink()
    for location in ("file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://127.0.0.1/"):
        fetch.server.replies = [Reply(status=302, headers={"Location": location})]
        with pytest.raises(InputError, match=r"refuses the redirect to .*only http and https"):
            fetch()
    fetch.server.usual = Reply(status=301, headers={"Location": "/file.zip"})
    with pytest.raises(InputError, match="more than 5 redirects"):
        fetch()


def test_a_redirect_from_https_to_http_is_refused() -> None:
    import httpx

    from instbench.datasets.fetching.responses import Fatal, next_address

    request = httpx.Request("GET", "https://example.org/a.zip")
    response = httpx.Response(302, headers={"Location": "http://example.org/a.zip"}, request=request)
    with pytest.raises(Fatal, match="from https to http"):
        next_address(response)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/x.zip", "http://", "nothing", "http://[x"])
def test_other_addresses_are_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(InputError, match=r"is no usable address|gave up"):
        download(url, tmp_path / "x.zip", settings=TransferSettings(attempts=1))


def test_nobody_listening_is_said(tmp_path: Path, server: Server) -> None:
    pauses: list[float] = []
    with pytest.raises(InputError, match=r"gave up after 2 failures .*refused"):
        download(
            "http://127.0.0.1:9/x.zip",
            tmp_path / "x.zip",
            settings=TransferSettings(attempts=2),
            sleep=pauses.append,
        )
    assert pauses == [1]


def test_a_full_disk_is_found_before_and_keeps_the_part(
    fetch: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(fetch.target.parent)
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda _: usage._replace(free=10))
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)) as caught:
        fetch()
    assert caught.value.errno == errno.ENOSPC
    monkeypatch.undo()
    assert fetch().sha256 == SHA256


def test_a_disk_that_fills_up_keeps_what_has_come(fetch: Fetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch.server.replies = [Reply(cut=300_000)]

    real = os.fsync

    def full(descriptor: int) -> None:
        if os.fstat(descriptor).st_size == 300_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(transfer.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        fetch()
    monkeypatch.undo()
    assert fetch().sha256 == SHA256
    assert fetch.ranges == [None, "bytes=300000-"]
