"""Upload, filters and exports in a browser."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

from PIL import Image
from playwright.sync_api import Route, expect

from model_store.errors import ImageError
from model_store.images.decode import decode
from tests.browser.conftest import Served, Visit

HOSTILE = "<img src=x onerror=alert(1)>.jpg"


def pictures_of(served: Served) -> list[Path]:
    """Return files that can be decoded, under a name each."""
    found = {path.name: path for path in sorted(served.archive.rglob("*.JPG"))}
    return [path for path in found.values() if can_decode(path)]


def can_decode(path: Path) -> bool:
    try:
        decode(path.read_bytes())
    except ImageError:
        return False
    return True


def test_each_file_has_its_result_and_failures_keep_the_words_of_the_server(
    visit: Visit, served: Served, tmp_path: Path
) -> None:
    pictures, fresh = pictures_of(served)[:3], tmp_path / "fresh.png"
    Image.new("RGB", (64, 48)).save(fresh)
    damaged = tmp_path / HOSTILE
    damaged.write_bytes(b"no picture")
    page = visit("/upload")
    page.get_by_label("Camera", exact=True).fill("browser-1")
    page.get_by_label("Files: choose them").set_input_files([*pictures, damaged, fresh])
    expect(page.locator("#summary")).to_contain_text("Not sent yet: 4")
    expect(page.locator("#failures li")).to_contain_text(f"{HOSTILE}: this is application/octet-stream")
    first = page.locator("#sent tbody tr").first
    expect(first).to_contain_text("not sent yet")
    expect(page.locator("#sent tbody tr").last).to_contain_text("no time in the file")
    page.get_by_label("Camera", exact=True).fill("browser-2")
    page.get_by_label("Camera", exact=True).blur()
    expect(page.locator("#sent tbody tr").last).to_contain_text("browser-2")
    page.get_by_role("button", name="Upload").click()
    summary = page.locator("#summary")
    expect(summary).to_have_text("5 of 5 files: 4 completed, 0 processing, 1 failed")
    expect(page.locator("#failures li")).to_have_count(1)
    for name, words in (
        (pictures[0].name, f"completed, known already, as {served.archive}"),
        ("fresh.png", "completed, new"),
    ):
        row = page.get_by_role("row").filter(has=page.get_by_role("link", name=name))
        expect(row).to_contain_text(words)
    page.get_by_role("button", name="Try the failed").click()
    expect(summary).to_contain_text("1 failed")
    page.get_by_label("Files: choose them").set_input_files(pictures[0])
    page.get_by_role("button", name="Upload").click()
    expect(page.locator("#sent tbody tr").last).to_contain_text("known already")
    page.locator("#sent tbody a").first.click()
    expect(page).to_have_url(re.compile("/ui/images/[0-9a-f]{64}"))


def test_one_click_sends_while_a_changed_field_has_the_focus(visit: Visit, served: Served) -> None:
    page, held = visit("/upload"), list[Route]()
    page.get_by_label("Files: choose them").set_input_files(pictures_of(served)[6])
    expect(page.locator("#sent tbody")).to_contain_text("not sent yet")
    page.route("**/uploads/check?*", lambda route: held.append(route))
    page.get_by_label("Camera", exact=True).fill("browser-3")
    page.get_by_role("button", name="Upload").hover()
    with page.expect_request("**/uploads/check?*"):
        page.mouse.down()  # the field reports its change, and its files are checked again
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    page.mouse.up()
    expect(page.locator("#sent tbody")).to_contain_text("waiting")
    held[0].continue_()
    expect(page.locator("#summary")).to_contain_text("1 completed")


def test_a_busy_server_is_asked_again_when_it_says(visit: Visit, served: Served) -> None:
    page, answers = visit("/upload"), [429, 429]

    def busy(route: object) -> None:
        if answers:
            body = '{"detail": "the queue is full"}'
            route.fulfill(status=answers.pop(), headers={"Retry-After": "1"}, body=body)  # type: ignore[attr-defined]
        else:
            route.continue_()  # type: ignore[attr-defined]

    page.route("**/v1/images?*", busy)
    page.get_by_label("Files: choose them").set_input_files(pictures_of(served)[5])
    page.get_by_role("button", name="Upload").click()
    expect(page.locator("#summary")).to_contain_text("1 completed")
    assert answers == []


def test_a_spent_quota_is_a_failure_that_is_not_waited_for(visit: Visit, served: Served) -> None:
    page, body = visit("/upload"), '{"detail": "its quota starts again at 2026-05-02 00:00 UTC"}'
    page.route("**/v1/images?*", lambda route: route.fulfill(status=429, headers={"Retry-After": "43200"}, body=body))
    page.get_by_label("Files: choose them").set_input_files(pictures_of(served)[5])
    page.get_by_role("button", name="Upload").click()
    expect(page.locator("#failures li")).to_contain_text("starts again at 2026-05-02")


def test_a_file_that_is_gone_is_not_the_fault_of_the_server(visit: Visit, served: Served, tmp_path: Path) -> None:
    page, gone = visit("/upload"), tmp_path / "gone.png"
    Image.new("RGB", (64, 48)).save(gone)
    page.get_by_label("Files: choose them").set_input_files(gone)
    expect(page.locator("#sent tbody")).to_contain_text("not sent yet")
    gone.unlink()
    page.get_by_role("button", name="Upload").click()
    expect(page.locator("#failures li")).to_contain_text("gone.png: It cannot be read")


def test_a_wrong_model_is_corrected_before_the_next_try(visit: Visit, served: Served) -> None:
    page = visit("/upload")
    model = page.get_by_label("Model")
    known = model.input_value()
    model.fill("nowhere")
    page.get_by_label("Files: choose them").set_input_files(pictures_of(served)[7])
    page.get_by_role("button", name="Upload").click()
    expect(page.locator("#failures li")).to_contain_text("nowhere")
    model.fill(known)
    page.get_by_role("button", name="Try the failed").click()
    expect(page.locator("#summary")).to_contain_text("1 completed")


def test_a_filter_is_previewed_run_and_switched_on(visit: Visit) -> None:
    page = visit("/filters/score-threshold")
    page.get_by_label("min score").fill("0.9")
    page.get_by_role("button", name="Preview", exact=True).click()
    expect(page.get_by_role("heading", name="What would change")).to_be_visible()
    page.get_by_role("button", name="Run as previewed").click()
    expect(page.get_by_text("The run has started.")).to_be_visible()


def test_an_export_is_a_file_of_the_filter(visit: Visit) -> None:
    page = visit("/exports?status=ok")
    score = page.get_by_label("Score from")
    score.fill("2")
    page.get_by_role("button", name="Download as CSV").first.click()
    expect(score).to_be_focused()
    score.fill("")
    for status in ("empty", "ok"):  # the boxes count, whether they are applied or not
        page.get_by_label("Status").select_option(status)
        page.wait_for_function(
            "status => document.querySelector('pre').textContent.includes(status)", arg=f"'{status}'"
        )
        expect(page.get_by_role("link", name="Images", exact=True).last).to_have_attribute("href", re.compile(status))
        with page.expect_download() as download:
            page.get_by_role("button", name="Download as CSV").last.click()
        with download.value.path().open(newline="") as file:
            assert {row["status"] for row in csv.DictReader(file)} == {status}
    expect(page.get_by_role("cell", name=download.value.suggested_filename)).to_be_visible()
    page.get_by_text("Camera Trap Data Package").click()
    camtrap = page.locator("form").filter(has=page.locator("[id^=camtrap-dp]"))
    camtrap.get_by_role("button").click()
    expect(camtrap.locator(".field-error")).to_contain_text("requires contributors")
    page.get_by_text("COCO detection results").click()
    with page.expect_download() as download:
        page.locator("[value=coco-results]").click()
    assert json.loads(download.value.path().read_bytes())
    expect(page.get_by_role("cell", name=download.value.suggested_filename)).to_be_visible()
