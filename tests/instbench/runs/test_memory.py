from __future__ import annotations

import json
from types import SimpleNamespace

import torch

from instbench import api
from instbench.execution.session import Session
from instbench.runs import memory
from instbench.runs.memory import free_memory, largest_memory, measure_memory
from instbench.runs.records import DeviceMemoryRecord, MemoryRecord, RunRecord
from instbench.runs.store import RunFolder
from tests.instbench.fakes import write_benchmark

GIB = 2**30


def test_peaks_of_earlier_calls_are_kept():
    now = measure_memory()
    assert 10 * 2**20 < now.peak_rss_bytes < 2**50
    later = measure_memory(MemoryRecord(peak_rss_bytes=2**50, images_per_call=3))
    assert later.peak_rss_bytes == 2**50
    assert later.images_per_call == 3
    assert largest_memory([]) is None


def test_gpus_are_measured_where_torch_uses_them(monkeypatch):
    cuda = SimpleNamespace(
        device_count=lambda: 2,
        memory_allocated=lambda index: GIB,
        max_memory_allocated=lambda index: [3 * GIB, 0][index],
        max_memory_reserved=lambda index: [4 * GIB, 0][index],
        memory_reserved=lambda index: 2 * GIB,
        mem_get_info=lambda index: (5 * GIB, 16 * GIB),
        get_device_name=lambda index: "Some GPU",
    )
    monkeypatch.setattr(memory, "_cuda", lambda: cuda)
    assert memory.device_memory() == [memory.DeviceMemory(GIB, 3 * GIB, 7 * GIB)]
    known = DeviceMemoryRecord(name="Some GPU", peak_allocated_bytes=9 * GIB, peak_reserved_bytes=1)
    record = measure_memory(MemoryRecord(devices={"cuda:0": known}))
    assert record.devices == {
        "cuda:0": DeviceMemoryRecord(
            name="Some GPU", peak_allocated_bytes=9 * GIB, peak_reserved_bytes=4 * GIB
        )
    }


def test_free_memory_obeys_the_control_group(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    whole = free_memory()
    assert whole > 0
    (tmp_path / "memory.current").write_text("600\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory() > 1000
    (tmp_path / "memory.max").write_text("1000\n")
    assert free_memory() == 400


def test_a_run_records_its_memory_and_batches(tmp_path, fakes):
    class Hungry(type(fakes.generator)):
        def generate(self, requests):
            if len(requests) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return super().generate(requests)

    fakes.generator = Hungry()
    toy = str(write_benchmark(tmp_path))
    api.run(toy, tmp_path / "run", model="fake", session=Session(batch_size=5))
    record = RunFolder(tmp_path / "run").read_run()
    assert record.memory is not None
    assert record.memory.images_per_call == 2
    assert record.memory.peak_rss_bytes > 0
    assert sorted(fakes.generator.made) == sorted(RunFolder(tmp_path / "run").read_image_log())


def test_files_of_earlier_versions_are_read(tmp_path, fakes):
    toy = str(write_benchmark(tmp_path))
    api.run(toy, tmp_path / "run", model="fake")
    path = tmp_path / "run" / "run.json"
    old = json.loads(path.read_text())
    del old["memory"]
    path.write_text(json.dumps(old))
    assert RunFolder(tmp_path / "run").read_run().memory is None
    api.run(toy, tmp_path / "run", model="fake")
    assert RunFolder(tmp_path / "run").read_run().memory is not None
    assert "memory" in RunRecord.model_json_schema()["properties"]
