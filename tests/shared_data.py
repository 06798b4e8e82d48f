"""Where tests find real pictures and weights; what is not in the repository is skipped."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PHOTOS = sorted((ROOT / "examples" / "photos").glob("*.jpg"))
MODELS = ROOT / "examples" / "models"
SHARED = ROOT.parent / "shared" / "data"


def photo(name: str) -> bytes:
    """One of the five photographs that are always there, e.g. "cat"."""
    return (ROOT / "examples" / "photos" / f"{name}.jpg").read_bytes()


def shared(relative: str) -> Path:
    """A file beside the repository, in `../shared/data`; without it the test is skipped."""
    path = SHARED / relative
    if not path.exists():
        pytest.skip(f"no {path}")
    return path
