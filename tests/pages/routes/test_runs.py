"""Pages of runs: the list, one run with its progress, and comparisons, over runs that were made as rows."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from starlette.testclient import TestClient

from archive.delta.tables import Tables
from archive.schemas import MEDIA
from batch.jobs.control import Jobs
from batch.publishing.publish import publish, rollback
from batch.runs.accounting import Counts
from batch.runs.record import RunLog
from batch.runs.spec import RunSpec
from model_store.errors import ClusterError
from model_store.names import version_id
from model_store.store import ModelStore
from pages.context import Context
from pages.http_app import build_pages_app
from pages.routes.stream import State
from tests.archive.resolve_worlds import person
from tests.cli.ran import START, key, ran
from tests.fixtures_local import publish_blobs, put_results, put_rows, result_rows
from tests.pages.routes.test_cameras import rows_of_page
from tests.support.html_form import Page
from tests.support.jobs import FakeJobs

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def store(context: Context) -> ModelStore:
    for version, side_px in (("1", 64), ("2", 96)):
        preprocess = {"resize": "stretch", "side_px": side_px}
        publish_blobs(context.store, version, preprocess=preprocess, thresholds={"default": 0.5})
    context.store.set_alias("blobs", "production", "2")
    return context.store


@pytest.fixture(autouse=True)
def two(tables: Tables, store: ModelStore) -> None:
    """Runs `old` and `new` over the same two images of a camera with a hostile name."""
    media = [
        {"media_sha256": sha, "source_root": "/r", "path": f"{HOSTILE}{sha}.jpg", "camera_id": HOSTILE} for sha in "abc"
    ]
    tables.append("media", pa.Table.from_pylist(media, schema=MEDIA), "w", lambda _, rows: rows)
    ran(tables, store, "old", "1", "running", "sealed")
    later = START + timedelta(days=1)
    ran(tables, store, "new", "2", "running", "sealed", start=later, scores=())


def test_a_run_that_was_killed_is_interrupted_on_every_page(
    client: TestClient, context: Context, tables: Tables, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for run in ("killed", "alive"):
        ran(tables, store, run, "1", "running", start=datetime.now(UTC))
    for page in ("runs", "overview", "stream"):
        monkeypatch.setattr(f"pages.routes.{page}.ended_here", lambda *_: {"killed"})
    listed = client.get("/runs", params={"state": "interrupted"}).text
    assert "/runs/killed" in listed
    assert "/runs/alive" not in listed
    shown = client.get("/").text
    assert "/runs/alive" in shown
    assert "/runs/killed" not in shown
    assert "interrupted" in client.get("/runs/killed").text
    sent = State(context)._read()["runs"]
    assert {(run["run_id"], run["state"]) for run in sent} == {("killed", "interrupted"), ("alive", "running")}


def test_the_published_model_is_chosen_for_a_run(client: TestClient, tables: Tables, store: ModelStore) -> None:
    for version in ("1", "2"):
        folder = Path(store.url) / "aardvark" / version
        folder.mkdir(parents=True)
        (folder / "READY").touch()
    publish(tables, store, "old")
    text = client.get("/ui/runs").text
    assert Page(text).sent[0] == ("model", "blobs")
    assert ("blobs (the version that serves)" in text, "aardvark (" in text) == (True, False), "it has no alias"
    assert Page(client.get("/ui/runs", params={"model": "aardvark@1"}).text).sent[0] == ("model", "aardvark@1")
    (Path(store.url) / "blobs" / "aliases.json").unlink()
    assert Page(client.get("/ui/runs").text).sent[0] == ("model", "blobs@1")


def test_runs_are_listed_in_pages_and_by_state(client: TestClient) -> None:
    first = client.get("/ui/runs", params={"limit": 1, "state": "sealed"}).text
    assert "/ui/runs/new" in first
    assert "/ui/runs/old" not in first
    assert 'href="?before=new&amp;state=sealed"' in first
    second = client.get("/ui/runs", params={"before": "new"}).text
    assert "/ui/runs/old" in second
    assert "Older runs" not in second
    assert client.get("/ui/runs", params={"before": "x"}).status_code == 400
    assert ">blobs@2</option>" in first, "the form offers every version"


def test_a_sealed_run_leads_to_its_impact(client: TestClient) -> None:
    text = client.get("/ui/runs/new").text
    assert "The counts balance" in text
    compared = "/ui/runs/compare?old=published&amp;new=new"
    assert f'href="{compared}"' in text
    assert 'href="/ui/runs?model=blobs%402"' in client.get(html.unescape(compared)).text, "nothing is published"
    assert "Cancel the run" not in text
    assert "says [sealed]" not in text, "the table has the counts"
    assert client.get("/ui/runs/none").status_code == 404


def test_a_running_run_has_an_honest_estimate_and_can_be_cancelled(
    client: TestClient, tables: Tables, store: ModelStore
) -> None:
    ran(tables, store, "young", "1", "running", start=datetime.now(UTC))
    text = client.get("/ui/runs/young").text
    assert "the time that is left is not known yet" in text, "one event has no rate"
    assert 'data-post="//runs/young/cancel"' in text


def test_a_run_that_was_just_submitted_is_starting(context: Context) -> None:
    def unreachable() -> Jobs:
        raise ClusterError("the dashboard does not answer")

    own, other = FakeJobs(), FakeJobs()
    own.alive, other.alive = {"unborn"}, {"elsewhere"}
    for jobs, names in ((lambda: own, own.alive | other.alive), (unreachable, other.alive)):
        app = build_pages_app(replace(context, jobs=jobs, others=[other]))
        client = TestClient(app, base_url="http://127.0.0.1:8000", root_path="/ui")
        for name in names:
            text = client.get(f"/ui/runs/{name}").text
            assert "The run is starting." in text
            assert f'data-post="//runs/{name}/cancel"' in text
        assert client.get("/ui/runs/none").status_code == 404


def test_failed_images_are_named_with_links(client: TestClient, tables: Tables, store: ModelStore) -> None:
    info = store.describe(version_id("blobs", "1")).info
    counts = Counts(requested=2, failed=1, reused=1)
    RunLog(tables, RunSpec(run_id="bad", model="blobs@1"), info).write("sealed", counts)
    row = {"run_id": "bad", "error_code": "decode", "error_detail": HOSTILE}
    put_results(tables, result_rows(["c"], key(store, "1"), "failed", **row))
    text = client.get("/ui/runs/bad").text
    assert 'href="/ui/images/c"' in text
    assert HOSTILE not in text
    assert "&lt;script&gt;" in text


def test_the_impact_is_shown_before_publishing(
    client: TestClient, tables: Tables, store: ModelStore, context: Context
) -> None:
    publish(tables, store, "old")
    put_rows(tables, "assertions", person("suppress", "a"))
    store.set_alias("blobs", "production", "1")
    (Path(context.settings.home_path) / "policy.toml").write_text("[gates]\nmax_emptied_frac = 0\n")
    text = client.get("/ui/runs/compare", params={"new": "new", "old": "published"}).text
    assert HOSTILE not in text
    assert "max_emptied_frac" in text
    assert 'name="override"' in text, "a gate fails, so a reason is needed"
    assert 'data-post="//runs/new/publish"' in text
    assert "/ui/v1/images/a/crop?x1=1.0&amp;y1=1.0&amp;x2=9.0&amp;y2=9.0&amp;w=224" in text
    assert "before layers and corrections. Corrections stay." in text
    assert "<h2>Lost (2 of 2 images)</h2>" in text
    assert '<a href="/ui/images/a?shown=&amp;run=new">' in text, "both versions"
    german = client.get(
        "/ui/runs/compare", params={"new": "new", "old": "published"}, headers={"accept-language": "de"}
    )
    assert re.findall("<h2>(blobs.*)</h2>", german.text) == ["blobs@2 verletzt 1 von 4 Schwellen"]
    assert "höchstens 0 % (max_emptied_frac)" in german.text
    assert "blobs@1 (published) mit blobs@2 (new)" in german.text
    assert "Erkennungen fort, in 0 erscheinen die ersten" in german.text
    agreed = "Von 1 Aussagen von Menschen über diese Bilder stimmt blobs@1 (vorher) mit 0 überein und blobs@2"
    keep = "diese Version veröffentlichen; um blobs@2 zu behalten: resight models promote blobs@2"
    assert f'{keep}</span> <a href="/ui/models/blobs">blobs</a>' in german.text
    assert f"{agreed} (nachher) mit 1: 1 gewonnen, 0 verloren." in german.text
    other = client.get("/ui/runs/compare", params={"new": "new", "old": "old"}).text
    assert '<a href="/ui/images/a?shown=old&amp;run=new">' in other
    assert "data-post" not in other, "only what is published can be replaced"


def test_a_roll_back_shows_what_it_would_undo(
    client: TestClient, tables: Tables, store: ModelStore, context: Context
) -> None:
    publish(tables, store, "old")
    assert client.get("/ui/runs/compare").status_code == 400, "nothing is left to undo"
    assert "Roll back" not in client.get("/ui/runs").text
    publish(tables, store, "new")
    assert ["Publish again" in client.get(f"/ui/runs/{run}").text for run in ("old", "new")] == [False, True]
    (Path(context.settings.home_path) / "policy.toml").write_text(
        "[gates]\nmax_failed_frac = 0\nmin_coverage_frac = 1\n"
    )
    text = client.get("/ui/runs/compare").text
    assert "Gates of the policy" not in text, "they do not hinder a roll-back"
    assert 'data-then="/runs?done=true"' in text
    assert '<a href="/ui/runs/compare?old=published&amp;new=previous">' in client.get("/ui/runs").text
    assert "would undo: number 2 (blobs@2 in place of blobs@1)" in text
    assert 'data-post="//runs/rollback"' in text
    assert 'name="after" value="2" data-kind="number"' in text
    store.set_alias("blobs", "production", "1")
    shown = [client.get("/ui/runs/compare", params={"done": done}).text for done in (True, False)]
    assert ["to keep blobs@2: resight models promote blobs@2" in page for page in shown] == [True, False]
    german = client.get("/ui/runs/compare", headers={"accept-language": "de"}).text
    assert "macht rückgängig: Nummer 2 (blobs@2 anstelle von blobs@1)" in german


def test_after_a_roll_back_the_list_says_what_is_published_and_has_all_publications(
    client: TestClient, tables: Tables, store: ModelStore
) -> None:
    assert "Publications" not in client.get("/ui/runs").text
    for run in ("old", "new"):
        publish(tables, store, run)
    rollback(tables, reason=HOSTILE)
    text = client.get("/ui/runs", params={"done": "true"}).text
    assert '<p class="good" role="status">Published: blobs@1, since' in text
    assert "Roll back" not in text, "nothing is earlier"
    rows = rows_of_page(text)
    assert [(row[0], row[2], row[3], row[5]) for row in rows if row[0].isdigit()] == [
        ("3", "blobs@1", "old", HOSTILE),
        ("2", "blobs@2", "new", ""),
        ("1", "blobs@1", "old", ""),
    ]
    assert [row[:3] for row in rows if row[0] in ("old", "new")] == [
        ["new", "finished", ""],
        ["old", "finished", "production"],
    ]
