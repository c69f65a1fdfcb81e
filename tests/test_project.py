"""The project as a whole: what the Makefile, CI and documents promise, and rules for every module."""

from __future__ import annotations

import ast
import configparser
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("instbench", "metrics", "reference_model", "leaderboards")
DOCUMENTS = sorted(ROOT.glob("*.md")) + sorted((ROOT / "docs").glob("*.md"))
MAKE_TARGETS = (
    "help",
    "venv",
    "demo",
    "test",
    "test-browser",
    "test-faults",
    "test-ray",
    "test-slow",
    "lint",
    "clean",
)

# Import name -> distribution, where they differ.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "cv2": "opencv-python",
    "yaml": "pyyaml",
    "skimage": "scikit-image",
    "open_clip": "open_clip_torch",
}
# Needed though no module imports them: diffusers loads through accelerate, ultralytics and open_clip must find
# the torchvision that fits torch, and torchmetrics takes its Inception from torch-fidelity.
INDIRECT = {"accelerate", "torchvision", "torch-fidelity"}
# Import name, that of an extra too -> how the modules begin that may import it, inside functions.
OPTIONAL = {"ray": "ray"}
WEIGHTS_LIMIT = 40_000_000
FIXTURES_LIMIT = 10_000_000
PICKLES = {".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle"}


def modules(*packages: str) -> list[Path]:
    """Python files of the packages, as paths from the root."""
    return sorted(
        path.relative_to(ROOT)
        for package in packages
        for path in (ROOT / package).rglob("*.py")
        if "__pycache__" not in path.parts
    )


def imported(path: Path) -> Iterator[str]:
    """Names of the modules that a file imports, lazy imports included."""
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module


def settings() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def requirements() -> dict[str, str]:
    """Declared run-time requirements: normalised name -> the whole line."""
    lines = settings()["options"]["install_requires"].split("\n")
    return {re.split(r"[<>=!~\[; ]", line)[0].lower(): line for line in lines if line.strip()}


# -- Makefile and CI


@pytest.mark.parametrize("target", MAKE_TARGETS)
def test_make_has_target_and_help_lists_it(target: str) -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{re.escape(target)}:.*## \S", text, flags=re.MULTILINE)


def test_every_working_target_sets_up_the_environment_itself() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in (*(one for one in MAKE_TARGETS if one not in ("help", "clean")), "format"):
        assert re.search(rf"^{target}: \$\(STAMP\) ##", text, flags=re.MULTILINE), target


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_without_target_prints_the_list() -> None:
    # MAKEFLAGS of an outer `make test` would reach the inner one.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    done = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True, env=environment)  # noqa: S607
    for target in MAKE_TARGETS:
        assert f"make {target}" in done.stdout


def test_ci_runs_lint_then_test_and_stops_at_errors() -> None:
    script = ROOT / ".ci" / "run"
    text = script.read_text(encoding="utf-8")
    assert os.access(script, os.X_OK)
    assert "set -euo pipefail" in text
    assert 0 < text.index("make lint") < text.index("make test ") < text.index("make test-browser")
    assert text.index("make test ") < text.index("make test-faults")
    assert "make test-ray" in text
    subprocess.run(["bash", "-n", str(script)], check=True)  # noqa: S607


@pytest.mark.skipif(shutil.which("git") is None or not (ROOT / ".git").exists(), reason="not a git checkout")
def test_git_ignores_no_source_file() -> None:
    paths = [str(path) for path in modules(*PACKAGES, "tests")]
    done = subprocess.run(
        ["git", "check-ignore", "--stdin"],  # noqa: S607
        cwd=ROOT,
        input="\n".join(paths),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == []


# -- dependencies and packaging


def test_every_import_is_declared() -> None:
    declared = requirements()
    missing = set()
    for path in modules(*PACKAGES):
        for name in imported(path):
            top = name.split(".")[0]
            if top in sys.stdlib_module_names or top in PACKAGES:
                continue
            if top in OPTIONAL and path.stem.startswith(OPTIONAL[top]):
                assert top in settings()["options.extras_require"]
                continue
            if DISTRIBUTIONS.get(top, top).lower() not in declared:
                missing.add(f"{path}: {top}")
    assert sorted(missing) == []


def test_every_declared_requirement_is_used() -> None:
    used = {name.split(".")[0] for path in modules(*PACKAGES) for name in imported(path)}
    names = {DISTRIBUTIONS.get(name, name).lower() for name in used} | INDIRECT
    assert sorted(set(requirements()) - names) == []


def test_every_data_file_is_packaged() -> None:
    section = settings()["options.package_data"]
    patterns = {package: section.get(package, "").split() for package in (*PACKAGES, "*")}
    left_out = []
    for package in PACKAGES:
        root = ROOT / package
        covered = {path for pattern in patterns[package] for path in root.glob(pattern)}
        for folder in {path.parent for path in root.rglob("__init__.py")}:
            covered |= {path for pattern in patterns["*"] for path in folder.glob(pattern)}
        for path in root.rglob("*"):
            if path.is_file() and path.suffix not in {".py", ".pyc"} and path not in covered:
                left_out.append(str(path.relative_to(ROOT)))
    assert sorted(left_out) == []


def test_every_package_folder_has_an_init_file() -> None:
    # `packages = find:` leaves out folders without one, and an installed copy would miss their modules.
    folders = {path.parent for path in modules(*PACKAGES)}
    assert sorted(str(folder) for folder in folders if not (ROOT / folder / "__init__.py").exists()) == []


def test_types_are_checked_in_every_package() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = re.search(r"^packages = \[(.*)\]$", text, flags=re.MULTILINE)
    assert listed is not None
    for package in PACKAGES:
        if (ROOT / package / "__init__.py").exists():
            assert f'"{package}"' in listed.group(1)


# -- rules that hold for every module


@pytest.mark.parametrize("package", ["metrics", "reference_model"])
def test_stand_alone_packages_import_nothing_from_instbench(package: str) -> None:
    wrong = [
        f"{path}: {name}"
        for path in modules(package)
        for name in imported(path)
        if name.split(".")[0] in {"instbench", "leaderboards"}
    ]
    assert wrong == []


def test_leaderboards_read_only_results_files() -> None:
    wrong = [
        f"{path}: {name}"
        for path in modules("leaderboards")
        for name in imported(path)
        if name.split(".")[0] in {"instbench", "metrics", "reference_model"}
    ]
    assert wrong == []


def test_only_the_command_line_imports_the_command_line() -> None:
    wrong = [
        f"{path}: {name}"
        for path in modules("instbench")
        if path.parts[1] not in {"cli", "__main__.py"}
        for name in imported(path)
        if name.startswith("instbench.cli")
    ]
    assert wrong == []


def test_no_module_is_longer_than_500_lines() -> None:
    sizes = {}
    for path in modules(*PACKAGES, "tests"):
        sizes[str(path)] = len((ROOT / path).read_text(encoding="utf-8").splitlines())
    assert {path: size for path, size in sizes.items() if size > 500} == {}


def test_nothing_reads_pickles() -> None:
    wrong = []
    for path in modules(*PACKAGES):
        wrong += [f"{path}: {name}" for name in imported(path) if name in {"pickle", "dill", "cloudpickle"}]
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            call = ast.unparse(node.func)
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            is_safe = {
                "torch.load": keywords.get("weights_only") == "True",
                "yaml.load": False,
                "np.load": keywords.get("allow_pickle", "False") == "False",
            }
            if not is_safe.get(call, True):
                wrong.append(f"{path}:{node.lineno}: {call}")
    assert wrong == []


def test_nothing_is_tied_to_one_kind_of_device() -> None:
    wrong = [
        f"{path}:{node.lineno}"
        for path in modules(*PACKAGES)
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "cuda"
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "code",
    [
        "import instbench",
        "import instbench.cli.main as cli; cli.main(['--help'])",
        "import instbench.cli.main as cli; sys.exit(cli.main(['ls', 'benchmarks']))",
    ],
    ids=["import", "help", "ls"],
)
def test_start_does_not_import_torch(code: str) -> None:
    # A None entry makes `import torch` fail, however deep it happens.
    heavy = ("torch", "diffusers", "transformers", "ultralytics", "ray")
    blocked = f"import sys; sys.modules.update(dict.fromkeys({heavy!r})); {code}"
    command = [sys.executable, "-c", blocked]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


# -- weights


def test_shipped_weights_are_small_and_without_pickles() -> None:
    folders = [ROOT / "reference_model" / "weights", ROOT / "instbench" / "evaluators" / "weights"]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert any(path.suffix == ".safetensors" for path in files)
    assert sum(path.stat().st_size for path in files) < WEIGHTS_LIMIT
    for package in (*PACKAGES, "tests"):
        assert [path for path in (ROOT / package).rglob("*") if path.suffix in PICKLES] == []


def test_fixtures_are_small() -> None:
    files = [path for path in (ROOT / "tests").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files if path.suffix not in {".py", ".pyc"}) < FIXTURES_LIMIT


# -- documents


def links(document: Path) -> list[str]:
    """Targets of the relative links of a document, without anchors."""
    text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = [target.split("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text)]
    return [target for target in targets if target and "://" not in target]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    assert [target for target in links(document) if not (document.parent / target).exists()] == []


def test_readme_leads_to_every_module_in_two_steps() -> None:
    readme = ROOT / "README.md"
    first = {(ROOT / target).resolve() for target in links(readme)}
    pages = [page for page in first if page.suffix == ".md" and page.exists()]
    second = {(page.parent / target).resolve() for page in pages for target in links(page)}
    lost = []
    for path in modules(*PACKAGES):
        full = (ROOT / path).resolve()
        # Reached: the file or its folder is linked from the README or from a page that the README links.
        # A folder linked from the README shows its sub-folders in the next step.
        steps = {full, full.parent}
        if not (steps & (first | second) or full.parent.parent in first):
            lost.append(str(path))
    assert lost == []


def test_readme_names_the_licences() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "AGPL-3.0" in text
    assert "ultralytics" in text
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in licence
    assert "END OF TERMS AND CONDITIONS" in licence


def test_changelog_has_an_unreleased_section() -> None:
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
