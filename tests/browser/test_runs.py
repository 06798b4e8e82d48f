"""A run from its estimate to its publication and back, with the buttons of the page."""

from __future__ import annotations

import json
import re

from playwright.sync_api import Route, expect

from tests.browser.conftest import Visit

RUN_MS = 180_000


def test_a_run_is_estimated_started_followed_published_and_rolled_back(visit: Visit) -> None:
    page = visit("/runs")
    page.get_by_text("Start a run").click()
    form = page.locator("form[data-estimate]")
    start = form.get_by_role("button", name="Start the run")
    expect(start).to_be_disabled()
    form.get_by_label("Cameras").fill("nowhere")
    form.get_by_role("button", name="Estimate").click()
    expect(form.get_by_role("alert")).to_contain_text("unknown camera 'nowhere'")
    form.get_by_label("Cameras").fill("")
    form.get_by_label("Model").select_option("motion@1")
    form.get_by_role("button", name="Estimate").click()
    expect(form.get_by_role("status")).to_contain_text(re.compile("are to be detected.*about .* s "), timeout=RUN_MS)
    form.get_by_label("Taken until").fill("2099-01-01")
    expect(start).to_be_disabled()
    held: list[Route] = []
    page.route("**/runs", lambda route: held.append(route), times=1)
    with page.expect_request("**/runs"):
        form.get_by_role("button", name="Estimate").click()
    form.get_by_label("Taken until").fill("")
    held[0].continue_()
    expect(form.get_by_role("button", name="Estimate")).to_be_enabled(timeout=RUN_MS)
    expect(start).to_be_disabled()
    form.get_by_role("button", name="Estimate").click()
    expect(start).to_be_enabled(timeout=RUN_MS)
    start.click()
    page.wait_for_url(re.compile(r"/ui/runs/\d{8}T"))
    expect(page.locator("#progress")).to_contain_text("finished", timeout=RUN_MS)
    expect(page.locator("#progress")).to_contain_text("The counts balance")
    expect(page.locator("#log")).to_contain_text(
        re.compile(r"\d\d:\d\d:\d\d report accounting: requested \d"), timeout=RUN_MS
    )

    page.get_by_role("link", name="What would change").click()
    expect(page.get_by_role("heading", name="By camera")).to_be_visible(timeout=RUN_MS)
    override = page.get_by_label("Publish anyway, because")
    if override.count():
        override.fill("a test")
    page.get_by_role("button", name="Publish").click()
    expect(page.get_by_text("Below is what going back would change.")).to_be_visible(timeout=RUN_MS)
    expect(page.get_by_text("would undo: number")).to_be_visible()
    page.get_by_role("link", name="All runs").click()
    newest = page.locator("tbody tr").first
    expect(newest).to_contain_text("production")
    expect(newest).to_contain_text("local")

    page.get_by_role("link", name="Roll back").click()
    expect(page.get_by_text("would undo: number")).to_be_visible(timeout=RUN_MS)
    page.get_by_role("button", name="Roll back").click()
    page.wait_for_url(re.compile(r"/ui/runs\?done=true$"), timeout=RUN_MS)
    expect(page.locator("tbody tr").first).not_to_contain_text("production")
    expect(page.locator("p.good")).to_contain_text("Published: ssdlite-coco@1")


def test_a_late_answer_does_not_replace_a_newer_state(visit: Visit) -> None:
    page, held = visit("/runs"), list[Route]()
    run = page.locator("tbody th a").first.inner_text()
    states = [json.dumps({"runs": [{"run_id": run, "state": state}]}) for state in ("running", "sealed")]
    events = "".join(f"data: {state}\n\n" for state in states)

    def answer(route: Route) -> None:
        if route.request.resource_type == "document":
            route.continue_()
        elif held:
            route.fulfill(body='<div id="progress">newer</div>')
        else:
            held.append(route)

    page.route(
        "**/v1/stream*", lambda route: route.fulfill(content_type="text/event-stream", body=f"retry: 9999999\n{events}")
    )
    page.route(f"**/runs/{run}", answer)
    page.goto(f"{page.url}/{run}")
    expect(page.locator("#progress")).to_have_text("newer")
    held[0].fulfill(body='<div id="progress">older</div>')
    page.evaluate("fetch('/ui/v1/images/count')")
    expect(page.locator("#progress")).to_have_text("newer")


def test_an_operation_that_is_refused_is_explained_next_to_its_button(visit: Visit) -> None:
    page = visit("/models/motion")
    page.locator("form[data-post$='/pin']").get_by_role("button").click()
    expect(page.get_by_role("heading", name="(pinned)")).to_be_visible(timeout=RUN_MS)
    expect(page.get_by_role("button", name="promote")).to_be_disabled()
    page.get_by_role("button", name="unpin").click()
    expect(page.get_by_role("heading", name="(pinned)")).to_have_count(0, timeout=RUN_MS)
    form = page.locator("form[data-post$='/shadow']")
    form.locator("select").evaluate("select => { select.options[0].disabled = false; select.value = '1'; }")
    form.get_by_role("button", name="shadow").click()
    expect(form.get_by_role("alert")).not_to_be_empty(timeout=RUN_MS)
