from __future__ import annotations

import csv
import io
import json
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from instbench.benchmarks import Benchmark
from instbench.cli.main import main
from instbench.errors import InputError
from instbench.execution.ablation import (
    AblationSession,
    AblationSettings,
    Difference,
    Number,
    _adjusted,
    _difference,
    answer,
    plan_ablation,
)
from instbench.execution.ablation_questions import (
    FORMATS_BENCHMARK,
    QUESTIONS,
    Measure,
    Question,
    choose_questions,
    find_benchmark,
)
from instbench.execution.draw import draw
from instbench.execution.draw_source import from_file, from_run
from instbench.execution.plan import make_requests
from instbench.generators.base import SamplingSettings
from instbench.generators.variants import FREEU, Variant, split_name
from instbench.layouts.types import Condition
from instbench.reports.ablation import ablation_csv, write_answers
from instbench.reports.html.again import command_for_run
from instbench.reports.html.build import build_report
from instbench.runs.store import RunFolder
from instbench.statistics import comparison as statistics
from instbench.statistics.comparison import ComparisonRow, Estimate

TINY = Question(
    "tiny",
    "Does a change change anything?",
    (
        Variant("default", "as it is"),
        Variant("off", "off | on", scaleu="off"),
        Variant("freeu", scaleu="constants", constants=FREEU),
        Variant("text", "no formats", shown=frozenset()),
        Variant("mis", sampling=SamplingSettings(mis=0.5)),
    ),
    (Measure("shapes-box", ("box_ap50",)),),
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("ablation")
    session = AblationSession(device="cpu")
    return folder, session, answer(TINY, folder, session, AblationSettings(limit=2, num_inference_steps=2))


def pictures(folder, variant: str) -> list[bytes]:
    found = sorted((folder / "runs" / "shapes-box" / variant / "images").glob("*.png"))
    return [path.read_bytes() for path in found]


def test_every_variant_is_a_run_of_its_own_that_draws_something_else(tiny):
    folder, _, found = tiny
    seen = [pictures(folder, variant.name) for variant in TINY.variants]
    assert all(len(one) == 2 for one in seen)
    for position in range(2):
        assert len({one[position] for one in seen}) == len(TINY.variants)
    assert [one.variant for one in found.numbers] == [one.name for one in TINY.variants]
    assert found.layouts == 2
    assert found.numbers[0].difference is None
    for one in found.numbers[1:]:
        assert one.difference is not None
        assert one.difference.value == pytest.approx(one.value - found.numbers[0].value)


def test_identities_name_what_was_changed_and_nothing_else(tiny):
    folder, _, _ = tiny
    identities = {}
    for variant in TINY.variants:
        path = folder / "runs" / "shapes-box" / variant.name / "run.json"
        identities[variant.name] = json.loads(path.read_text())["identity"]
    generators = {name: one.pop("generator") for name, one in identities.items()}
    assert "variant" not in generators["default"]
    assert generators["mis"] == generators["default"]
    assert generators["off"]["variant"] == {"scaleu": "off"}
    assert generators["text"]["variant"] == {"shown": []}
    assert generators["freeu"]["variant"]["constants"] == [[1.5, 0.9], [1.6, 0.2]]
    sampling = {name: one.pop("sampling") for name, one in identities.items()}
    assert sampling["mis"]["mis"] == 0.5
    assert sampling["default"]["mis"] == 0
    assert all(one == identities["default"] for one in identities.values())


def test_second_call_makes_no_image_and_the_shared_weights_are_as_before(tiny):
    folder, session, found = tiny
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}
    again = answer(TINY, folder, session, AblationSettings(limit=2, num_inference_steps=2))
    assert again == found
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")} == before
    generator = session.generator("reference")
    assert all(type(one).__name__ == "ScaleU" for one in generator.pipeline.unet.scaleu)


def test_other_settings_in_the_same_folder_are_refused(tiny):
    folder, session, _ = tiny
    with pytest.raises(InputError, match="seed"):
        answer(TINY, folder, session, AblationSettings(limit=2, num_inference_steps=2, seed=5))


def test_tables_and_plot_say_the_same(tiny, tmp_path):
    from xml.etree import ElementTree

    _, _, found = tiny
    paths = write_answers([found], tmp_path)
    assert [path.name for path in paths] == ["tiny.md", "tiny.csv", "tiny.svg"]
    rows = list(csv.DictReader(io.StringIO(ablation_csv(found))))
    assert [float(row["value"]) for row in rows] == [one.value for one in found.numbers]
    text = paths[0].read_text()
    assert "| off \\| on |" in text
    assert f"{found.numbers[0].value:.3f}" in text
    root = ElementTree.fromstring(paths[2].read_text())  # noqa: S314
    dots = [one for one in root.iter() if one.tag.endswith("circle")]
    assert len(dots) == len(TINY.variants)
    assert "off | on" in [one.text for one in root.iter() if one.tag.endswith("text")]


def test_mixed_shows_each_object_in_one_format():
    session = AblationSession(device="cpu")
    question = Question(
        "mixed", "", (Variant("mixed", mixed=True),), (Measure(FORMATS_BENCHMARK, ("mask_iou",)),)
    )
    [(_, _, plan, _)] = plan_ablation(question, Path("unused"), session, AblationSettings(limit=8))
    requests = make_requests(plan.benchmark, plan.layouts, seed=0, sampling=plan.sampling)
    shown = plan.generator.requests_as_shown(requests)
    kinds = {one.condition for request in shown for one in request.layout.instances}
    assert kinds == set(Condition)


def test_questions_name_what_there_is():
    for question in QUESTIONS:
        names = [variant.name for variant in question.variants]
        # What the others are compared with is the model as it is, or trained on without a change.
        assert names[0] in {"default", question.variants[0].trained}
        assert len(set(names)) == len(names)
        assert question.variants[0].to_json() == {}
        for measure in question.measures:
            known = {metric.name for metric in find_benchmark(measure.benchmark).metrics}
            assert set(measure.metrics) <= known
    # A folder stands for one variant only, whichever question asks.
    settings = {}
    for question in QUESTIONS:
        for variant in question.variants:
            key = (json.dumps(variant.to_json(), default=str), variant.sampling, variant.trained)
            assert settings.setdefault(variant.name, key) == key


def test_formats_benchmark_is_whole():
    made = find_benchmark(FORMATS_BENCHMARK)
    assert Benchmark.model_validate(made.model_dump()) == made
    assert set(made.conditions) == set(Condition)


def test_unknown_question_is_one_line():
    assert [one.name for one in choose_questions(["mis", "alpha"])] == ["alpha", "mis"]
    with pytest.raises(InputError, match="--question miss: unknown"):
        choose_questions(["miss"])


def test_weights_of_their_own_are_asked_for_and_used(tiny, tmp_path):
    folder, session, _ = tiny
    assert not any(one.needs_training for one in choose_questions(None))
    with pytest.raises(InputError, match=r"--question tokens: .* --trained"):
        choose_questions(["tokens"])
    with pytest.raises(InputError, match=r"holds no separate-tokens/model_index\.json"):
        choose_questions(["tokens"], tmp_path)
    with pytest.raises(InputError, match=r"holds no control/model_index\.json"):
        choose_questions(None, tmp_path)
    shipped = session.generator("reference").folder
    for name in ("separate-tokens", "joint-tokens", "control"):
        (tmp_path / name).symlink_to(shipped)
    here = choose_questions(None, tmp_path)
    assert here == (*choose_questions(None), *choose_questions(["tokens"], tmp_path))
    for question in QUESTIONS:
        for variant in question.variants:
            if variant.trained and not (tmp_path / variant.trained).exists():
                (tmp_path / variant.trained).symlink_to(shipped)
    assert choose_questions(None, tmp_path) == QUESTIONS
    asked = Question("own", "", (Variant("own", trained="control"),), (Measure("shapes-box", ("box_ap50",)),))
    [(_, _, plan, _)] = plan_ablation(
        asked, tmp_path / "out", session, AblationSettings(limit=2, trained=tmp_path)
    )
    assert plan.checkpoint == tmp_path / "control"
    answer(
        asked, tmp_path / "out", session, AblationSettings(limit=2, num_inference_steps=2, trained=tmp_path)
    )
    # The same weights from another folder draw the same.
    assert pictures(tmp_path / "out", "own") == pictures(folder, "default")


def test_dry_run_lists_the_runs(tmp_path, capsys):
    out = tmp_path / "out"
    assert (
        main(["ablate", "shapes", "-o", str(out), "--question", "scaleu", "--limit", "3", "--dry-run"]) == 0
    )
    assert "8 runs; nothing was written" in capsys.readouterr().out
    assert not out.exists()
    assert main(["ablate", "shapes", "-o", str(out), "--question", "nonsense"]) == 2


def test_differences_are_paired_and_corrected_as_one_family():
    known, unknown = (Estimate(value, None, 40) for value in (0.5, None))
    paired = statistics.Difference(0.4, (0.2, 0.6), 0.01, 0.9)

    def row(*estimates, differences):
        return ComparisonRow("b", "m", "fraction", True, None, None, estimates, differences, ())

    # p is corrected over the question, not over the pairs of one benchmark.
    assert _difference(row(known, known, differences=(None, paired)), 1) == Difference(0.4, (0.2, 0.6), 0.01)
    assert _difference(row(known, known, differences=(None, None)), 1) == Difference(0.0)
    assert _difference(row(unknown, known, differences=(None, None)), 1) is None
    number = Number("b", "m", "v", "v", 1.0, None, 40, "fraction", True)
    family = [replace(number, difference=Difference(0.1, None, p)) for p in (0.02, 0.01)]
    assert [one.difference.p_adjusted for one in _adjusted([number, *family])[1:]] == [0.02, 0.02]


@pytest.mark.parametrize("variant", ["off", "freeu"])
def test_an_image_of_a_variant_is_drawn_again_with_the_change(tiny, tmp_path, variant):
    folder, session, _ = tiny
    run = folder / "runs" / "shapes-box" / variant
    source = from_run(f"{run}/000012000000")
    first = draw(source, tmp_path / "first", session)
    with Image.open(run / "images" / "000012000000.png") as image:
        made = np.asarray(image).astype(int)
    assert (
        np.abs(np.asarray(first.images[0].image).astype(int) - made).max() <= 1
    )  # other batches round otherwise
    # The drawing carries the change on.
    second = draw(from_file(tmp_path / "first" / "draw.json"), tmp_path / "second", session)
    assert second.record["generator"] == json.loads((run / "run.json").read_text())["identity"]["generator"]
    assert (tmp_path / "first" / "0001.png").read_bytes() == (tmp_path / "second" / "0001.png").read_bytes()


def test_variants_come_back_from_their_identity():
    for question in QUESTIONS:
        for variant in question.variants:
            found = Variant.from_json(json.loads(json.dumps(variant.to_json())), variant.name)
            assert found == replace(variant, label="", sampling=SamplingSettings(), trained="")
    assert split_name("reference (scaleu-off)") == ("reference", "scaleu-off")
    assert split_name("reference") == ("reference", None)
    for changed in ({"scaleu": "half"}, {"colour": 1}, {"shown": ["smell"]}, {"constants": [1]}):
        with pytest.raises(InputError, match="variant"):
            Variant.from_json(changed)


def test_reports_of_variants_give_the_command_that_makes_them_again(tiny):
    folder, _, _ = tiny
    run = RunFolder(folder / "runs" / "shapes-box" / "freeu").read_run()
    words = shlex.split(command_for_run(run))
    assert words[:5] == ["instbench", "ablate", "shapes", "--question", "scaleu"]
    assert words[5:] == ["--limit", "2", "--seed", "0", "--num-inference-steps", "2", "-o", "runs/again"]
    page = build_report(folder / "runs" / "shapes-box" / "freeu").read_text(encoding="utf-8")
    assert "with the other runs of the question" in page
    trained = run.model_copy(update={"model": "reference (no-masks)", "checkpoint": "mine/no-masks"})
    assert "--question trained-without --trained mine " in command_for_run(trained)
