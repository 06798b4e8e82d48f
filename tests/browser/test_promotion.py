"""A promotion with its impact first, and the way back; and a visit while the index of images is being built."""

from __future__ import annotations

import fcntl
import re
import shutil
import signal

from playwright.sync_api import expect

from model_store.store import ModelStore
from tests.browser.conftest import Served, Visit
from tests.fixtures_local import publish_blobs

MS = 120_000


def test_the_impact_of_a_promotion_is_seen_first_and_it_can_be_taken_back(visit: Visit, served: Served) -> None:
    store = ModelStore(str(served.home / "models"))
    for version, score in (("1", 0.1), ("2", 0.9)):  # the same results, shown from another score
        publish_blobs(store, version, thresholds={"default": score})
    store.set_alias("blobs", "production", "1")
    served.resight("reprocess", "--model", "blobs@1")
    page = visit("/models/blobs")
    promotion = page.locator("form").filter(has=page.get_by_role("button", name="promote"))
    promotion.get_by_label("Version").select_option("2")
    promotion.get_by_role("button", name="promote").click()
    expect(page.get_by_role("heading", name="By label")).to_be_visible(timeout=MS)
    expect(page.get_by_role("heading", name="What would change: blobs@1")).to_be_visible()
    expect(page.locator("article").first).to_contain_text("before")
    page.get_by_role("button", name="promote").click()
    expect(page.get_by_text("Done: version 2 answers now.")).to_be_visible(timeout=MS)
    page.get_by_role("button", name="Go back to version 1").click()
    expect(page.get_by_role("heading", name="Let version 1 answer")).to_be_visible(timeout=MS)
    page.get_by_role("button", name="Go back").click()
    expect(page.get_by_text("Done: version 1 answers now.")).to_be_visible(timeout=MS)
    expect(page.get_by_text("There is no earlier version.")).to_be_visible()


def test_a_visitor_waits_for_the_index_and_then_sees_the_list(visit: Visit, served: Served) -> None:
    served.server.end(signal.SIGTERM)
    index = served.home / "index"
    shutil.rmtree(index, ignore_errors=True)
    (index / "production").mkdir(parents=True)
    with (index / "production" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as another process that builds it
        served.server.start()
        page = visit("/images", expected=(503,))
        expect(page.get_by_role("heading", name="index of the images is being built")).to_be_visible()
        expect(page.get_by_role("status").first).to_contain_text("Step")
        fcntl.flock(lock, fcntl.LOCK_UN)
    expect(page.locator(".cell").first).to_be_visible(timeout=MS)
    expect(page).to_have_url(re.compile("/ui/images$"))
