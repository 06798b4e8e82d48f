"""Test the images of a scope, against plain Python over the same rows."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from archive.delta.tables import Tables
from archive.schemas import MEDIA
from archive.views.views import View, Views
from batch.planning.id_list import keep_ids, name_ids, read_ids
from batch.planning.passes import DetectPass
from batch.planning.plan import plan_pass
from batch.runs.scope import Scope
from model_store.errors import BadRequest
from model_store.store import ModelVersion
from tests.fixtures_local import put_results, result_rows

THRESHOLDS = {"cat": 0.5}
OTHERS = 0.25


@dataclass(frozen=True)
class File:
    """A row of `media` with the detections shown of its content, and the status of motion@1."""

    name: str
    path: str
    camera: str | None
    taken: str | None
    boxes: tuple[tuple[str, float], ...] = ()
    status: str | None = None
    broken_clock: bool = False
    gone: bool = False

    @property
    def sha(self) -> str:
        return self.name.encode().hex().rjust(64, "0")


CAT, DOG = ("cat", 0.9), ("dog", 0.5)
FILES = (
    File("a", "north/2026-05/a.jpg", "north", "2026-05-14T06:00:00", (CAT,), "ok"),
    File("b", "north/2026-05/b.jpg", "north", "2026-05-14T06:00:00.250000", (CAT, DOG), "failed"),
    File("c", "north/2026-06/c.jpg", "north", "2026-06-01T00:00:00", (("cat", 0.25),)),
    File("d", "o'south/d'e [1].jpg", "o'south", None, (("dog", 0.25),), "failed"),
    File("e", "o'south/e.jpg", "o'south", "2026-05-20T23:00:00", (("dog", 0.125),), "empty"),
    File("f", "o'south/f.jpg", "o'south", "2036-01-01T00:00:00", (DOG,), None, broken_clock=True),
    File("g", "o'south/g.jpg", "o'south", "2026-05-21T00:00:00", (DOG,), None, gone=True),
    File("h", "loose/h.jpg", None, "2026-05-01T12:00:00", (("cat", 0.5),), "failed"),
    File("i", "loose/i.jpg", None, "2026-05-01T12:00:00", (), "ok"),
    File("a", "copies/a.jpg", "west", "2026-04-01T00:00:00", (CAT,), "ok"),
    File("j", "west/j.jpg", "west", None, (), None, broken_clock=True),
)


def shown(file: File, scope: Scope) -> bool:
    return any(
        score >= max(THRESHOLDS.get(label, OTHERS), scope.min_score or 0)
        and (scope.max_score is None or score < scope.max_score)
        and scope.label in (None, label)
        for label, score in file.boxes
    )


def matches(file: File, scope: Scope, listed: str) -> bool:
    """Return whether a file matches every field except status, latest and sample, in plain Python."""
    taken = file.taken and datetime.fromisoformat(file.taken)
    if scope.camera and file.camera not in scope.camera:
        return False
    if scope.since and not (taken and taken >= scope.since):
        return False
    if scope.until and not (taken and taken < scope.until):
        return False
    if scope.folder and not f"/a/{file.path}".startswith(f"{scope.folder}/"):
        return False
    if scope.path and not fnmatchcase(file.path, scope.path):
        return False
    if {scope.label, scope.min_score, scope.max_score} != {None} and not shown(file, scope):
        return False
    return not (file.gone or (scope.ids and file.name not in listed))


def newest(files: Iterable[File]) -> list[File]:
    def rank(file: File) -> tuple[bool, bool, str, str]:
        return (not file.broken_clock, file.taken is not None, file.taken or "", file.path)

    cameras = {file.camera: [one for one in files if one.camera == file.camera] for file in files}
    return [max(some, key=rank) for some in cameras.values()]


def oracle(scope: Scope, listed: str = "") -> set[str] | None:
    """Return the digests before a sample is drawn; None if no file matches the fields."""
    files = [file for file in FILES if matches(file, scope, listed)]
    if not files:
        return None
    if scope.status:
        status = None if scope.status == "missing" else "failed"
        files = [file for file in files if file.status == status]
    return {file.sha for file in (newest(files) if scope.latest_per_camera else files)}


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory, motion: ModelVersion) -> Tables:
    """Return tables that tests must not change."""
    tables = Tables(str(tmp_path_factory.mktemp("select") / "tables"))
    rows = [
        {
            "media_sha256": file.sha,
            "source_root": "/a",
            "path": file.path,
            "camera_id": file.camera,
            "captured_at_local": file.taken,
            "timestamp_flags": ["after_now"] if file.broken_clock else [],
            "missing_since": datetime.now(UTC) if file.gone else None,
        }
        for file in FILES
    ]
    media = pa.Table.from_pylist(rows, schema=MEDIA)
    tables.append("media", media, "test", lambda _, wanted: wanted)
    results = [result_rows([sha("a")], key="other", detections=[box("fox", 1.0)])]
    for file in {file.sha: file for file in FILES}.values():
        boxes = [box(*one) for one in file.boxes]
        results.append(result_rows([file.sha], "k", "ok" if boxes else "empty", detections=boxes))
        if file.status:
            key = motion.info.inference_key
            results.append(result_rows([file.sha], key, file.status, error_code="decode"))
    put_results(tables, pa.concat_tables(results))
    fields = {"inference_key": "k", "model_name": "m", "model_version": "1", "weights_sha256": "w"}
    limits = {"threshold": OTHERS, "label_thresholds": THRESHOLDS}
    Views(tables.url).publish(View.model_validate(fields | limits), after=0)
    return tables


def sha(name: str) -> str:
    return name.encode().hex().rjust(64, "0")


def box(label: str, score: float) -> dict[str, Any]:
    return {"rank": 0, "label": label, "score": score}


def listed(folder: Path, *names: str) -> str:
    file = folder / "list.txt"
    file.write_text("\n".join(names))
    return name_ids(file)


def requested(tables: Tables, motion: ModelVersion, scope: Scope) -> set[str] | None:
    try:
        plan = plan_pass(tables, DetectPass(motion), scope, read_only=True)
    except BadRequest as error:
        assert "no image matches" in str(error)  # noqa: PT017
        return None
    found = set(plan.requested_ids().to_pylist())
    assert len(found) == plan.requested
    return found


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({}, "abcdefhij"),
        ({"camera": ["north"]}, "abc"),
        ({"camera": ["o'south", "west"]}, "adefj"),
        ({"since": "2026-05-14T06:00:00.1"}, "bcef"),
        ({"until": "2026-06-01T00:00:00.000001"}, "abcehi"),
        ({"since": "2026-05-14", "until": "2026-05-14"}, "ab"),
        ({"since": "2026-05-14T06:00", "until": "2026-05-14T06:00:00.25"}, "a"),
        ({"folder": "/a/north/../o'south/"}, "def"),
        ({"folder": "/a/nor"}, None),
        ({"folder": "/a/north/2026-05", "camera": ["north"]}, "ab"),
        ({"path": "north/2026-05/?.jpg"}, "ab"),
        ({"path": "*[[]1].jpg"}, "d"),
        ({"label": "dog"}, "bdf"),
        ({"label": "cat", "min_score": 0.5, "max_score": 0.9}, "h"),
        ({"max_score": 0.5}, "d"),
        ({"status": "failed"}, "bdh"),
        ({"status": "missing"}, "cfj"),
        ({"ids": "abi"}, "abi"),
        ({"latest_per_camera": True}, "acei"),
        # the newest of what is left, not what is left of the newest:
        ({"latest_per_camera": True, "label": "cat"}, "abh"),
        ({"latest_per_camera": True, "status": "failed"}, "bdh"),
        ({"ids": "bdc", "camera": ["north"]}, "bc"),
        ({"label": "dog", "status": "missing"}, "f"),
        ({"camera": ["north"], "path": "copies/*"}, None),
    ],
)
def test_each_field_narrows_and_fields_combine(
    tables: Tables, motion: ModelVersion, tmp_path: Path, fields: dict[str, Any], names: str | None
) -> None:
    names_listed = fields.get("ids", "")
    if names_listed:
        fields = fields | {"ids": listed(tmp_path, *map(sha, names_listed))}
    scope = Scope.model_validate(fields)
    digests = names and {sha(name) for name in names}
    assert oracle(scope, names_listed) == digests
    assert requested(tables, motion, scope) == digests


SCOPES = st.fixed_dictionaries(
    {},
    optional={
        "camera": st.sets(st.sampled_from(["north", "o'south", "west"]), min_size=1).map(tuple),
        "since": st.sampled_from([f.taken for f in FILES if f.taken]),
        "until": st.sampled_from(["2026-05-14T06:00:00.250000", "2026-06-01", "2040-01-01"]),
        "folder": st.sampled_from(["/a", "/a/north", "/a/o'south", "/a/north/2026-06"]),
        "path": st.sampled_from(["*", "north/*", "*/?.jpg", "*'*", "loose/*", "copies/*"]),
        "label": st.sampled_from(["cat", "dog", "elk"]),
        "min_score": st.sampled_from([0.0, 0.25, 0.5]),
        "max_score": st.sampled_from([0.75, 1.0]),
        "status": st.sampled_from(["failed", "missing"]),
        "listed": st.sets(st.sampled_from("abcdefhij"), min_size=1),
        "latest_per_camera": st.booleans(),
        "sample": st.integers(1, 5),
    },
)


@given(fields=SCOPES)
@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_combination_is_what_plain_python_finds(
    tables: Tables, motion: ModelVersion, tmp_path: Path, fields: dict[str, Any]
) -> None:
    names = "".join(sorted(fields.pop("listed", "")))
    if names:
        fields["ids"] = listed(tmp_path, *map(sha, names))
    try:
        scope = Scope.model_validate(fields)
    except ValidationError as error:
        assert "is not before until" in str(error)  # noqa: PT017
        return
    wanted, found = oracle(scope, names), requested(tables, motion, scope)
    if scope.sample and wanted is not None:
        assert found is not None
        assert (found <= wanted, len(found)) == (True, min(scope.sample, len(wanted)))
        found = requested(tables, motion, scope.model_copy(update={"sample": None}))
    assert found == wanted


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"camera": ["nort"]}, "unknown camera 'nort'; did you mean 'north'?"),
        ({"camera": ["north", "x"]}, "unknown camera 'x'; available: north, o'south, west"),
        ({"path": "/a/north/*"}, "no image matches path /a/north/*; paths are relative to their archive"),
        ({"folder": "/b"}, "no image matches folder /b; catalogued archives: /a; 'resight ingest'"),
        ({"since": "2037-01-01"}, "since 2037-01-01; images were taken from 2026-04-01T00:00:00 to"),
        ({"label": "cta"}, "no image matches label cta; did you mean 'cat'?"),
        ({"label": "fox"}, "no image matches label fox; available: cat, dog"),
        ({"label": "dog", "min_score": 0.75}, "min score 0.75; the best score of that label is 0.5"),
        (
            {"camera": ["north"], "path": "copies/*", "label": "cat"},
            "no image matches all of camera north (files: 3), path copies/* (files: 1), label cat (f",
        ),
    ],
)
def test_a_scope_of_no_image_names_the_field_and_what_there_is(
    tables: Tables, motion: ModelVersion, fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(BadRequest) as refused:
        plan_pass(tables, DetectPass(motion), Scope.model_validate(fields), read_only=True)
    assert words in str(refused.value)


def test_labels_need_a_published_view(tmp_path: Path, tables: Tables, motion: ModelVersion) -> None:
    bare = Path(shutil.copytree(tables.url, tmp_path / "tables"))
    shutil.rmtree(bare / "views")
    with pytest.raises(BadRequest, match="nothing is published"):
        plan_pass(Tables(str(bare)), DetectPass(motion), Scope(label="cat"))


def test_a_list_may_have_capitals_blank_lines_and_repeats(tmp_path: Path) -> None:
    name = listed(tmp_path, sha("c"), sha("o").upper(), "", sha("c"))
    assert name == listed(tmp_path, sha("o"), sha("c"))


def test_a_list_that_names_others_is_a_mistake(tables: Tables, motion: ModelVersion, tmp_path: Path) -> None:
    scope = Scope(ids=listed(tmp_path, sha("a"), "f" * 64))
    with pytest.raises(BadRequest, match="1 of 2 listed images are not in the catalogue.*ffff"):
        plan_pass(tables, DetectPass(motion), scope)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no line"),
        ("media_sha256\n", "has no line"),
        ("a" * 64 + "\nxyz\n", "line 2: 'xyz' is not a sha256"),
        ("a" * 63, "line 1"),
    ],
)
def test_a_list_that_is_none_names_the_line(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "list"
    file.write_text(text)
    with pytest.raises(BadRequest, match=words):
        name_ids(file)


def test_other_processes_find_a_list_that_is_kept(tmp_path: Path, monkeypatch: Any) -> None:
    file, url = tmp_path / "list", str(tmp_path / "tables")
    file.write_text("\ufeffmedia_sha256\n" + "b" * 64 + "\n" + "a" * 64)
    name = name_ids(file)
    for _ in range(2):
        keep_ids(url, name)
    monkeypatch.setattr("batch.planning.id_list._named", {})
    keep_ids(url, name)
    assert read_ids(url, name).to_pylist() == ["a" * 64, "b" * 64]
    with pytest.raises(BadRequest, match="no list of images other"):
        read_ids(url, "other")


def test_windows_are_all_there_is_in_pieces(tables: Tables, motion: ModelVersion) -> None:
    for images, sizes in ((1, [1, 1, 1]), (2, [2, 1]), (3, [3]), (9, [3])):
        plan = plan_pass(tables, DetectPass(motion), Scope(status="missing"), read_only=True)
        assert [len(window) for window in plan.windows(images)] == sizes
        assert len(plan.some(2)) == 2
