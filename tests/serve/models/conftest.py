"""The fixture of tests over a shelf of models."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.serve.models.shelf import Shelf, stocked


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return stocked(tmp_path)
