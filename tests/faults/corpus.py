"""Hostile files, made when they are needed: none lies in the repository."""

from __future__ import annotations

import io
import json
import os
import pickle
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image


class _Gadget:
    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def gadgets(sentinel: Path) -> dict[str, bytes]:
    """Pickles that make the sentinel file if anything in them runs."""
    command = f"touch {sentinel}"
    code = f"open({str(sentinel)!r}, 'w').close()"
    return {
        "system": pickle.dumps(_Gadget(os.system, command)),
        "exec": pickle.dumps({"state_dict": {"w": _Gadget(exec, code)}}),
        "eval-protocol-0": pickle.dumps([_Gadget(eval, code)], protocol=0),
        "open": pickle.dumps(_Gadget(open, str(sentinel), "w")),
        "getattr": pickle.dumps({"model": _Gadget(getattr, Path(sentinel), "touch")}),
    }


def torch_archive(content: bytes) -> bytes:
    """The zip form of `torch.save` around a pickle."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/version", "3\n")
    return stream.getvalue()


def archives() -> dict[str, bytes]:
    """Archives for the data fetcher, each of which would write outside or without end."""
    made = {}
    for name, member in {
        "slip": "../../escaped.json",
        "absolute": "/tmp/escaped.json",
        "backslash": "..\\escaped.json",
        "drive": "C:/escaped.json",
    }.items():
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("annotations/instances.json", "{}")
            archive.writestr(member, "{}")
        made[name] = stream.getvalue()
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        link = zipfile.ZipInfo("annotations/instances.json")
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    made["zip-symlink"] = stream.getvalue()
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("annotations/instances.json", bytes(50_000_000))
    made["zip-bomb"] = stream.getvalue()
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        info = tarfile.TarInfo("annotations/instances.json")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    made["tar-symlink"] = stream.getvalue()
    return made


def _png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def pictures() -> dict[str, bytes]:
    """Images that are none, not whole, or too large when decoded."""
    stream = io.BytesIO()
    Image.effect_noise((48, 48), 60).convert("RGB").save(stream, format="PNG")
    whole = stream.getvalue()
    return {
        "truncated": whole[: len(whole) // 2],
        "bomb": _png(60_000, 60_000),
        "huge": _png(2**31 - 1, 2**31 - 1),
        "empty": b"",
        "text": b"<svg onload=alert(1)>",
        "program": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 48 48\n(/etc/passwd) (r) file pop\nshowpage\n",
    }


def benchmark_files(sentinel: Path) -> dict[str, str]:
    """Benchmark files with tags, depth and values that YAML would make much of."""
    laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
    )
    return {
        "tag": f"name: !!python/object/apply:os.system ['touch {sentinel}']\n",
        "new": f"!!python/object/new:os.system ['touch {sentinel}']\n",
        "module": "name: !!python/module:os\n",
        "deep": "[" * 5000,
        "digits": "version: " + "9" * 6000 + "\n",
        "date": "version: 2020-99-99\n",
        "laughs": laughs,
        "binary": "name: !!binary '####'\n",
    }


def json_files() -> dict[str, str]:
    """JSON that is too deep or too large for a careless reader."""
    return {
        "deep": "[" * 100_000,
        "deep-object": '{"a":' * 100_000,
        "digits": '{"images": ' + "9" * 6000 + "}",
        "nothing": "",
        "half": '{"images": [{"id": 1,',
    }


def instances(**changes: Any) -> dict[str, Any]:
    """A small COCO file; `changes` go into its one annotation."""
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 20, 20], "area": 400, "iscrowd": 0}
    annotation["segmentation"] = [[1, 1, 21, 1, 21, 21, 1, 21]]
    return {
        "images": [{"id": 1, "file_name": "1.png", "width": 48, "height": 48}],
        "annotations": [annotation | changes],
        "categories": [{"id": 1, "name": "cat"}],
    }


def hostile_instances() -> dict[str, str]:
    """Annotation files with huge masks or names that are paths."""
    side = 10**9
    masks = {
        "huge-size": {"size": [side, side], "counts": [side * side]},
        "huge-counts": {"size": [48, 48], "counts": [10**18]},
        "long-string": {"size": [48, 48], "counts": "~" * 100_000},
        "negative": {"size": [48, 48], "counts": [-5, 2309]},
    }
    files = {name: instances(segmentation=mask, iscrowd=1) for name, mask in masks.items()}
    for name, path in {
        "parent": "../../../etc/passwd",
        "absolute": "/etc/passwd",
        "hidden-end": "1.png\x00.txt",
    }.items():
        files[name] = instances()
        files[name]["images"][0]["file_name"] = path
    return {name: json.dumps(content) for name, content in files.items()}
