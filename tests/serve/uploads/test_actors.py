"""The bounds of the actors that the manual states; the rest needs a cluster (tests/cluster)."""

from __future__ import annotations

from pathlib import Path

from serve.uploads.actors import ANSWER_S
from serve.uploads.recorder import FIND_S, MAX_SEARCHES


def test_the_manual_has_the_limits_of_a_page_of_images() -> None:
    manual = (Path(__file__).parents[3] / "docs" / "reference" / "uploads.md").read_text()
    assert f"A page has {FIND_S:g} s" in manual
    assert f"has not answered for {ANSWER_S:g} s" in manual
    assert f"{MAX_SEARCHES} searches of the cluster are running" in manual
