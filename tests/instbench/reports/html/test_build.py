from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from instbench.cli.main import main
from instbench.errors import InputError
from instbench.reports.html import build_report, pictures
from instbench.runs.store import RunFolder
from tests.instbench.reports.html.dense import make_dense_run
from tests.instbench.reports.html.synthetic import HOSTILE, make_run


def data_of(page: Path) -> dict[str, Any]:
    text = page.read_text(encoding="utf-8")
    block = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, flags=re.DOTALL)
    assert block is not None
    found: dict[str, Any] = json.loads(block.group(1))
    return found


class Tags(HTMLParser):
    """Lists the tags of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_page_holds_numbers_and_images(tmp_path: Path) -> None:
    page = build_report(make_run(tmp_path / "run"))
    assert page == tmp_path / "run" / "report.html"
    text = page.read_text(encoding="utf-8")
    assert "2 unknown &lt;b&gt;owl&lt;/b&gt;" in text
    assert re.search(r"<code>box_iou</code>.*?0\.\d{3} to 0\.\d{3}", text)
    assert re.search(r"<code>fid</code></td><td [^>]*><strong>-</strong>", text)
    assert "+0.125" in text
    images = data_of(page)["images"]
    assert len(images) == 6
    assert [len(one["asked"]) for one in images] == [1, 2, 3, 1, 2, 3]
    view = images[1]["views"][0]
    assert (view["failed"], view["quality"]) == (1, 0.45)
    assert view["seed"] == str(2**62 + 1)
    assert view["picture"].startswith("data:image/webp;base64,")
    assert [one["failure"] for one in view["outcomes"]] == ["missing", "correct"]
    # The one detection answers the second object; boxes are thousandths of the canvas.
    assert "detection" not in view["outcomes"][0]
    assert view["outcomes"][1]["detection"] == 0
    assert view["found"][0]["box"] == images[1]["asked"][1]["box"] == [350, 200, 550, 600]


def test_only_what_the_model_was_shown_is_drawn_as_asked(tmp_path: Path) -> None:
    page = build_report(make_run(tmp_path / "run", conditions=("point",)))
    asked = data_of(page)["images"][0]["asked"][0]
    assert asked["point"] == [200, 400]
    assert not {"box", "mask", "scribble"} & set(asked)


def test_mask_outlines_follow_the_mask(tmp_path: Path) -> None:
    [outline] = data_of(build_report(make_run(tmp_path / "run")))["images"][0]["asked"][0]["mask"]
    xs, ys = outline[::2], outline[1::2]
    assert (min(xs), max(xs)) == pytest.approx((3.5 / 32 * 1000, 8.5 / 32 * 1000), abs=1)
    assert (min(ys), max(ys)) == pytest.approx((6.5 / 32 * 1000, 18.5 / 32 * 1000), abs=1)


def test_hostile_texts_stay_text(tmp_path: Path) -> None:
    page = build_report(make_run(tmp_path / "run", hostile=True, model='"><script>alert(1)</script>'))
    text = page.read_text(encoding="utf-8")
    tags = Tags(text).found
    assert [attributes.get("type") for tag, attributes in tags if tag == "script"] == [
        "application/json",
        None,
    ]
    assert not [name for _, attributes in tags for name in attributes if name.startswith("on")]
    assert not [tag for tag, attributes in tags if tag == "img" or "style" in attributes]
    assert [one["caption"] for one in data_of(page)["images"]] == list(HOSTILE)


def test_policy_allows_its_own_script_and_no_connection(tmp_path: Path) -> None:
    text = build_report(make_run(tmp_path / "run")).read_text(encoding="utf-8")
    [policy] = [
        attributes["content"]
        for tag, attributes in Tags(text).found
        if "content-security" in str(attributes).lower()
    ]
    script = text.rsplit("<script>", 1)[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy is not None
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none';")
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)


def test_large_runs_link_their_thumbnails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "run", noise=True)
    whole = pictures.make_pictures
    monkeypatch.setattr(
        "instbench.reports.html.build.make_pictures", lambda runs, out: whole(runs, out, 2000)
    )
    page = build_report(run, tmp_path / "page.html")
    sources = [one["views"][0]["picture"] for one in data_of(page)["images"]]
    assert sources[0] == "page_files/0-000000000000.webp"
    assert all((tmp_path / source).is_file() for source in sources)
    assert not list(tmp_path.glob(".tmp-*"))
    # A smaller report in its place takes the folder away; strangers in it are never touched.
    monkeypatch.undo()
    build_report(run, tmp_path / "page.html")
    assert not (tmp_path / "page_files").exists()
    (tmp_path / "page_files").mkdir()
    (tmp_path / "page_files" / "letter.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match=r"letter\.txt"):
        build_report(run, tmp_path / "page.html")


def test_missing_and_damaged_pictures_are_left_out(tmp_path: Path) -> None:
    run = RunFolder(make_run(tmp_path / "run"))
    (run.images / "000000000000.png").unlink()
    (run.images / "000000000001.png").write_bytes(b"no picture")
    views = [one["views"][0] for one in data_of(build_report(run.root))["images"]]
    assert ["picture" in view for view in views] == [False, False, True, True, True, True]


def test_commands_are_quoted(tmp_path: Path) -> None:
    page = build_report(make_run(tmp_path / "run", model="a b; rm"))
    assert shlex.quote("a b; rm") in html.unescape(page.read_text(encoding="utf-8"))
    entry = data_of(page)["images"][2]
    words = shlex.split(entry["views"][0]["again"])
    assert words[:3] == ["instbench", "draw", "--from"]
    assert words[3] == f"{tmp_path}/run/{entry['key']}"


@pytest.mark.parametrize("model", ["real-images", "image-folder"])
def test_ready_pictures_are_the_last_of_a_shorter_run(tmp_path: Path, model: str) -> None:
    page = build_report(make_run(tmp_path / "run", model=model))
    words = shlex.split(data_of(page)["images"][2]["views"][0]["again"])
    assert words[:5] == ["instbench", "run", "synthetic-box", "--model", model]
    assert words[words.index("--limit") + 1] == "3"


def test_reports_are_files_of_the_run(tmp_path: Path) -> None:
    run = RunFolder(make_run(tmp_path / "run"))
    build_report(run.root)
    run.clear()
    assert not (run.root / "report.html").exists()


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run")
    assert main(["report", str(run), "-o", str(tmp_path / "a.html")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "a.html")
    for arguments, word in (
        ([str(tmp_path / "nothing")], "run.json is missing"),
        ([str(run), "-o", str(tmp_path)], "HTML file"),
        ([str(run), "-o", str(tmp_path / "no" / "a.html")], "no such folder"),
    ):
        assert main(["report", *arguments]) == 2
        assert word in capsys.readouterr().err
    (run / "results.json").unlink()
    assert main(["report", str(run)]) == 2
    assert "score the run first" in capsys.readouterr().err


def test_a_dense_run_becomes_a_page(tmp_path: Path) -> None:
    page = build_report(make_dense_run(tmp_path / "run", 44))
    images = data_of(page)["images"]
    assert len(images) == 44
    assert max(len(one["asked"]) for one in images) > 7
    view = images[3]["views"][0]
    assert view["picture"].startswith("data:image/webp;base64,")
    assert all(one["mask"] for one in images[3]["asked"])
    # Of 50 detections those that answer an object or are above 0.3 are drawn.
    assert len(view["found"]) < 25
    assert sum(one.get("detection") is not None for one in view["outcomes"]) == sum(
        one["found"] for one in view["outcomes"]
    )
