"""Runs at an S3 server on this machine: killed, gone on with elsewhere, and what cannot work is one line."""

from __future__ import annotations

import json
import logging
import os
import signal
from collections.abc import Iterator

import fsspec
import pytest

from instbench.cli.main import main
from instbench.runs.lock import LOCK_NAME
from instbench.runs.remote import Target
from tests.faults.driver import wait_until
from tests.faults.test_interruptions import IMAGES, Runner
from tests.instbench.fakes import write_benchmark, write_coco

pytestmark = pytest.mark.faults
BUCKET = "s3://bucket"


@pytest.fixture(scope="module", autouse=True)
def _packages() -> None:
    """Only `make test-faults` installs them; asked for here, suites without these tests need not mention them."""
    pytest.importorskip("s3fs")
    pytest.importorskip("moto.server")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    from moto import server as moto_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    started = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    started.start()
    host, port = started.get_host_and_port()
    yield f"http://{host}:{port}"
    started.stop()


@pytest.fixture
def bucket(server, tmp_path, monkeypatch):
    for name, value in {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "anybody",
        "AWS_SECRET_ACCESS_KEY": "hidden",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "INSTBENCH_DATA": str(tmp_path / "machine"),
    }.items():
        monkeypatch.setenv(name, value)
    fsspec.get_filesystem_class("s3").clear_instance_cache()  # its client keeps what it was given
    store = fsspec.filesystem("s3")
    if not store.exists("bucket"):
        store.mkdir("bucket")
    return store


def images(address: str) -> set[str]:
    names = Target(address).files()
    return {name.removeprefix("images/").removesuffix(".png") for name in names if name.endswith(".png")}


@pytest.mark.parametrize("store", ["files", "archives"])
def test_killed_at_s3_and_resumed_elsewhere(bucket, tmp_path, monkeypatch, count, store):
    runner = Runner(tmp_path)
    address = f"{BUCKET}/{store}"
    where = ["-o", address]
    process = runner.start("at", *where, "--image-store", store, hold=8)
    runner.wait_for(process, 8)
    wait_until(lambda: store == "archives" or len(images(address)) >= 5)
    process.send_signal(signal.SIGSTOP)
    made, pushed = set(runner.log.read_text().splitlines()), images(address)
    monkeypatch.setenv("INSTBENCH_DATA", str(tmp_path / "other-machine"))
    assert "in use by process" in runner.run("at", *where, code=2)
    process.kill()
    process.communicate()
    assert LOCK_NAME in Target(address).files()
    runner.run("at", *where)
    again = made & set(runner.log.read_text().splitlines())
    count("kill -9 at S3")
    lost = again & pushed
    for _ in lost:
        count("lost")
    assert lost == set()
    assert Target(address).read_bytes("results.json") == runner.expected
    assert LOCK_NAME not in Target(address).files()
    assert store == "archives" or len(images(address)) == IMAGES
    # What a push noted is what a listing says, or everything would be fetched again.
    [state] = (tmp_path / "other-machine").rglob("mirror.jsonl")
    noted = {one["name"]: one["token"] for one in map(json.loads, state.read_text().splitlines())}
    there = {name: file.token for name, file in Target(address).files().items()}
    assert {name: token for name, token in noted.items() if token} == {
        name: token for name, token in there.items() if name in noted
    }
    if store == "files":
        monkeypatch.setenv("INSTBENCH_DATA", str(tmp_path / "third-machine"))
        runner.run("at", *where)
        assert not list((tmp_path / "third-machine").rglob("*.png"))
        assert Target(address).read_bytes("results.json") == runner.expected


@pytest.mark.parametrize("what", ["no bucket", "no credentials", "no server", "a file"])
def test_what_cannot_work_at_s3_is_one_line(bucket, tmp_path, monkeypatch, capsys, count, what):
    address, words = f"{BUCKET}/run", "cannot"
    if what == "no bucket":
        address, words = "s3://nowhere/run", "bucket does not exist"
    elif what == "a file":
        bucket.pipe_file("bucket/file.txt", b"mine")
        address, words = f"{BUCKET}/file.txt", "is a file, not a folder"
    elif what == "no server":
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    else:
        for name in [name for name in os.environ if name.startswith("AWS_") and "KEY" in name]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("HOME", str(tmp_path))
        words = "check the address, your credentials"
    write_coco(tmp_path / "toy", 1)
    capsys.readouterr()
    type(bucket).clear_instance_cache()
    assert (
        main(["-q", "run", str(write_benchmark(tmp_path / "toy")), "--model", "text-only", "-o", address])
        == 2
    )
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert error.startswith(f"error: {address}: "), error
    assert words in error
    assert "hidden" not in error
    count("S3 that cannot be used")
