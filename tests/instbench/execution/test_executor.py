"""What every executor can rely on: answers and rows may come in any order, the folder is the caller's."""

from __future__ import annotations

import io
import pickle
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from instbench import api
from instbench.cli.main import main
from instbench.errors import InputError
from instbench.execution.executor import Answer
from instbench.execution.local import execute
from instbench.execution.look import Looker, Picture
from instbench.execution.plan import make_requests
from instbench.execution.ray_worker import Job, Trouble, Worker
from instbench.execution.session import Session
from instbench.generators.base import GenerationRequest, SamplingSettings
from instbench.runs.store import RunFolder
from tests.instbench.fakes import CANVAS, FakeGenerator, write_benchmark


class Backwards:
    """Answers the last request first; fails where it is told to."""

    def __init__(self, fail: str | None = None) -> None:
        self.fail = fail
        self.before: list[int] = []

    def answers(self, plan, spent):
        def answer(requests: Sequence[GenerationRequest], before: int) -> Iterator[Answer]:
            self.before.append(before)
            for request in reversed(requests):
                if request.layout.image_key == self.fail:
                    yield request, RuntimeError("not this one")
                else:
                    [image] = plan.generator.generate([request])
                    yield request, image

        return answer

    def look(self, plan, spent):
        looker = Looker(plan.benchmark, plan.layouts, plan.evaluators)
        return lambda chunks: (looker.look(one) for one in reversed([list(chunk) for chunk in chunks]))

    def facts(self):
        return {"kind": "backwards"}


@pytest.fixture
def toy(tmp_path) -> str:
    (tmp_path / "toy").mkdir()
    return str(write_benchmark(tmp_path / "toy"))


def run_with(executor, toy, folder):
    session = Session()
    [(plan, target)] = api.plan_runs(toy, folder, model="fake", session=session)
    return execute(plan, target, session, executor=executor)


def test_the_results_do_not_depend_on_who_works_in_which_order(toy, tmp_path, fakes):
    [local] = api.run(toy, tmp_path / "local", model="fake")
    other = run_with(Backwards(), toy, tmp_path / "other")
    here, there = RunFolder(local.folder), RunFolder(other.folder)
    assert here.results_json.read_bytes() == there.results_json.read_bytes()
    assert here.read_run().identity == there.read_run().identity
    assert here.read_run().environment["executor"] == {"kind": "local"}
    assert there.read_run().environment["executor"] == {"kind": "backwards"}


def test_a_run_changes_hands(toy, tmp_path, fakes):
    first = RunFolder(tmp_path / "run")
    backwards = Backwards(fail=None)
    run_with(backwards, toy, first.root)
    keys = sorted(path.stem for path in first.images.iterdir())
    (first.images / f"{keys[0]}.png").unlink()
    [outcome] = api.run(toy, first.root, model="fake")
    assert (outcome.made, outcome.kept) == (1, len(keys) - 1)
    (first.images / f"{keys[1]}.png").unlink()
    again = run_with(backwards, toy, first.root)
    assert (again.made, again.kept) == (1, len(keys) - 1)
    assert backwards.before == [0, len(keys) - 1]


def test_a_failure_is_reported_as_in_local_mode(toy, tmp_path, fakes):
    key = api.plan_runs(toy, tmp_path / "run", model="fake")[0][0].layouts[2].image_key
    outcome = run_with(Backwards(fail=key), toy, tmp_path / "run")
    assert outcome.failed == (key,)
    run = RunFolder(outcome.folder)
    assert run.read_image_log()[key]["error"] == "RuntimeError: not this one"
    assert run.read_run().status == "error"


# -- which executor


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"executor": "ray", "workers": 0}, "--workers 0: give 1 or more"),
        ({"executor": "ray", "gpus_per_worker": 1.5}, "--gpus-per-worker 1.5: give 0, a whole number"),
        ({"executor": "ray", "gpus_per_worker": -1}, "--gpus-per-worker -1: give 0, a whole number"),
        (
            {"executor": "ray", "gpus_per_worker": float("nan")},
            "--gpus-per-worker nan: give 0, a whole number",
        ),
        ({"executor": "dask"}, "--executor dask: unknown; choose local or ray"),
        ({"workers": 2}, "--workers 2: belongs to --executor ray"),
        ({"address": "auto"}, "--address auto: belongs to --executor ray"),
        ({"executor": "ray", "address": "127.0.0.1:1"}, "--address 127.0.0.1:1: nobody listens there"),
        ({"executor": "ray", "address": "127.0.0.1:x"}, "--address 127.0.0.1:x: nobody listens there"),
    ],
)
def test_wrong_options_are_one_line(options, line, tmp_path):
    with pytest.raises(InputError) as caught:
        api.run("shapes-box", tmp_path / "run", **options)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_without_ray_the_line_says_how_to_get_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["run", "shapes-box", "-o", str(tmp_path / "run"), "--executor", "ray"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --executor ray: Ray is not installed")
    assert line.endswith("pip install 'instbench[ray]'")


# -- a worker, without Ray


@pytest.fixture
def job(toy, fakes) -> Job:
    [(plan, _)] = api.plan_runs(toy, "nowhere", model="fake", limit=2)
    return Job("job", plan.model, None, "auto", plan.benchmark, plan.layouts, plan.identity)


def test_a_worker_gets_its_job_once_and_answers_with_plain_data(job):
    fetched = []
    worker = Worker("cpu", 1, lambda reference: fetched.append(reference) or job, lambda: "a machine")
    requests = make_requests(job.benchmark, job.layouts, seed=0, sampling=SamplingSettings())
    for number, request in enumerate(requests):
        reply = worker.generate(number, "job", ["there"], [request])
        [(key, image)] = reply.images
        assert (key, image.image.size) == (request.layout.image_key, (CANVAS, CANVAS))
        assert pickle.loads(pickle.dumps(reply)).images[0][0] == key  # noqa: S301
    assert fetched == ["there"]


def test_a_worker_says_how_long_its_networks_worked(job, fakes):
    class Slow(FakeGenerator):
        def generate(self, requests):
            time.sleep(0.05)
            yield from super().generate(requests)

    fakes.generator = Slow()
    worker = Worker("cpu", 2, lambda reference: job, lambda: "a machine")
    requests = make_requests(job.benchmark, job.layouts, seed=0, sampling=SamplingSettings())
    before = time.monotonic()
    reply = worker.generate(1, "job", ["there"], requests)
    assert 0.05 <= reply.seconds_in_networks <= time.monotonic() - before
    [_, (key, image)] = reply.images
    stored = io.BytesIO()
    image.image.save(stored, "PNG")
    layout = next(one for one in job.layouts if one.image_key == key)
    seen = worker.observe(
        2, "job", ["there"], [Picture(layout, stored.getvalue(), "", frozenset({"detections"}))]
    )
    assert len(seen.rows["detections"]) == 1
    assert 0 < seen.seconds_in_networks < reply.seconds_in_networks + time.monotonic() - before


def test_a_worker_answers_the_same_task_again_without_doing_it_again(job, fakes):
    worker = Worker("cpu", 1, lambda reference: job, lambda: "a machine")
    [first, second] = make_requests(job.benchmark, job.layouts, seed=0, sampling=SamplingSettings())
    replies = [worker.generate(7, "job", ["there"], [first]), worker.generate(8, "job", ["there"], [second])]
    again = [worker.generate(7, "job", ["there"], [first]), worker.generate(8, "job", ["there"], [second])]
    assert again == replies
    assert fakes.generator.made == [first.layout.image_key, second.layout.image_key]
    worker.observe(9, "job", ["there"], [])
    worker.generate(7, "job", ["there"], [first])  # so old an answer nobody can miss: it was followed by two
    assert len(fakes.generator.made) == 3


def test_two_processes_greet_differently(job):
    one, other = (Worker("cpu", 1, lambda reference: job, lambda: "a machine").hello() for _ in range(2))
    assert (one.host, one.node) == (other.host, other.node)
    assert one.incarnation != other.incarnation


@pytest.mark.parametrize("role", ["generator", "evaluators"])
def test_a_worker_with_other_networks_says_in_what_they_differ(job, role):
    networks = {"generator": {"kind": "fake"}, "evaluators": {"detector": {"kind": "fake-detector"}}}
    identity = job.identity.model_copy(update={role: networks[role]})
    worker = Worker("cpu", 1, lambda reference: replace(job, identity=identity), lambda: "a machine")
    reply = (worker.generate if role == "generator" else worker.observe)(1, "job", ["there"], [])
    assert str(reply.refused).startswith(f"other networks than the run's: {role}.")
    assert reply.images == []
    assert reply.rows == {}


def test_troubles_travel_as_plain_data():
    class OddError(ArithmeticError):
        pass

    for error, base in (
        (OddError("a"), RuntimeError),
        (InputError("b"), InputError),
        (FileNotFoundError("c"), OSError),
    ):
        back = pickle.loads(pickle.dumps(Trouble.of(error))).exception()  # noqa: S301
        assert (type(back).__name__, str(back)) == (type(error).__name__, str(error))
        assert isinstance(back, base)
