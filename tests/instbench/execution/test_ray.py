"""The Ray executor on a small cluster of this machine; run by `make test-ray`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest

from instbench import api
from instbench.cli.main import main
from instbench.errors import InputError
from instbench.execution import ray as executor
from instbench.execution import ray_work
from instbench.execution.session import Session
from instbench.generators.base import SamplingSettings
from instbench.runs.store import RunFolder
from tests.instbench.execution import ray_models
from tests.instbench.execution.ray_models import wait_until

pytestmark = pytest.mark.ray

MODELS = "tests.instbench.execution.ray_models"
LAYOUTS = 4
NO_DASHBOARD = {"include_dashboard": False}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """As many threads here as in the workers: on a processor the number of threads rounds pixels differently."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", autouse=True)
def patience() -> Iterator[None]:
    """A machine with other work is no reason for Ray to give up or kill processes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_raylet_start_wait_time_s", str(ray_models.LIMIT_SECONDS))
        patch.setenv("RAY_worker_register_timeout_seconds", str(ray_models.LIMIT_SECONDS))
        patch.setenv("RAY_health_check_timeout_ms", "60000")
        patch.setenv("RAY_memory_monitor_refresh_ms", "0")
        yield


@pytest.fixture(scope="module")
def cluster(patience: None, one_thread: None) -> Iterator[None]:
    """Ray for all tests of this file."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    ray.init("local", num_cpus=3, num_gpus=0, log_to_driver=False, logging_level="ERROR", **NO_DASHBOARD)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The shipped weights in this process."""
    folder = tmp_path_factory.mktemp("local") / "run"
    api.run("shapes-texture", folder, session=Session(batch_size=1), **arguments())
    return RunFolder(folder)


def arguments() -> dict[str, Any]:
    return {"limit": LAYOUTS, "sampling": SamplingSettings(num_inference_steps=4)}


def generate(
    name: str, folder: Path, workers: int | None = None, *, limit: int = LAYOUTS, size: int = 1, **more: Any
) -> Any:
    if workers is not None:
        more |= {"executor": "ray", "workers": workers}
    more["session"] = Session(batch_size=size)
    [outcome] = api.generate("shapes-box", folder, model=f"{MODELS}:{name}", limit=limit, **more)
    return outcome


def pictures(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "images").iterdir())}


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_workers_give_what_one_process_gives(cluster, local, tmp_path, workers):
    session = Session(batch_size=1)
    api.run(
        "shapes-texture", tmp_path / "run", executor="ray", workers=workers, session=session, **arguments()
    )
    run = RunFolder(tmp_path / "run")
    assert pictures(run.root) == pictures(local.root)
    assert run.results_json.read_bytes() == local.results_json.read_bytes()
    for table in local.observations.iterdir():
        assert pq.read_table(table).equals(pq.read_table(run.observations / table.name), check_metadata=True)
    assert pq.read_table(run.instances_parquet).equals(pq.read_table(local.instances_parquet))
    record = run.read_run()
    assert record.identity == local.read_run().identity
    executor = record.environment["executor"]
    assert (executor["kind"], executor["workers"], executor["gpus_per_worker"]) == ("ray", workers, 0)
    [machine] = executor["machines"].values()
    for stage in ("generate", "observe"):  # the mean over the workers, so it fits into the stage
        assert 0 < record.seconds_in_networks[stage] <= record.timings[stage]
    assert record.totals is not None
    assert 0 < record.totals.share_outside_networks < 1
    assert machine["memory"]["peak_rss_bytes"] > 100 * 2**20  # torch alone takes more
    assert 1 <= machine["workers"] <= workers
    assert "torch" in machine["versions"]


def test_a_killed_worker_costs_nothing_but_time(cluster, tmp_path, caplog):
    generate("Greys", tmp_path / "local", limit=8)
    (tmp_path / "gate").mkdir()

    def kill() -> None:
        run = RunFolder(tmp_path / "ray")
        wait_until(lambda: bool(makers(run)))
        os.kill(makers(run).pop(), signal.SIGKILL)
        (tmp_path / "gate" / ray_models.GATE).touch()

    killer = threading.Thread(target=kill)
    killer.start()
    outcome = generate("Gated", tmp_path / "ray", workers=2, limit=8, checkpoint=tmp_path / "gate")
    killer.join()
    assert (outcome.made, outcome.failed) == (8, ())
    assert pictures(tmp_path / "ray") == pictures(tmp_path / "local")
    assert "died; its work goes to others" in caplog.text
    assert len(makers(RunFolder(tmp_path / "ray"))) >= 2


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_was_cut_off_has_not_died(cluster, tmp_path, caplog, workers):
    caplog.set_level("INFO")
    (tmp_path / "marks").mkdir()
    outcome = generate("CutOff", tmp_path / "ray", workers, checkpoint=tmp_path / "marks", limit=8)
    assert (outcome.made, outcome.failed) == (8, ())
    made = [path.name.split("-")[0] for path in (tmp_path / "marks").iterdir()]
    assert len(made) == len(set(made)) == 8  # what was finished when the connection broke is not made again
    assert "does not answer (ActorUnavailableError)" in caplog.text
    assert "answers again; it had not died" in caplog.text
    assert "goes to others" not in caplog.text
    generate("Greys", tmp_path / "local", limit=8)
    assert pictures(tmp_path / "ray") == pictures(tmp_path / "local")


def test_a_worker_that_stays_silent_is_not_waited_for(cluster, tmp_path, caplog, monkeypatch):
    for patience in ("_PATIENCE_SECONDS", "_PATIENCE_TASKS"):
        monkeypatch.setattr(ray_work, patience, 0.0)
    (tmp_path / "marks").mkdir()
    outcome = generate("CutOffForGood", tmp_path / "ray", 2, checkpoint=tmp_path / "marks", limit=8)
    assert (outcome.made, outcome.failed) == (8, ())
    assert "is silent; its work goes to others" in caplog.text
    assert "died" not in caplog.text


def test_answers_that_are_always_lost_end_the_run_and_blame_no_image(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(ray_work, "_SILENCES", 2)
    monkeypatch.setattr(executor, "Worker", ray_models.WorkerWithoutReplies)
    with pytest.raises(RuntimeError, match="is alive, but 2 of its answers to the same task were lost"):
        generate("Greys", tmp_path / "ray", 1)
    assert RunFolder(tmp_path / "ray").read_image_log() == {}


def test_a_run_begins_here_and_ends_there(cluster, tmp_path):
    whole = generate("Greys", tmp_path / "whole").folder
    for first, then in ((None, 2), (2, None)):
        folder = tmp_path / f"from-{first}"
        generate("Greys", folder, workers=first)
        gone = sorted((folder / "images").iterdir())[:2]
        for path in gone:
            path.unlink()
        again = generate("Greys", folder, workers=then)
        assert (again.made, again.kept) == (2, LAYOUTS - 2)
        assert pictures(folder) == pictures(whole)


def test_the_seconds_in_networks_are_those_of_the_mean_worker(cluster, tmp_path):
    generate("Slow", tmp_path / "run", workers=2, limit=6)
    record = RunFolder(tmp_path / "run").read_run()
    assert record.totals is not None
    share = record.totals.share_outside_networks
    # Half of the work if both took part, all of it if one was done before the other was there.
    assert (
        6 * ray_models.Slow.seconds / 2
        <= record.seconds_in_networks["generate"]
        <= record.timings["generate"]
    )
    assert share == pytest.approx(
        1 - record.seconds_in_networks["generate"] / sum(record.timings.values()), abs=1e-3
    )


@pytest.mark.parametrize("size", [1, 3])
def test_a_layout_that_fails_is_reported_as_in_one_process(cluster, tmp_path, size):
    errors = []
    for folder, workers in ((tmp_path / "local", None), (tmp_path / "ray", 2)):
        outcome = generate("Refusing", folder, workers, size=size)
        assert (outcome.made, outcome.failed) == (LAYOUTS - 1, (ray_models.BAD_KEY,))
        errors.append(RunFolder(folder).read_image_log()[ray_models.BAD_KEY]["error"])
    assert errors == ["ArithmeticError: not this one"] * 2


def test_what_fails_once_is_tried_again(cluster, tmp_path):
    marks = tmp_path / "marks"
    marks.mkdir()
    outcome = generate("Fickle", tmp_path / "run", 2, checkpoint=marks, limit=12)
    assert (outcome.made, outcome.failed) == (12, ())


def test_a_layout_that_kills_workers_is_given_up(cluster, tmp_path):
    outcome = generate("Deadly", tmp_path / "run", 2, size=2)
    assert (outcome.made, outcome.failed) == (LAYOUTS - 1, (ray_models.BAD_KEY,))
    error = RunFolder(tmp_path / "run").read_image_log()[ray_models.BAD_KEY]["error"]
    assert error == "WorkerDied: 3 workers died while they made it"


def test_a_model_that_always_fails_stops_the_run(cluster, tmp_path):
    with pytest.raises(Exception, match="never") as caught:
        generate("Hopeless", tmp_path / "run", 2, limit=8)
    assert type(caught.value).__name__ == "ArithmeticError"
    assert RunFolder(tmp_path / "run").read_run().error == "ArithmeticError: never"


def test_workers_with_other_weights_are_refused(cluster, tmp_path):
    with pytest.raises(InputError) as caught:
        generate("Different", tmp_path / "run", 2)
    assert "is refused: other networks than the run's: generator.weights (" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_gpu(cluster, tmp_path, capsys):
    asked = [
        "generate",
        "shapes-box",
        "--model",
        f"{MODELS}:Greys",
        "--limit",
        "1",
        "-o",
        str(tmp_path / "run"),
    ]
    assert main([*asked, "--executor", "ray", "--gpus-per-worker", "1"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --gpus-per-worker 1: this machine has no GPU")


def test_the_command_line_starts_a_cluster_and_keeps_quiet(tmp_path):
    asked = [
        "shapes-box",
        "--model",
        f"{MODELS}:Greys",
        "--limit",
        "3",
        "-o",
        str(tmp_path / "run"),
        "--json",
    ]
    command = [sys.executable, "-m", "instbench", "generate", *asked, "--executor", "ray"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=ray_models.LIMIT_SECONDS)
    assert done.returncode == 0, done.stderr
    [outcome] = json.loads(done.stdout)
    assert outcome["images_made"] == 3
    # On a busy machine a line may say that the worker takes its time to start.
    said = [line for line in done.stderr.splitlines() if not line.startswith("waiting for 1 of 1 workers")]
    assert all(line.startswith("generate: ") for line in said), done.stderr


def test_machines_join_and_leave(tmp_path):
    from ray.cluster_utils import Cluster

    run = RunFolder(tmp_path / "run")
    gate = tmp_path / "gate"
    gate.mkdir()
    cluster = Cluster(initialize_head=True, connect=False, head_node_args={"num_cpus": 1, **NO_DASHBOARD})
    try:
        asked = ["shapes-box", "--model", f"{MODELS}:Gated", "--limit", "8", "--batch-size", "1", "--json"]
        asked += ["--checkpoint", str(gate)]
        asked += ["-o", str(run.root), "--executor", "ray", "--address", cluster.address, "--workers", "2"]
        command = [sys.executable, "-m", "instbench", "generate", *asked]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            # The workers have work in hand that waits for the gate, whatever this takes.
            wait_until(lambda: len(makers(run)) == 1 or process.poll() is not None)
            first = makers(run)
            machine = cluster.add_node(num_cpus=1, **NO_DASHBOARD)
            wait_until(lambda: len(makers(run)) == 2 or process.poll() is not None)
            cluster.remove_node(machine, allow_graceful=False)
            wait_until(lambda: not any(map(is_alive, makers(run) - first)))
            (gate / ray_models.GATE).touch()
            output, errors = process.communicate(timeout=ray_models.LIMIT_SECONDS)
        assert process.returncode == 0, errors
        assert json.loads(output)[0]["images_made"] == 8
        assert "died; its work goes to others" in errors
    finally:
        cluster.shutdown()


def is_alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def makers(run: RunFolder) -> set[int]:
    """Processes that have made an image."""
    log = run.read_image_log() if run.root.exists() else {}
    return {one["info"]["pid"] for one in log.values()}
