"""A loopback HTTP server that serves bytes from memory and misbehaves on request."""

from __future__ import annotations

import re
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    """How one request is answered.

    Attributes:
        status: None serves the file (200 or 206), a number answers with that status.
        headers: Headers to set in place of the usual ones; None leaves one out.
        cut: Send only so many bytes of the body, then close.
        reset: Close the connection with a TCP reset.
        ranges: Whether Range is honoured.
        body: Other bytes in place of the file's.
    """

    status: int | None = None
    headers: dict[str, str | None] = field(default_factory=dict)
    cut: int | None = None
    reset: bool = False
    ranges: bool = True
    body: bytes | None = None


@dataclass
class Server:
    """The files by path, and the replies: the first ones in order, then ``usual`` for ever."""

    files: dict[str, bytes] = field(default_factory=dict)
    replies: list[Reply] = field(default_factory=list)
    usual: Reply = field(default_factory=Reply)
    etag: str | None = '"one"'
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    address: str = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answers one request."""
        asked = handler.headers.get("Range")
        self.requests.append((handler.path, asked))
        reply = self.replies.pop(0) if self.replies else self.usual
        content = self.files.get(handler.path) if reply.body is None else reply.body
        if reply.status is not None or content is None:
            handler.send_response(reply.status or 404)
            for key, value in ({"Content-Length": "0"} | reply.headers).items():
                handler.send_header(key, str(value))
            handler.end_headers()
            return
        start = 0
        match = re.fullmatch(r"bytes=(\d+)-", asked or "")
        same = handler.headers.get("If-Range") in (None, self.etag)
        if match and reply.ranges and same:
            start = int(match[1])
            if start >= len(content):
                handler.send_response(416)
                handler.send_header("Content-Length", "0")
                handler.end_headers()
                return
        body = content[start:]
        headers = {"Content-Length": str(len(body)), "Content-Type": "application/zip"}
        if self.etag:
            headers["ETag"] = self.etag
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        handler.send_response(206 if start else 200)
        for key, value in (headers | reply.headers).items():
            if value is not None:
                handler.send_header(key, value)
        handler.end_headers()
        handler.wfile.write(body if reply.cut is None else body[: reply.cut])
        handler.wfile.flush()
        if reply.reset:
            linger = struct.pack("ii", 1, 0)
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        if reply.cut is not None or reply.reset:
            handler.close_connection = True
            if not reply.reset:
                handler.connection.shutdown(socket.SHUT_WR)


@contextmanager
def serving() -> Iterator[Server]:
    """Runs a server for the time of a ``with`` block."""
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            server.answer(self)

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    class Listener(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            """Says nothing about clients that hang up."""

    listener = Listener(("127.0.0.1", 0), Handler)
    listener.daemon_threads = True
    server.address = f"http://127.0.0.1:{listener.server_address[1]}"
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown()
        listener.server_close()
