"""The Python functions take the options that they name, and no others."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

from instbench import api, defaults, options
from tests.instbench.fakes import write_benchmark

FUNCTIONS = (
    (api.plan_runs, options.PlanOptions, ("shapes-box", "out")),
    (api.run, options.RunOptions, ("shapes-box", "out")),
    (api.generate, options.RunOptions, ("shapes-box", "out")),
    (api.plan_images, options.ImageOptions, ("images", "shapes-box")),
    (api.score_images, options.ImageOptions, ("images", "shapes-box", "out")),
    (api.score, options.EvaluatorOptions, ("out",)),
)


@pytest.mark.parametrize(
    ("function", "kind", "given"), FUNCTIONS, ids=lambda one: getattr(one, "__name__", "")
)
def test_unknown_options_are_refused_as_python_does(function, kind, given):
    with pytest.raises(
        TypeError, match=rf"^{function.__name__}\(\) got an unexpected keyword argument 'limt'"
    ):
        function(*given, limt=3)
    taken = next(
        one for one in inspect.signature(function).parameters.values() if one.kind is one.VAR_KEYWORD
    )
    assert taken.annotation == f"Unpack[{kind.__name__}]"


@pytest.mark.parametrize("kind", {kind for _, kind, _ in FUNCTIONS}, ids=lambda one: one.__name__)
def test_every_option_is_described(kind):
    described = "".join(one.__doc__ or "" for one in (options.EvaluatorOptions, options.LayoutOptions))
    described += (options.PlanOptions.__doc__ or "") + (kind.__doc__ or "")
    for name in kind.__annotations__:
        assert f"        {name}: " in described, name


def test_options_reach_the_plan(tmp_path, fakes):
    toy = str(write_benchmark(tmp_path))
    [(plain, folder)] = api.plan_runs(toy, tmp_path / "out", model="fake")
    assert (folder, plain.identity.seed) == (tmp_path / "out", defaults.SEED)
    [(changed, _)] = api.plan_runs(benchmarks=toy, output=tmp_path / "out", model="fake", limit=1, seed=7)
    assert (len(changed.layouts), changed.identity.seed) == (1, 7)


@pytest.mark.slow
def test_types_of_options_are_checked_by_mypy(tmp_path):
    source = tmp_path / "use.py"
    source.write_text(
        "from instbench import api\n"
        'api.run("shapes-box", "out", limit=3, seed=1, model="reference")\n'
        'api.run("shapes-box", "out", limit="3")\n'
        'api.score_images("images", "shapes-box", "out", alow_missing=True)\n'
    )
    command = [sys.executable, "-m", "mypy", "--follow-imports=silent", str(source)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert 'use.py:3: error: Argument "limit"' in found.stdout, found
    assert 'use.py:4: error: Unexpected keyword argument "alow_missing"' in found.stdout, found
    assert "use.py:2" not in found.stdout
