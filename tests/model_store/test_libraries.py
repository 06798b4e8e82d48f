"""Versions of the libraries that affect results, and two builds of one module."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest

from model_store import libraries
from model_store.errors import ModelRefused
from model_store.load import load_model
from model_store.names import VersionId
from model_store.store import ModelStore

MODELS = Path(__file__).resolve().parents[2] / "examples" / "models"


def test_versions_are_those_of_the_environment() -> None:
    found = libraries.library_versions()
    assert {"numpy", "opencv-python-headless", "pillow", "simplejpeg", "onnxruntime"} <= set(found)
    assert found == {name: version(name) for name in found}
    assert libraries.installed_version("no-such-package") == ""


@pytest.mark.parametrize("second", ["opencv-python", "onnxruntime-gpu"])
def test_two_builds_of_one_module_are_refused(monkeypatch: pytest.MonkeyPatch, second: str) -> None:
    found = libraries.library_versions() | {second: "9.9"}
    monkeypatch.setattr(libraries, "library_versions", lambda: found)
    libraries.require_single_builds.cache_clear()
    try:
        with pytest.raises(ModelRefused, match=f"{second} are installed over each other"):
            load_model(ModelStore(str(MODELS)), VersionId("ssdlite-coco", "1"))
    finally:
        libraries.require_single_builds.cache_clear()
