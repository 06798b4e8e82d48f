"""Archives that overlap each other or Resight's own folders are rejected; neighbours are accepted."""

from __future__ import annotations

import pytest

from archive.catalogue.roots import contains, require_apart, require_foreign
from model_store.errors import BadRequest


@pytest.mark.parametrize(
    ("outer", "inner", "does"),
    [
        ("/data", "/data/deer", True),
        ("/data", "/data", True),
        ("/", "/data", True),
        ("/data/deer", "/data", False),
        ("/data/deer", "/data/deer2", False),
        ("/data", "/data/.cache/deer", False),  # hidden folders are not listed
        ("s3://b", "s3://b/a", True),
        ("s3://b/a", "s3://b/a/c", True),
        ("s3://b/a", "s3://b/ab", False),
        ("s3://b/a", "/b/a/c", False),
    ],
)
def test_a_place_contains_what_its_listing_enters(outer: str, inner: str, does: bool) -> None:
    assert contains(outer, inner) is does


def test_archives_that_overlap_are_refused_with_the_way_out() -> None:
    require_apart("/data/deer", ["/data/deer", "/data/deer2", "s3://data/deer"])
    with pytest.raises(BadRequest, match=r"/data contains the archive /data/my deer,") as above:
        require_apart("/data", ["/data/my deer"])
    assert "'resight ingest --retire '/data/my deer''" in str(above.value)
    with pytest.raises(BadRequest, match=r"/data/deer is inside the archive /data,.*--retire /data"):
        require_apart("/data/deer", ["/other", "/data"])


@pytest.mark.parametrize("url", ["/srv/home", "/srv/", "/srv/home/tables", "/srv/home/snips/x", "/srv/uploads/north"])
def test_what_resight_keeps_is_no_archive(url: str) -> None:
    with pytest.raises(BadRequest, match=r"keeps its own files in /srv"):
        require_foreign(url, "/srv/home", _places(), "/srv/uploads")


@pytest.mark.parametrize("url", ["/srv/home/sample", "/srv/uploads", "/srv/deer", "s3://srv"])
def test_folders_beside_it_and_the_folder_of_uploads_are(url: str) -> None:
    require_foreign(url, "/srv/home", _places(), "/srv/uploads")


def test_a_hidden_home_may_lie_in_an_archive() -> None:
    require_foreign("/home/ann", "/home/ann/.resight", [], "/home/ann/.resight/uploads")


def _places() -> list[str]:
    return [f"/srv/home/{name}" for name in ("models", "tables", "snips")]
