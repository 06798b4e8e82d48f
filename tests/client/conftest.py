from __future__ import annotations

from pathlib import Path

import pytest

from tests.client.shelf import Station


@pytest.fixture
def station(tmp_path: Path) -> Station:
    """A card with three pictures."""
    station = Station(tmp_path)
    for name in ("a.jpg", "b.JPG", "DCIM/100/c.jpeg"):
        station.put(name)
    return station
