from __future__ import annotations

import pytest

from instbench.devices import resolve_device
from instbench.errors import InputError


def test_auto_is_a_device_that_is_there():
    assert resolve_device("auto").type in {"cpu", "cuda"}
    assert resolve_device("auto", mps=True).type in {"cpu", "cuda", "mps"}
    assert resolve_device("cpu").type == "cpu"


@pytest.mark.parametrize(("device", "message"), [("gpu9", "unknown"), ("cuda:99", "no such device here")])
def test_what_is_not_there_is_named(device, message):
    with pytest.raises(InputError, match=f"--device {device}: .*{message}"):
        resolve_device(device)
