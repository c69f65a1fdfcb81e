"""Writing behind the back of whoever draws: one thread, in order, a bounded queue, nothing after a failure."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

__all__ = ["MOST_WAITING", "BackgroundWriter"]

logger = logging.getLogger(__name__)

MOST_WAITING = 32
"""As many as the largest batch that is chosen by itself: a GPU that hands one over goes on at once."""


class BackgroundWriter:
    """Calls functions one after the other in a thread of its own, while the caller goes on.

    The block is left when everything that was put is written, however it is left: by an error or Ctrl-C too. A second
    Ctrl-C drops what is not begun and waits for the function in the works alone, so that whoever holds a lock around
    the block lets it go when nobody writes any more.

    Args:
        most_waiting: Functions that may wait; `put` holds the caller back where there are more.
    """

    def __init__(self, most_waiting: int = MOST_WAITING) -> None:
        self._most_waiting = most_waiting
        self._waiting: deque[Future[None]] = deque()
        self._stopped = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="writer")

    def __enter__(self) -> BackgroundWriter:
        # The thread starts now: later a model may have left no memory for its stack.
        self._thread.submit(int).result()
        return self

    def put(self, write: Callable[[], None]) -> None:
        """Has something written after all that was put before.

        Args:
            write: What to call. It is not called if an earlier one failed.

        Raises:
            Exception: What an earlier one raised.
        """
        while self._waiting and (self._waiting[0].done() or len(self._waiting) >= self._most_waiting):
            self._waiting[0].result()
            self._waiting.popleft()
        self._waiting.append(self._thread.submit(self._call, write))

    def _call(self, write: Callable[[], None]) -> None:
        if self._stopped:
            return
        try:
            write()
        except BaseException:
            self._stopped = True
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        interrupt = error if isinstance(error, KeyboardInterrupt) else None
        while True:
            try:
                # Behind all that was put. Joining the thread would not do: in Python 3.11 and 3.12 a join that
                # Ctrl-C ends takes the thread for ended.
                self._thread.submit(int).result()
                break
            except KeyboardInterrupt as one:
                self._stopped = self._stopped or interrupt is not None
                interrupt = interrupt or one
        self._thread.shutdown()
        failure = next((found for one in self._waiting if (found := one.exception()) is not None), None)
        if interrupt is not None:
            if failure is not None:
                logger.error("could not be written: %s", failure)
            if interrupt is not error:
                raise interrupt
        elif failure is not None and failure is not error and (error is None or isinstance(error, Exception)):
            raise failure from error  # it came first
