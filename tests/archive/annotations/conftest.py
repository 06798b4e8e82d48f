"""Fixtures: the two images of `statements.py`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from archive.delta.tables import Tables
from tests.archive.annotations.statements import put_pair


@pytest.fixture(scope="session")
def pair_untouched(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    tables = Tables(str(tmp_path_factory.mktemp("pair") / "tables"))
    put_pair(tables)
    return tables


@pytest.fixture
def pair(pair_untouched: Tables, tmp_path: Path) -> Tables:
    """Return a copy of them, for this test alone."""
    return Tables(str(shutil.copytree(pair_untouched.url, tmp_path / "tables")))
