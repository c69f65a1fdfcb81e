"""Every command of the README is in a table that says what runs it, and it is run."""

from __future__ import annotations

import re
import shlex
from enum import StrEnum
from pathlib import Path

import pytest

from instbench.cli.main import main
from instbench.datasets import catalog
from tests.instbench.datasets.fetching.server import serving
from tests.instbench.datasets.fetching.world import offer

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


class RunBy(StrEnum):
    """What runs a command of the README."""

    CI = "by .ci/run"
    MAKEFILE = "prepared by the Makefile; checked in the Makefile's text"
    FAST = "as it stands, by a fast test"
    MIRROR = "by a fast test, which adds the --mirror of a small copy where it downloads"
    DRY = "with --dry-run by a fast test, and with fewer images and steps by a slow one"
    SLOW = "by a slow test"
    RAY = "with fewer images and steps by `make test-ray`"


COMMANDS = {
    "make demo": RunBy.SLOW,
    "make test": RunBy.CI,
    "source .venv/bin/activate": RunBy.MAKEFILE,
    "instbench --help": RunBy.FAST,
    "instbench ls benchmarks": RunBy.FAST,
    "instbench ls models": RunBy.FAST,
    "instbench run shapes-box --model reference --limit 32 -o runs/try": RunBy.DRY,
    "instbench run shapes-box --model text-only --limit 32 -o runs/floor": RunBy.DRY,
    "instbench run shapes-real --limit 32 -o runs/ceiling": RunBy.DRY,
    "instbench compare runs/try runs/floor --win-rate": RunBy.SLOW,
    "instbench ablate shapes --limit 8 -o runs/ablation": RunBy.DRY,
    "instbench score runs/try/images --benchmark shapes-box --limit 32 --name mine -o runs/elsewhere": RunBy.SLOW,
    "instbench data prepare shapes --split val --count 8 -o data/mine": RunBy.FAST,
    "instbench validate data/mine/instances.json --captions data/mine/captions.json": RunBy.FAST,
    "instbench run shapes-box --annotations data/mine/instances.json --captions data/mine/captions.json"
    " --images data/mine/images -o runs/mine": RunBy.DRY,
    "instbench data fetch coco-val2017": RunBy.MIRROR,
    "instbench data verify coco-val2017": RunBy.MIRROR,
    "instbench data prepare coco-val2017 -o data/coco-512": RunBy.MIRROR,
    "instbench report runs/try": RunBy.SLOW,
    "instbench score runs/try": RunBy.SLOW,
    "instbench draw scene.json -o drawn/scene": RunBy.SLOW,
    "instbench draw drawn/scene/draw.json --edit 'move 0 0.3,0.0' -o drawn/moved": RunBy.SLOW,
    "instbench run shapes-box --model my_model:GreyImages --limit 4 -o runs/grey": RunBy.DRY,
    "instbench run shapes-box --limit 8 --executor ray --workers 2 -o runs/ray": RunBy.RAY,
    "instbench run shapes-box --limit 8 --image-store archives -o runs/packed": RunBy.DRY,
}


def fenced(language: str, text: str = README) -> list[str]:
    """Contents of the fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    """Commands of the README in order; one command per line."""
    return [line for block in fenced("bash") for line in block.splitlines() if line.strip()]


def call(command: str, *extra: str) -> None:
    """Runs an `instbench` command in this process; it must end with exit code 0."""
    program, *arguments = shlex.split(command)
    assert program == "instbench"
    assert main([*arguments, *extra]) == 0, command


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to run commands in, with the README's example module and layout."""
    (tmp_path / "my_model.py").write_text(fenced("python")[0], encoding="utf-8")
    (tmp_path / "scene.json").write_text(fenced("json")[0], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_readme_and_table_hold_the_same_commands() -> None:
    assert commands() == list(COMMANDS)


def test_start_comes_first() -> None:
    assert commands()[:2] == ["make demo", "make test"]


def test_make_commands_are_those_of_the_makefile_and_ci() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for command, run_by in COMMANDS.items():
        if command.startswith("make "):
            assert re.search(rf"^{command.split()[1]}:", makefile, flags=re.MULTILINE), command
        if run_by is RunBy.CI:
            assert re.search(rf"^{command}\b", ci, flags=re.MULTILINE), command
    for target in re.findall(r"`make ([a-z-]+)", README):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_activation_path_is_the_makefiles() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"^VENV := \.venv$", makefile, flags=re.MULTILINE)
    assert "source .venv/bin/activate" in COMMANDS


def test_demo_target_calls_the_demo_verb() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    recipe = re.search(
        r"^demo:.*\n\t@\$\(BIN\)/python -m instbench demo -o \$\(DEMO_DIR\)$", makefile, re.MULTILINE
    )
    assert recipe is not None


def test_fast_commands_run_as_they_stand(workplace: Path) -> None:
    for command, run_by in COMMANDS.items():
        if run_by is RunBy.FAST:
            call(command)
    assert (workplace / "data" / "mine" / "instances.json").is_file()
    assert len(list((workplace / "data" / "mine" / "images").iterdir())) == 8


def test_data_commands_run_against_a_mirror(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTBENCH_DATA", str(workplace / "home"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving() as server:
        monkeypatch.setitem(catalog.DATASETS, "coco-val2017", offer(server, "coco-val2017"))
        for command, run_by in COMMANDS.items():
            if run_by is RunBy.MIRROR:
                call(command, *(("--mirror", server.address) if " fetch " in command else ()))
    assert (workplace / "data" / "coco-512" / "manifest.json").is_file()


def test_run_commands_pass_a_dry_run(workplace: Path) -> None:
    call("instbench data prepare shapes --split val --count 8 -o data/mine")
    for command, run_by in COMMANDS.items():
        if run_by in (RunBy.DRY, RunBy.RAY):
            call(command, "--dry-run")
    assert not list(workplace.glob("runs/*/images/*.png"))


@pytest.mark.slow
def test_run_commands_run(workplace: Path) -> None:
    call("instbench data prepare shapes --split val --count 8 -o data/mine")
    for command, run_by in COMMANDS.items():
        if run_by is RunBy.DRY:
            call(re.sub(r"--limit \d+", "", command), "--limit", "2", "--num-inference-steps", "2")
    call("instbench score runs/try")
    call("instbench report runs/try")
    call("instbench compare runs/try runs/floor --win-rate")
    assert (workplace / "runs" / "try" / "report.html").is_file()
    [repeats] = fenced("bash", (ROOT / "docs" / "statistics.md").read_text(encoding="utf-8"))
    for command in repeats.splitlines():
        short = ("--limit", "2", "--num-inference-steps", "2") if " run " in command else ()
        call(re.sub(r"--limit \d+", "", command), *short)
    call("instbench score runs/try/images --benchmark shapes-box --limit 2 --name mine -o runs/elsewhere")
    for name in ("try", "floor", "ceiling", "elsewhere", "mine", "grey"):
        assert (workplace / "runs" / name / "results.json").is_file()
        assert len(list((workplace / "runs" / name / "images").glob("*.png"))) == 2


@pytest.mark.ray
def test_ray_command_runs(workplace: Path) -> None:
    [command] = [one for one, run_by in COMMANDS.items() if run_by is RunBy.RAY]
    call(re.sub(r"--limit \d+", "", command), "--limit", "2", "--num-inference-steps", "2")
    assert len(list((workplace / "runs" / "ray" / "images").glob("*.png"))) == 2


@pytest.mark.slow
def test_draw_commands_run(workplace: Path) -> None:
    for command in (one for one in COMMANDS if one.startswith("instbench draw ")):
        call(command)
    assert (workplace / "drawn" / "moved" / "0001-changes.png").is_file()


@pytest.mark.slow
def test_demo_runs(workplace: Path) -> None:
    call("instbench demo -o runs/demo")
    assert list(workplace.glob("runs/demo/**/results.json"))


@pytest.mark.parametrize(
    "document", ["CONTRIBUTING.md", *sorted(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
)
def test_commands_of_other_documents_exist(document: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    text = (ROOT / document).read_text(encoding="utf-8")
    inline = [code for code in re.findall(r"`([^`\n]+)`", text) if code.startswith(("make ", "python -m "))]
    blocks = [line for block in fenced("bash", text) for line in block.splitlines() if line.strip()]
    for command in [*blocks, *inline]:
        words = shlex.split(command)
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", makefile, flags=re.MULTILINE), command
        elif words[:2] == ["python", "-m"]:
            path = ROOT.joinpath(*words[2].split("."))
            assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), command
        else:
            verb = words[1:3] if words[1] == "data" else words[1:2]
            call(shlex.join(["instbench", *verb, "--help"]))
