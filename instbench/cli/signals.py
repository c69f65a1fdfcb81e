"""Ctrl-C and the signals with which a cluster takes a machine back: the run ends in order and can be continued."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

__all__ = ["Terminated", "orderly"]


class Terminated(KeyboardInterrupt):
    """The process was asked to end, and ends as after Ctrl-C.

    Attributes:
        number: The signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextlib.contextmanager
def orderly() -> Iterator[None]:
    """Turns SIGTERM and SIGHUP into `Terminated` for the time of the block, where they would kill the process."""
    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
        return
    ours = [getattr(signal, name) for name in names]
    ours = [one for one in ours if signal.getsignal(one) is signal.SIG_DFL]  # nohup ignores one of them
    for one in ours:
        signal.signal(one, _terminate)
    try:
        yield
    finally:
        for one in ours:
            signal.signal(one, signal.SIG_DFL)


def _terminate(number: int, frame: FrameType | None) -> None:
    # A second one must not disturb what the first one set going; `kill -9` still ends the process.
    signal.signal(number, signal.SIG_IGN)
    raise Terminated(number)
