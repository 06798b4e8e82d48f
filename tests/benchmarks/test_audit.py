"""The audit of a chaos run finds each kind of fraud in books and tables that are otherwise right."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.endurance.audit import Stored, allowed, audit, of_view, read
from benchmarks.endurance.books import Books, digest_of_answer, digest_of_row, picture_of

CORNERS = {"x1_px": 1.5, "y1_px": 2.0, "x2_px": 3.0, "y2_px": 4.1}
BOX = {"rank": 0, "label": "cat", "score": 0.9, **CORNERS}
FAINT = BOX | {"rank": 1, "score": 0.2}
TRUE = {"k1": [BOX, FAINT], "k2": [BOX]}
VERSIONS = {"k1": "1", "k2": "2"}
Entry = dict[str, Any]
Fraud = Callable[[list[Entry], Stored], Stored]


def entry(kind: str, at: float, **fields: Any) -> Entry:
    return {"kind": kind, "at": at, **fields}


def upload(at: float, sha: str, key: str, recorded: bool) -> Entry:
    media = {"media_sha256": sha, "source_root": "/u", "path": f"north/{sha}.jpg"}
    facts = {"sent": at - 1, "done": at, "version": VERSIONS[key], "key": key, "digest": digest_of_row(TRUE[key])}
    return entry("upload", at, photo="cat", recorded=recorded, **media, **facts)


def result(sha: str, key: str) -> Entry:
    return {"inference_key": key, "media_sha256": sha, "status": "ok", "detections": deepcopy(TRUE[key])}


def statement(number: int, batch: str | None, **fields: Any) -> Entry:
    row = {
        "assertion_id": f"i{number}",
        "layer_id": "human",
        "batch_id": batch,
        "action": "keep",
        "asserted_at": number,
    }
    return row | {"media_sha256": "a", "inference_key": "k1", "rank": 0} | fields


@pytest.fixture
def books(tmp_path: Path) -> list[Entry]:
    file = tmp_path / "export.parquet"
    pq.write_table(pa.Table.from_pylist([result("a", "k1")]), file)
    detect = {"photo": "cat", "version": "2", "key": "k2", "digest": digest_of_row(TRUE["k2"])}
    accounting = "requested 2 = ok 1 + empty 0 + failed 0 + reused 1"
    return [
        *(entry("truth", 0, version=VERSIONS[k], key=k, photo="cat", digest=digest_of_row(TRUE[k])) for k in TRUE),
        *(entry("picture", 0, sha=sha, photo="cat") for sha in "abc"),
        entry("promote", 0, version="1", asked=0, outcome="ok"),
        entry("ingest", 1, pictures=["c"]),
        upload(2, "a", "k1", recorded=True),
        entry("export", 5, file=str(file), relation="results", asked=3),
        entry("promote", 6, version="2", asked=5, outcome="ok"),
        entry("detect", 8, sent=7, done=8, **detect),
        upload(9, "b", "k2", recorded=False),
        entry("statements", 10, batch="b1", size=1, of="", added=1),
        entry("run", 11, asked=10, version="1", outcome="ok", run_id="r1", accounting=accounting),
        entry("view", 12, what="publish", outcome="ok", changed=True, serial=1, inference_key="k1", layers=[]),
        entry("revoked", 13, token="t"),
        entry("answer", 20, path="/v1/models", status=401, what="", token="t"),
        entry("answer", 21, path="/v1/images", status=503, what="", token="u"),
    ]


def stored() -> Stored:
    counts = {"requested": 2, "ok": 1, "empty": 0, "failed": 0, "reused": 1}
    run = {"run_id": "r1", "event": 1, "state": "sealed", "counts": counts}
    view = {"serial": 1, "inference_key": "k1", "layers": [], "threshold": 0.5, "label_thresholds": {}}
    return Stored(
        media=[{"source_root": "/u", "path": f"north/{sha}.jpg", "media_sha256": sha} for sha in "abc"],
        results=[result(sha, key) for sha in "abc" for key in TRUE],
        assertions=[statement(1, "b1")],
        runs=[run | {"event": 0, "state": "running"}, run],
        views={1: view},
        files={f"north/{sha}.jpg": sha for sha in "ab"},
    )


def test_honest_books_have_no_problem(books: list[Entry]):
    assert not any(audit(books, stored(), repaired=True).values())


def test_rows_that_a_crash_may_lose_are_due_only_after_the_repair(books: list[Entry]):
    late = replace(stored(), results=[row for row in stored().results if row["media_sha256"] != "b"])
    assert not any(audit(books, late, repaired=False).values())
    assert audit(books, late, repaired=True)["lost"]


def without(name: str, **fields: Any) -> Fraud:
    """Return a fraud that removes the rows of a table with these values."""

    def commit(books: list[Entry], honest: Stored) -> Stored:
        rows = getattr(honest, name)
        left = [row for row in rows if any(row[field] != value for field, value in fields.items())]
        assert len(left) < len(rows)
        return replace(honest, **{name: left})

    return commit


def twice(name: str) -> Fraud:
    return lambda books, honest: replace(honest, **{name: [*getattr(honest, name), getattr(honest, name)[0]]})


def changed(kind: str, **fields: Any) -> Fraud:
    """Return a fraud that changes the last entry of a kind."""

    def commit(books: list[Entry], honest: Stored) -> Stored:
        [e for e in books if e["kind"] == kind][-1].update(fields)
        return honest

    return commit


def added(*entries: Entry) -> Fraud:
    def commit(books: list[Entry], honest: Stored) -> Stored:
        books.extend(entries)
        return honest

    return commit


def other_boxes(books: list[Entry], honest: Stored) -> Stored:
    honest.results[0]["detections"][0]["x1_px"] += 0.001
    return honest


def failed_row(books: list[Entry], honest: Stored) -> Stored:
    honest.results[0].update(status="failed", error_code="access", error_detail="", detections=None)
    return honest


def open_account(books: list[Entry], honest: Stored) -> Stored:
    honest.runs[1]["counts"]["requested"] = 3
    return honest


def other_view(books: list[Entry], honest: Stored) -> Stored:
    honest.views[1]["inference_key"] = "k2"
    return honest


def invented_views(books: list[Entry], honest: Stored) -> Stored:
    return replace(honest, views={serial: honest.views[1] | {"serial": serial} for serial in (1, 2, 3)})


def later_view(books: list[Entry], honest: Stored) -> Stored:
    books.append(entry("view", 11, what="layer", outcome="unknown", changed=None, serial=None))
    return replace(honest, views={1: honest.views[1], 2: honest.views[1] | {"serial": 2}})


def left_out(books: list[Entry], honest: Stored) -> Stored:
    """Remove a row of a run that only its acknowledgement promises."""
    books[:] = [e for e in books if e["kind"] != "export"]
    rows = [r for r in honest.results if (r["media_sha256"], r["inference_key"]) != ("c", "k1")]
    return replace(honest, results=rows)


def other_export(books: list[Entry], honest: Stored) -> Stored:
    file = next(e["file"] for e in books if e["kind"] == "export")
    pq.write_table(pa.Table.from_pylist([result("a", "k1"), result("b", "k2")]), file)
    return honest


def partial_export(books: list[Entry], honest: Stored) -> Stored:
    file = next(e["file"] for e in books if e["kind"] == "export")
    pq.write_table(pa.Table.from_pylist([result("c", "k1")]), file)
    return honest


FRAUDS: dict[str, tuple[str, Fraud]] = {
    "a lost row of an upload": ("lost", without("results", media_sha256="a", inference_key="k1")),
    "a lost row of a run": ("lost", without("results", media_sha256="c", inference_key="k2")),
    "a lost file": ("lost", lambda books, honest: replace(honest, files={"north/a.jpg": "a"})),
    "a file with other bytes": (
        "lost",
        lambda books, honest: replace(honest, files={**honest.files, "north/a.jpg": "x"}),
    ),
    "a lost catalogue row": ("lost", without("media", media_sha256="a")),
    "a lost ingested file": ("lost", without("media", media_sha256="c")),
    "a failed row": ("lost", failed_row),
    "a lost statement": ("lost", without("assertions", batch_id="b1")),
    "a part of a batch": ("lost", added(entry("statements_unknown", 22, batch="b1", size=2, of=""))),
    "a lost run": ("lost", without("runs", run_id="r1")),
    "a lost publication": ("lost", lambda books, honest: replace(honest, views={})),
    "an export without a recorded row": ("lost", partial_export),
    "a doubled result": ("doubled", twice("results")),
    "a doubled file": ("doubled", twice("media")),
    "a doubled statement": ("doubled", twice("assertions")),
    "a doubled event": ("doubled", twice("runs")),
    "publications that nobody requested": ("doubled", invented_views),
    "a mixed answer": ("mixed", changed("detect", digest=digest_of_row(TRUE["k1"]))),
    "a mixed upload": ("mixed", changed("upload", version="1")),
    "an answer of a version after its time": ("mixed", changed("promote", at=20, asked=19)),
    "other boxes in a row": ("mixed", other_boxes),
    "another publication": ("mixed", other_view),
    "a publication after the last request": ("mixed", later_view),
    "an export of two views": ("mixed", other_export),
    "an open account": ("open accounts", open_account),
    "a run without an end": ("open accounts", without("runs", state="sealed")),
    "a command with open accounts": ("open accounts", added(entry("command", 22, words=["reprocess"], code=3, err=""))),
    "a traceback": (
        "refused wrongly",
        added(entry("command", 22, words=["sql"], code=1, err="Traceback (most recent")),
    ),
    "a 500": ("refused wrongly", changed("answer", status=500)),
    "a valid token refused": ("refused wrongly", changed("answer", status=401)),
    "a revoked token accepted": ("accepted wrongly", added(entry("revoked_accepted", 20, token="t", sent=19.5))),
}


@pytest.mark.parametrize("name", FRAUDS)
def test_a_fraud_is_found(name: str, books: list[Entry]):
    account, commit = FRAUDS[name]
    assert audit(books, commit(books, stored()), repaired=True)[account]


def test_a_row_that_a_run_left_out_is_found_without_the_repair(books: list[Entry]):
    assert audit(books, left_out(books, stored()), repaired=False)["lost"] == ["11 result of run r1: c"]


def test_a_revoked_token_may_be_accepted_for_a_moment(books: list[Entry]):
    books.append(entry("revoked_accepted", 18, token="t", sent=17.0))
    assert not any(audit(books, stored(), repaired=True).values())


def test_versions_that_may_answer():
    first = entry("promote", 0, version="1", asked=0, outcome="ok")
    assert allowed([first, entry("promote", 6, version="2", asked=5, outcome="ok")], 7, 8) == {"2"}
    assert allowed([first, entry("promote", 6, version="2", asked=5, outcome="ok")], 5.5, 8) == {"1", "2"}
    assert allowed([first, entry("promote", 6, version="2", asked=5, outcome="unknown")], 7, 8) == {"1", "2"}
    assert allowed([first, entry("promote", 6, version="2", asked=5, outcome="refused")], 7, 8) == {"1"}


def test_the_view_is_computed_from_the_tables():
    assert of_view(stored()) == {(sha, 0) for sha in "abc"}
    layer = {"layer_id": "l", "action": "suppress"}
    hidden = replace(
        stored(), assertions=[statement(1, "b1"), *(statement(2, None, media_sha256=s, **layer) for s in "ab")]
    )
    hidden.views[1]["layers"] = ["l"]
    assert of_view(hidden) == {("a", 0), ("c", 0)}  # a person has stated that of a
    again = replace(
        hidden, assertions=[*hidden.assertions, statement(3, None, media_sha256="b", **layer | {"action": "withdraw"})]
    )
    assert of_view(again) == {(sha, 0) for sha in "abc"}


def test_answers_and_rows_have_equal_digests():
    answer = [{"label": "cat", "score": 0.9, "box_xyxy_px": list(CORNERS.values())}]
    assert digest_of_answer(answer) == digest_of_row([BOX])
    assert digest_of_row(None) == digest_of_row([]) != digest_of_row([BOX])


def test_books_keep_each_line(tmp_path: Path):
    books = Books(tmp_path / "books.jsonl")
    books.write("detect", photo="cat")
    books.write("upload", photo="dog")
    assert [(e["kind"], e["photo"]) for e in books.entries()] == [("detect", "cat"), ("upload", "dog")]


def test_pictures_have_other_bytes_and_equal_pixels():
    from model_store.images.decode import decode

    photo = (Path(__file__).parents[2] / "examples" / "photos" / "cat.jpg").read_bytes()
    one, two = picture_of(photo, 1), picture_of(photo, 2)
    assert len({photo, one, two}) == 3
    assert (decode(one).pixels == decode(photo).pixels).all()


def test_tables_that_do_not_exist_are_empty(tmp_path: Path):
    assert read(str(tmp_path / "tables"), str(tmp_path / "uploads"), {}) == Stored([], [], [], [], {}, {})
