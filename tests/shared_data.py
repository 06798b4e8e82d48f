"""Where tests find real pictures and weights; what is not in the repository is skipped."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PHOTOS = sorted((ROOT / "examples" / "photos").glob("*.jpg"))
MODELS = ROOT / "examples" / "models"
SHARED = ROOT.parent / "shared" / "data"
SHIPPED = {"models/ssdlite_coco_300.yolov8-layout.fp16.onnx": MODELS / "ssdlite-coco" / "1" / "model.onnx"}
"""Files of `../shared/data` that are also in the repository, byte for byte."""


def photo(name: str) -> bytes:
    """One of the five photographs that are always there, e.g. "cat"."""
    return (ROOT / "examples" / "photos" / f"{name}.jpg").read_bytes()


def shared(relative: str, *twins: str) -> Path:
    """A file of `../shared/data`, or its copy in the repository; without either the test is skipped.

    `twins` name the tests that assert the same without it: "test_name", or "test_name[generated" for the generated
    cases of a test; `tests/test_twins.py` checks that they exist.
    """
    path = SHIPPED.get(relative, SHARED / relative)
    if not path.exists():
        pytest.skip(f"no {path}")
    return path
