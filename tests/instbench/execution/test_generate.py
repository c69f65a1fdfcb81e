from __future__ import annotations

import time

import pytest
from PIL import Image

from instbench.benchmarks import load_benchmark
from instbench.errors import InputError
from instbench.execution.generate import generate_images, pending_requests
from instbench.execution.layouts import make_layouts
from instbench.execution.plan import make_requests
from instbench.generators.base import GeneratedImage, SamplingSettings
from instbench.runs.store import RunFolder
from tests.instbench.fakes import CANVAS, FakeGenerator, write_benchmark


@pytest.fixture
def requests(tmp_path):
    benchmark = load_benchmark(str(write_benchmark(tmp_path)))
    return make_requests(benchmark, make_layouts(benchmark), seed=3, sampling=SamplingSettings())


@pytest.fixture
def run(tmp_path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.prepare()
    return folder


def pixels(run: RunFolder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.images.iterdir()}


def test_withheld_formats_are_withheld(requests):
    for request in requests:
        for instance in request.layout.instances:
            assert instance.box_xyxy is not None
            assert (instance.mask, instance.point_xy, instance.scribble_xy, instance.mask_points_xy) == (
                None,
            ) * 4


def test_images_do_not_depend_on_batch_or_order(tmp_path, requests, run):
    generate_images(run, FakeGenerator(), requests, 8)
    for batch, order in ((1, requests), (2, requests[::-1])):
        other = RunFolder(tmp_path / f"run{batch}")
        other.prepare()
        generate_images(other, FakeGenerator(), order, batch)
        assert pixels(other) == pixels(run)


def test_only_missing_or_torn_images_are_made(requests, run):
    generate_images(run, FakeGenerator(), requests, 2)
    keys = [request.layout.image_key for request in requests]
    (run.images / f"{keys[0]}.png").unlink()
    (run.images / f"{keys[3]}.png").write_bytes(b"\x89PNG half")
    (run.images / ".tmp-abc-000000000012.png").write_bytes(b"half")
    again = FakeGenerator()
    summary = generate_images(run, again, requests, 2)
    assert again.made == [keys[0], keys[3]]
    assert (summary.made, summary.kept, summary.failed) == (2, 3, [])
    assert pending_requests(run, requests) == []


def test_one_bad_layout_fails_alone(requests, run):
    bad = requests[2].layout.image_key

    class Picky(FakeGenerator):
        def draw(self, request):
            if request.layout.image_key == bad:
                raise ValueError("no")
            return super().draw(request)

    summary = generate_images(run, Picky(), requests, 3)
    assert summary.failed == [bad]
    assert summary.made == len(requests) - 1
    assert run.read_image_log()[bad]["error"] == "ValueError: no"


def test_a_model_that_always_fails_stops_early(requests, run):
    generator = FakeGenerator(stop_after=0, error=ValueError("broken"))
    with pytest.raises(ValueError, match="broken"):
        generate_images(run, generator, requests, 1)
    assert generator.calls == 3


def test_layouts_that_keep_failing_do_not_stop_a_run_that_has_images(requests, run):
    generate_images(run, FakeGenerator(), requests[:1], 1)
    generator = FakeGenerator(stop_after=0, error=ValueError("broken"))
    assert len(generate_images(run, generator, requests, 2).failed) == len(requests) - 1


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda r: GeneratedImage("stranger", Image.new("RGB", (CANVAS, CANVAS))), "was not asked"),
        (lambda r: GeneratedImage(r.layout.image_key, Image.new("RGB", (8, 8))), r"\(8, 8\) instead of"),
    ],
)
def test_wrong_answers_are_refused(requests, run, answer, message):
    class Wrong(FakeGenerator):
        def generate(self, requests):
            return iter([answer(request) for request in requests])

    with pytest.raises(InputError, match=message):
        generate_images(run, Wrong(), requests, 2)


def test_missing_answers_are_failures(requests, run):
    class Lazy(FakeGenerator):
        def generate(self, requests):
            return super().generate([one for one in requests if one is not requests_all[1]])

    requests_all = requests
    summary = generate_images(run, Lazy(), requests, 3)
    assert summary.failed == [requests[1].layout.image_key]


def test_an_error_after_the_last_image_costs_no_image(requests, run):
    class FailsLate(FakeGenerator):
        def generate(self, requests):
            yield from super().generate(requests)
            raise ValueError("late")

    summary = generate_images(run, FailsLate(), requests, 1)
    assert (summary.made, summary.failed) == (len(requests), [])


class Handed(FakeGenerator):
    """Looks around before it makes another image."""

    def __init__(self, look) -> None:
        super().__init__()
        self.look = look

    def generate(self, requests):
        for answer in super().generate(requests):
            yield answer
            self.look()


def test_images_are_written_while_the_next_are_made(requests, run):
    def look() -> None:
        end = time.monotonic() + 30
        while not run.has_image(generator.made[-1], CANVAS):
            assert time.monotonic() < end
            time.sleep(0.005)

    generator = Handed(look)
    assert generate_images(run, generator, requests, 2).made == len(requests)


@pytest.mark.parametrize("store", ["files", "archives"])
def test_a_full_disk_stops_the_run_and_records_nothing_after_it(requests, run, store, monkeypatch):
    run.keep_images_in(store)
    keys = [request.layout.image_key for request in requests]
    write = type(run.pictures).write

    def full(pictures, key, data):
        if key == keys[2]:
            raise OSError(28, "No space left on device", pictures.place(key))
        write(pictures, key, data)

    monkeypatch.setattr(type(run.pictures), "write", full)
    generator = Handed(lambda: time.sleep(0.2))
    with pytest.raises(OSError, match="No space left"):
        generate_images(run, generator, requests, 1)
    assert run.pictures.keys() == keys[:2]
    # The line goes before its image; the image after that may have been asked for when the disk was full.
    assert list(run.read_image_log()) == keys[:3]
    assert generator.made in (keys[:3], keys[:4])
    monkeypatch.undo()
    summary = generate_images(run, FakeGenerator(), requests, 1)
    assert (summary.kept, summary.made) == (2, 3)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("broken")])
def test_what_was_made_is_written_when_the_model_stops(requests, run, error, monkeypatch):
    write = RunFolder.write_image

    def slow(folder, key, image):
        time.sleep(0.1)
        write(folder, key, image)

    monkeypatch.setattr(RunFolder, "write_image", slow)
    generator = FakeGenerator(stop_after=3, error=error)
    if isinstance(error, KeyboardInterrupt):
        with pytest.raises(KeyboardInterrupt):
            generate_images(run, generator, requests, 8)
    else:
        assert len(generate_images(run, generator, requests, 8).failed) == 2
    assert run.pictures.keys() == generator.made[:3]


def test_the_order_of_log_and_images_is_that_of_the_answers(requests, run, monkeypatch):
    written = []
    monkeypatch.setattr(RunFolder, "write_image", lambda _, key, image: written.append(key))
    generate_images(run, FakeGenerator(), requests[::-1], 3)
    keys = [request.layout.image_key for request in requests[::-1]]
    assert (written, list(run.read_image_log())) == (keys, keys)
