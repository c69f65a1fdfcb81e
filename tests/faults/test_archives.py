"""Archives of images, torn at every byte that a write may have come to."""

from __future__ import annotations

import os

import pytest

from tests.instbench.runs.test_archives import filled, tear

pytestmark = pytest.mark.faults


def test_torn_at_every_byte_of_the_last_record(tmp_path, monkeypatch, count):
    filled(tmp_path / "whole")
    whole = (tmp_path / "whole" / "images-00000.tar").read_bytes()
    (tmp_path / "torn").mkdir()
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    for _ in range(tear(tmp_path / "torn", whole, 1)):
        count("torn archives")
