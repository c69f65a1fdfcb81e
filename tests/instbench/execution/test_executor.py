"""What every executor can rely on: answers and rows may come in any order, the folder is the caller's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from instbench import api
from instbench.execution.executor import Answer
from instbench.execution.local import execute
from instbench.execution.look import Looker
from instbench.execution.session import Session
from instbench.generators.base import GenerationRequest
from instbench.runs.store import RunFolder
from tests.instbench.fakes import write_benchmark


class Backwards:
    """Answers the last request first; fails where it is told to."""

    def __init__(self, fail: str | None = None) -> None:
        self.fail = fail
        self.before: list[int] = []

    def answers(self, plan):
        def answer(requests: Sequence[GenerationRequest], before: int) -> Iterator[Answer]:
            self.before.append(before)
            for request in reversed(requests):
                if request.layout.image_key == self.fail:
                    yield request, RuntimeError("not this one")
                else:
                    [image] = plan.generator.generate([request])
                    yield request, image

        return answer

    def look(self, plan):
        looker = Looker(plan.benchmark, plan.layouts, plan.evaluators)
        return lambda chunks: map(looker.look, reversed([list(chunk) for chunk in chunks]))

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
    first.image_path(keys[0]).unlink()
    [outcome] = api.run(toy, first.root, model="fake")
    assert (outcome.made, outcome.kept) == (1, len(keys) - 1)
    first.image_path(keys[1]).unlink()
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
