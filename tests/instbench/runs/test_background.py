from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from instbench.runs.background import BackgroundWriter

main_thread_only = pytest.mark.skipif(os.name != "posix", reason="sends itself a signal")


class Disk:
    """Takes numbers once the gate is open; `bad` is refused."""

    def __init__(self, bad: int | None = None) -> None:
        self.bad = bad
        self.written: list[int] = []
        self.busy = False
        self.gate = threading.Event()

    def write(self, number: int) -> None:
        self.busy = True
        assert self.gate.wait(30)
        if number == self.bad:
            raise OSError(28, "No space left on device", "picture")
        time.sleep(0.01)
        self.written.append(number)
        self.busy = False

    def put(self, writer: BackgroundWriter, number: int) -> None:
        writer.put(lambda: self.write(number))


def fill(disk: Disk, count: int, error: BaseException | None = None, *, pause: float = 0.0) -> None:
    """Puts so many numbers, each after a pause; then raises the error, or leaves the block."""
    with BackgroundWriter() as writer:
        for number in range(count):
            disk.put(writer, number)
            time.sleep(pause)
        threading.Timer(0.05, disk.gate.set).start()
        if error is not None:
            raise error


def test_everything_is_written_in_order_before_the_block_is_left():
    disk = Disk()
    fill(disk, 20)
    assert disk.written == list(range(20))


def test_the_caller_waits_where_too_many_wait():
    disk, queued = Disk(), []

    def draw() -> None:
        with BackgroundWriter(most_waiting=3) as writer:
            for number in range(6):
                disk.put(writer, number)
                queued.append(number)

    thread = threading.Thread(target=draw)
    thread.start()
    time.sleep(0.3)
    assert queued == [0, 1, 2]
    disk.gate.set()
    thread.join(30)
    assert disk.written == list(range(6))


def test_a_failure_comes_up_at_the_next_put_and_nothing_is_written_after_it():
    disk = Disk(bad=2)
    disk.gate.set()
    start = time.monotonic()
    with pytest.raises(OSError, match="No space left") as caught:
        fill(disk, 600, pause=0.1)
    assert caught.value.filename == "picture"
    assert disk.written == [0, 1]
    assert time.monotonic() - start < 30


def test_a_failure_of_the_last_one_comes_up_when_the_block_is_left():
    disk = Disk(bad=4)
    with pytest.raises(OSError, match="No space left"):
        fill(disk, 8)
    assert disk.written == [0, 1, 2, 3]


@pytest.mark.parametrize("error", [ValueError("of the model"), KeyboardInterrupt()])
def test_what_was_put_is_written_whatever_ends_the_block(error):
    disk = Disk()
    with pytest.raises(type(error)) as caught:
        fill(disk, 5, error)
    assert caught.value is error
    assert disk.written == list(range(5))


def test_of_two_errors_the_one_of_the_disk_came_first(caplog):
    with pytest.raises(OSError, match="No space left") as caught:
        fill(Disk(bad=0), 1, ValueError("of the model"))
    assert isinstance(caught.value.__cause__, ValueError)
    with pytest.raises(KeyboardInterrupt):
        fill(Disk(bad=0), 1, KeyboardInterrupt())
    assert "could not be written: [Errno 28]" in caplog.text


@pytest.mark.skipif(os.name != "posix", reason="sends itself a signal")
@pytest.mark.parametrize(("times", "written"), [(1, [0, 1, 2]), (2, [0])])
def test_ctrl_c_while_the_rest_is_written(times, written):
    """One lets it be finished, a second drops what is not begun; nobody writes afterwards."""
    disk = Disk()

    def strike() -> None:
        for _ in range(times):
            time.sleep(0.2)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        time.sleep(0.2)
        disk.gate.set()

    def write() -> None:
        with BackgroundWriter() as writer:
            for number in range(3):
                disk.put(writer, number)
            threading.Thread(target=strike).start()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` has it ignored
    try:
        with pytest.raises(KeyboardInterrupt):
            write()
    finally:
        signal.signal(signal.SIGINT, before)
    assert not disk.busy
    assert disk.written == written
    assert not [one for one in threading.enumerate() if one.name.startswith("writer")]
