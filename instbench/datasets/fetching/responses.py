"""What a server's answer means for a download."""

from __future__ import annotations

import re

import httpx

__all__ = ["Fatal", "Transient", "body_start", "check_status", "next_address"]

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_TRANSIENT_STATUS = {408, 425, 429}


class Fatal(Exception):  # noqa: N818 - not an error of its own: it becomes an InputError with the address
    """Trying again would not help."""


class Transient(Exception):  # noqa: N818
    """Trying again may help.

    Args:
        reason: What happened.
        retry_after: Seconds that the server asks to wait, if it does.
    """

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


def next_address(response: httpx.Response) -> str:
    """Where a redirect leads.

    Raises:
        Fatal: If it leads to anything but http or https, or from https to http.
    """
    here = response.request.url
    try:
        there = here.join(response.headers["Location"])
    except httpx.InvalidURL:
        raise Fatal("the server redirects to an unusable address") from None
    if there.scheme not in ("http", "https") or not there.host:
        raise Fatal(
            f"refuses the redirect to {there.scheme or 'an unknown scheme'}: only http and https are followed"
        )
    if here.scheme == "https" and there.scheme == "http":
        raise Fatal("refuses the redirect from https to http")
    return str(there)


def check_status(response: httpx.Response) -> None:
    """Passes answers that carry a file.

    Raises:
        Transient: For answers that a later attempt may change.
        Fatal: For all others, and for a web page instead of a file.
    """
    status = response.status_code
    answer = f"the server answers {status} {response.reason_phrase}".rstrip()
    if status in _TRANSIENT_STATUS or status >= 500:
        raise Transient(answer, _retry_after(response))
    if status not in (httpx.codes.OK, httpx.codes.PARTIAL_CONTENT):
        raise Fatal(f"{answer}; check the address or name another with --mirror")
    if response.headers.get("Content-Type", "").lower().startswith("text/html"):
        raise Fatal(
            "the server sends a web page instead of the file; is there a login or a proxy in between?"
        )


def body_start(response: httpx.Response, asked: int, size: int | None) -> tuple[int, int | None]:
    """Position of the first byte of the body, and the size of the whole file.

    Args:
        response: An answer 200 or 206.
        asked: Position that was asked for.
        size: Size that the file must have, None if unknown.

    Returns:
        Start in bytes (0 where the server sends all of it), and the size, None if nobody says.

    Raises:
        Fatal: If the server offers a file of another size.
        Transient: If a partial answer does not say which part it is.
    """
    whole: int | None = None
    start = 0
    if response.status_code == httpx.codes.PARTIAL_CONTENT:
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if match is None or not asked:
            raise Transient("the server sent a part of the file without saying which")
        start = int(match[1])
        whole = None if match[3] == "*" else int(match[3])
    elif response.headers.get("Content-Length", "").isdecimal():
        whole = int(response.headers["Content-Length"])
    if size is not None and whole is not None and whole != size:
        raise Fatal(f"the server offers {whole} bytes, but the file has {size}; try again or another mirror")
    return start, size if whole is None else whole


def _retry_after(response: httpx.Response) -> float | None:
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isdecimal() else None
