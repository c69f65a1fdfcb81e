"""Importing ultralytics must leave the rest of the process alone."""

import subprocess
import sys

SCRIPT = """
import cv2, torch
from PIL import Image, UnidentifiedImageError
before = (Image.open, torch.save, cv2.imread, cv2.imwrite, cv2.imshow)
from instbench.evaluators import load_detector
load_detector("shapes-yolo", device="cpu")
assert "ultralytics.utils" in __import__("sys").modules
assert before == (Image.open, torch.save, cv2.imread, cv2.imwrite, cv2.imshow)
import io
try:
    Image.open(io.BytesIO(b"no picture"))
except UnidentifiedImageError:
    print("refused as before")
"""


def test_loading_a_detector_patches_nothing():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "refused as before", done.stderr[-2000:]
