"""A fixture: an empty folder on a disk, or in memory at an fsspec URL."""

import uuid
from pathlib import Path

import pytest

from model_store.storage import Folder


@pytest.fixture(params=["local", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    return Folder(str(tmp_path) if request.param == "local" else f"memory://{uuid.uuid4()}")
