"""The index of vectors against cosines by numpy, and when it is not used: stale, damaged, of others, without FAISS."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from archive.delta.tables import Tables
from archive.views import similar, vector_index
from archive.views.similar import SimilarOptions, SimilarPage, SimilarSearch, find_similar, rebuild_index
from archive.views.vector_index import IndexedVectors, build
from archive.views.views import View, Views
from model_store.errors import BadRequest, StorageError
from tests.archive.named_animals import EMBEDDER, KEY, named_animals
from tests.fixtures_local import put_rows

IMAGES, SIZE, CLUSTERS = 1500, 16, 60


def drawn() -> np.ndarray:
    """Return (images, size) vectors of length 1 in 16 bits, in clusters."""
    draw = np.random.default_rng(7)
    centres = draw.standard_normal((CLUSTERS, SIZE))
    vectors = centres[draw.integers(0, CLUSTERS, IMAGES)] + 0.9 * draw.standard_normal((IMAGES, SIZE))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16).astype(np.float32)


VECTORS = drawn()


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    return named_animals(tmp_path_factory.mktemp("indexed") / "tables", VECTORS, ["north"] * IMAGES)


@pytest.fixture(scope="module")
def folder(archive: Tables, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the index of the archive."""
    folder = tmp_path_factory.mktemp("vectors")
    assert len(build(archive, IndexedVectors(KEY, EMBEDDER), folder)) == IMAGES
    return folder


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similar, "INDEXED_FROM", 1000)


def found(tables: Tables, folder: Path | str, image: int = 3, **more: Any) -> SimilarPage:
    return find_similar(tables, SimilarSearch(detection=f"{image:064x}-0", folder=str(folder), **more), 60.0)


def images(page: SimilarPage) -> list[int]:
    return [int(row["media_sha256"], 16) for row in page.detections]


def test_an_index_finds_nearly_all_neighbours_with_their_cosines(archive: Tables, folder: Path) -> None:
    right = 0
    for image in range(0, IMAGES, 150):
        page, cosines = found(archive, folder, image, limit=10), VECTORS @ VECTORS[image]
        cosines[image] = -1
        assert (page.is_exact, page.note) == (False, "")
        assert [row["cosine"] for row in page.detections] == pytest.approx(cosines[images(page)].tolist(), abs=1e-5)
        right += len(set(images(page)) & set(np.argsort(-cosines)[:10].tolist()))
    assert right >= 90


def test_exact_searches_and_small_archives_use_none(
    archive: Tables, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cosines = VECTORS @ VECTORS[3]
    expected = [n for n in np.argsort(-cosines).tolist() if n != 3][:20]
    for more in ({"exact": True}, {}):
        page = found(archive, folder, **more)
        assert (page.is_exact, page.note) == (bool(more), "")
        if more:
            assert images(page) == expected
    monkeypatch.setattr(similar, "INDEXED_FROM", IMAGES + 1)
    page = found(archive, folder)
    assert (page.is_exact, page.note, images(page)) == (True, "", expected)
    with pytest.raises(BadRequest, match=f"{IMAGES} vectors need no index: below {IMAGES + 1}, searches are exact"):
        rebuild_index(archive, SimilarOptions(), folder)


def test_too_few_shown_neighbours_lead_to_an_exact_search(archive: Tables, folder: Path) -> None:
    page = found(archive, folder, limit=1000)
    assert page.is_exact
    assert page.note == "the index found too few that the view shows"
    assert images(page) == [n for n in np.argsort(-(VECTORS @ VECTORS[3])).tolist() if n != 3][:1000]


def test_a_stale_index_is_passed_by_until_it_is_made_again(tmp_path: Path) -> None:
    tables, folder = named_animals(tmp_path / "tables", VECTORS, ["north"] * IMAGES), tmp_path / "vectors"
    page = found(tables, folder)
    assert page.is_exact
    assert page.note.startswith(f"all {IMAGES} vectors were compared, which is slow: no index of them is in {folder}")
    rebuild_index(tables, SimilarOptions(), folder)
    assert not found(tables, folder).is_exact
    same = {"inference_key": KEY, "embedder_key": EMBEDDER, "margin_frac": 0.0, "status": "ok", "rank": 0}
    same |= {"model_name": "looks", "model_version": "1", "finished_at": datetime.now(UTC)}
    put_rows(tables, "embeddings", same | {"media_sha256": f"{9999:064x}", "vector": VECTORS[3].tolist()})
    page = found(tables, folder)
    assert page.is_exact
    assert "the index is older than the table; make it with resight similar --rebuild" in page.note
    _, index = rebuild_index(tables, SimilarOptions(), folder)
    assert not found(tables, folder).is_exact
    assert len(index) == IMAGES + 1
    assert [each.name for each in index.place.parent.glob("[0-9a-f]*")] == [index.place.name]
    (index.place / "lists.faiss").write_bytes((index.place / "lists.faiss").read_bytes()[:-9000])
    page = found(tables, folder)
    assert page.is_exact
    assert "cannot be read" in page.note


def test_vectors_of_another_key_have_an_index_of_their_own(tmp_path: Path, folder: Path) -> None:
    tables = named_animals(tmp_path / "tables", VECTORS, ["north"] * IMAGES)
    assert found(tables, folder).is_exact  # the tables of `archive` have other files
    view = View(inference_key="j" * 64, model_name="m", model_version="1", weights_sha256="w", name="trial")
    Views(tables.url).publish(view, after=0)
    with pytest.raises(BadRequest, match="no embeddings for inference key"):
        rebuild_index(tables, SimilarOptions(view="trial"), folder)
    with pytest.raises(BadRequest, match="no vectors to index"):
        build(tables, IndexedVectors("j" * 64, EMBEDDER), tmp_path / "vectors")
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write an index to .*/file/"):
        build(tables, IndexedVectors(KEY, EMBEDDER), tmp_path / "file")


def test_without_faiss_or_memory_the_way_out_is_named(
    archive: Tables, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector_index, "usable_memory_bytes", lambda: IMAGES * SIZE * 4 - 2)
    with pytest.raises(BadRequest, match="needs 0 MiB, more than half of the machine's memory"):
        rebuild_index(archive, SimilarOptions(), folder)
    monkeypatch.setitem(sys.modules, "faiss", None)
    page = found(archive, folder)
    assert page.is_exact
    assert "which is slow: an index needs FAISS: pip install 'resight[index]'" in page.note
    with pytest.raises(BadRequest, match="an index needs FAISS"):
        rebuild_index(archive, SimilarOptions(), folder)
