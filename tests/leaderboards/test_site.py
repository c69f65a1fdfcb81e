"""The page without a browser: what is embedded, and what the policy allows."""

import base64
import hashlib
import json
import re

from leaderboards.site import build_site
from leaderboards.submissions import add_submission
from tests.leaderboards.submitting import results, write

HOSTILE = "</script><script>alert(1)</script><!--"


def test_data_cannot_leave_its_element(tmp_path):
    run = write(tmp_path / "run", results(HOSTILE, benchmark=f"{HOSTILE}-box"))
    (run / "report.html").write_text("the report")
    (run / "report_files").mkdir()
    (run / "report_files" / "0.webp").write_bytes(b"picture")
    (run / "report_files" / "1.webp").symlink_to(tmp_path / "run" / "results.json")
    folder = add_submission(run, tmp_path / "board", badge="reproduced here")
    index = build_site([tmp_path / "board"], tmp_path / "site")
    text = index.read_text()
    assert HOSTILE not in text
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
    (board,) = json.loads(data)["boards"]
    assert board["rows"][0]["model"] == HOSTILE
    assert board["rows"][0]["report"] == f"reports/{folder.name}/report.html"
    assert (index.parent / board["rows"][0]["report"]).read_text() == "the report"
    pictures = list((index.parent / "reports" / folder.name / "report_files").iterdir())
    assert [(one.name, one.read_bytes()) for one in pictures] == [("0.webp", b"picture")]
    assert json.loads((index.parent / "measured.json").read_text()) == [board]
    build_site([tmp_path / "board"], tmp_path / "site")
    assert index.read_text() == text


def test_policy_allows_its_own_script_and_style_alone(tmp_path):
    text = build_site([write(tmp_path / "run", results())], tmp_path / "site").read_text()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for kind, tag in (("script-src", "<script>"), ("style-src", "<style>")):
        body = text.split(tag)[1].split(f"</{tag[1:]}")[0]
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{kind} 'sha256-{digest}'" in policy
    assert not re.search(r"innerHTML|document\.write|eval\(", text)
    assert "style=" not in text


def test_published_numbers_that_differ_stand_side_by_side(tmp_path):
    text = build_site([write(tmp_path / "run", results())], tmp_path / "site").read_text()
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
    rows = json.loads(data)["published"]
    differing = [row for row in rows if row["conflict"]]
    assert differing
    assert all(len({(one["value"], one["unit"]) for one in row["numbers"]}) > 1 for row in differing)
    by_name = {(row["method"], row["benchmark"], row["metric"]): row for row in rows}
    assert [one["value"] for one in by_name["GLIGEN", "coco-box", "AP"]["numbers"]] == [19.6, 24.1]
    assert by_name["GLIGEN", "coco-box", "AP"]["conflict"]
    # 0.30 and 29.7 % are one number, rounded.
    assert not by_name["GLIGEN", "coco-mig", "instance success rate AVG"]["conflict"]
    assert all(one["source"] for row in rows for one in row["numbers"])
