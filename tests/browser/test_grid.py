"""The grid reaches every image, forwards and backwards, with few cells; selections are exact before they count."""

from __future__ import annotations

import re
from urllib.parse import urlencode

from playwright.sync_api import Dialog, Page, Route, expect

from tests.browser.conftest import Served, Visit

TO_END = "scrollTo(0, document.body.scrollHeight)"
NOTICES = """() => {
    window.notices = [];
    const place = document.getElementById("notice");
    new MutationObserver(() => notices.push(place.textContent)).observe(place, {childList: true});
}"""


def digests(page: Page) -> list[str]:
    found: list[str] = page.evaluate("[...document.querySelectorAll('.cell')].map(cell => cell.dataset.digest)")
    return found


def test_scrolling_reaches_each_image_once(visit: Visit) -> None:
    page = visit("/images")
    expect(page.locator("#count")).not_to_be_empty()
    total = page.evaluate("fetch('/ui/v1/images/count').then(a => a.json())")["count"]
    page.evaluate(TO_END)
    expect(page.locator("#end")).to_have_text("End of the list")
    found = digests(page)
    assert len(found) == len(set(found)) == total
    page.goto(page.url + "?camera=nowhere")
    expect(page.locator("#end")).to_have_text("No image matches.")


def test_a_day_is_shown_at_once_and_is_part_of_the_url(visit: Visit) -> None:
    page = visit("/images")
    month = page.locator("#days details").nth(0)
    if not month.evaluate("node => node.open"):
        month.locator("summary").click()
    day = month.locator("button").nth(1)
    wanted = day.inner_text()[:10]
    day.click()
    expect(page.locator(".cell .when").first).to_contain_text(wanted)
    page.reload()
    expect(page.locator(".cell .when").first).to_contain_text(wanted)
    undated = page.get_by_role("button", name="without a time")
    n = int(undated.inner_text().split("· ")[1])
    undated.click()
    expect(page.locator(".cell .when", has_text="20")).to_have_count(0)
    expect(page.locator(".cell")).to_have_count(n)


def test_boxes_are_applied_by_whatever_is_done_next(visit: Visit) -> None:
    page = visit("/images?status=ok")
    camera = page.locator("[name=camera]")
    name = camera.locator("option").nth(1).get_attribute("value") or ""
    camera.select_option(name)
    for link in ("Review these", "Export these"):
        expect(page.get_by_role("link", name=link)).to_have_attribute("href", re.compile(f"camera={name}&status=ok"))
    month = page.locator("#days summary").last
    text = month.inner_text()[:7]
    month.focus()
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(f"camera={name}&status=ok.*&at={text}"))
    expect(page.locator(".cell .when").first).to_contain_text(name)
    page.get_by_label("Status").select_option("")
    page.get_by_role("button", name="Select all").click()
    page.wait_for_url(lambda url: "status" not in url)
    expect(page.locator("#bulk")).to_be_hidden()
    page.get_by_label("Score from").fill("2")
    page.get_by_role("button", name="Select all").click()
    expect(page.get_by_label("Score from")).to_be_focused()


def test_a_day_that_is_clicked_while_pictures_load_is_shown(visit: Visit) -> None:
    page, held = visit("/images"), list[Route]()
    expect(page.locator("#end")).to_have_text("End of the list")
    if not page.locator("#days details").first.evaluate("node => node.open"):
        page.locator("#days summary").first.click()
        expect(page.locator("#end")).to_have_text("End of the list")
    page.route("**/v1/images?*", lambda route: held.append(route), times=1)
    days = page.locator("#days details").first.locator("button")
    with page.expect_request("**/v1/images?*"):
        days.nth(0).click()
    days.nth(1).click()
    held[0].continue_()
    expect(page.locator(".cell .when").first).to_contain_text(days.nth(1).inner_text()[:10])


def test_a_month_opens_alone_and_goes_to_its_newest_picture(visit: Visit) -> None:
    page = visit("/images")
    months = page.locator("#days details")
    for month in (months.last, months.first):
        month.locator("summary").click()
        expect(page.locator(".cell .when").first).to_contain_text(month.locator("button").first.inner_text()[:10])
        expect(page.locator("#days details[open]")).to_have_count(1)
        expect(month).to_have_attribute("open", "")
    months.first.locator("summary").click()
    expect(page.locator("#days details[open]")).to_have_count(0)


def test_a_refused_page_is_requested_again_by_the_next_scrolling(visit: Visit) -> None:
    page, refused = visit("/session"), list[str]()

    def answer(route: Route) -> None:
        url = route.request.url
        if "after=" in url:
            refused.append(url)
            route.fulfill(status=429, json={"detail": "full"})
        else:
            route.continue_(url=url.replace("limit=100", "limit=40"))

    page.route("**/v1/images?*", answer)
    page.goto(page.url.replace("/session", "/images"))
    expect(page.locator(".cell")).to_have_count(40)
    page.evaluate(TO_END)
    expect(page.locator("#notice")).to_have_text("full")
    for _ in range(3):
        page.evaluate("fetch('/ui/v1/images/count')")
    assert len(refused) == 1
    page.unroute("**/v1/images?*")
    page.evaluate("scrollTo(0, 0)")
    page.evaluate(TO_END)
    expect(page.locator("#end")).to_have_text("End of the list")


def test_a_list_without_any_time_begins_with_its_first_picture(visit: Visit) -> None:
    page = visit("/session")
    small = "**/v1/images?*limit=100*"
    page.route(small, lambda route: route.continue_(url=route.request.url.replace("limit=100", "limit=1")))
    page.goto(page.url.replace("/session", "/images?status=failed"))
    first = page.locator(".cell").first.get_attribute("data-digest")
    with page.expect_request(small):
        page.get_by_role("button", name="without a time").click()
    expect(page.locator("#end")).to_have_text("End of the list")
    assert digests(page)[0] == first


def test_shift_with_arrows_extends_and_shrinks_the_selection(visit: Visit) -> None:
    page = visit("/images")
    page.locator("#grid a").first.focus()
    for keys, n in (("Shift+ArrowRight", 2), ("Shift+ArrowRight", 3), ("Shift+ArrowLeft", 2)):
        page.keyboard.press(keys)
        expect(page.locator("#selected")).to_have_text(f"{n} selected")


def test_the_tick_and_the_solid_line_belong_to_what_a_person_stated(visit: Visit) -> None:
    page, place = visit("/session"), {"x1": 0.1, "y1": 0.1, "x2": 0.5, "y2": 0.5}
    fox, deer = place | {"label": "fox", "is_human": False}, place | {"label": "deer", "is_human": True}
    of_images = {"boxes": [[fox, deer], [deer, fox], []], "top_label": ["fox", "deer", None], "n_boxes": [2, 2, 0]}
    of_images |= {"top_score": [0.87] * 3, "status": ["ok", "ok", "empty"], "reviewed": [True] * 3}

    def answer(route: Route) -> None:
        body = route.fetch().json()
        for name, values in body["columns"].items():
            body["columns"][name] = of_images.get(name, values[:3])
        route.fulfill(json=body)

    page.route("**/v1/images?*", answer)
    page.goto(page.url.replace("/session", "/images"))
    expect(page.locator(".what")).to_have_text(["fox 0.87 +1, reviewed", "✓ deer 0.87 +1", "✓ empty"])
    expect(page.locator(".cell rect.human")).to_have_count(2)
    expect(page.locator(".cell").first.locator("rect").first).not_to_have_css("stroke-dasharray", "none")


def test_a_label_for_many_images_is_completed_like_that_of_one(served: Served, visit: Visit) -> None:
    page, questions = visit("/images?status=ok"), list[str]()
    known = page.evaluate("fetch('/ui/v1/images/histogram?by=label').then(a => a.json())")[1]["value"]

    def accept(dialog: Dialog) -> None:
        questions.append(dialog.message)
        dialog.accept()

    page.on("dialog", accept)
    page.locator(".cell input").first.click()
    page.get_by_role("button", name="Relabel …").click()
    page.locator("#label-input").fill(known[:-1])
    page.keyboard.press("Enter")
    expect(page.locator("#label-new")).to_contain_text(
        f"“{known[:-1]}” is a new label: Enter again adds it. Known: {known}"
    )
    assert questions == []
    page.keyboard.type(known[-1])
    page.keyboard.press("Enter")
    expect(page.locator("#notice")).to_contain_text("Saved for 1 images")
    assert questions == [f"Relabel every detection as {known} in 1 images?"]
    page.keyboard.press("Control+z")
    expect(page.locator("#notice")).to_have_text("Taken back.")


def test_a_list_that_is_behind_says_so_and_is_shown_again(served: Served, visit: Visit) -> None:
    page, behind_s = visit("/session"), [5.0]

    def count(route: Route) -> None:
        route.fulfill(json={"count": 7, "behind_s": behind_s[0], "index_version": "1.1"})

    page.route("**/images/count?*", count)
    page.goto(f"{served.url}/images?status=ok")
    expect(page.locator("#count")).to_have_text("7 images — the list is 5 s behind")
    expect(page.locator(".cell").first).to_be_visible()
    ticks = page.locator(".cell input")
    digest = digests(page)[2]
    ticks.nth(2).click()
    page.evaluate("document.querySelector('.cell').id = 'old'")
    with page.expect_request(re.compile(r"/v1/images\?status=ok&limit=100$")):
        behind_s[0] = 0
    expect(page.locator("#count")).to_have_text("7 images")
    expect(page.locator("#old")).to_have_count(0)
    expect(page.locator(f".cell[data-digest='{digest}'] input")).to_be_focused()
    ticks.nth(4).click(modifiers=["Shift"])
    expect(page.locator("#selected")).to_have_text("3 selected")


def test_a_new_label_is_for_the_label_of_the_filter(served: Served, visit: Visit) -> None:
    page, questions = visit("/session"), list[str]()
    bars = page.evaluate("fetch('/ui/v1/images/histogram?status=ok&by=label').then(a => a.json())")
    wanted, other = [bar["value"] for bar in bars if bar["value"]][:2]

    def refuse(dialog: Dialog) -> None:
        questions.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", refuse)
    page.goto(f"{served.url}/images?{urlencode({'label': wanted})}")
    page.locator(".cell input").first.click()
    page.get_by_role("button", name="Relabel …").click()
    page.locator("#label-input").fill(other)
    with page.expect_event("dialog"), page.expect_request("**/v1/assertions") as asked:
        page.keyboard.press("Enter")
    assert asked.value.post_data_json["selection"]["of_label"] == wanted
    assert questions == [f"Relabel every {wanted} as {other} in 1 images?"]


def test_everything_that_matches_is_confirmed_after_the_number_and_taken_back(served: Served, visit: Visit) -> None:
    page = visit("/images?status=ok")
    expect(page.locator("#count")).not_to_be_empty()
    total = page.evaluate("fetch('/ui/v1/images/count?status=ok').then(a => a.json())")["count"]
    questions: list[str] = []

    def accept(dialog: Dialog) -> None:
        questions.append(dialog.message)
        dialog.accept()

    page.on("dialog", accept)
    page.get_by_role("button", name="Select all that match").click()
    page.locator(".cell input").first.click()
    expect(page.locator("#selected")).to_have_text(f"{total - 1} selected")
    page.get_by_role("button", name="Confirm").click()
    expect(page.locator("#notice")).to_contain_text(f"Saved for {total - 1} images")
    assert questions == [f"Confirm every detection in {total - 1} images?"]
    expect(page.locator(".cell.reviewed")).to_have_count(total - 1)  # the list has followed
    images = "select count(distinct media_sha256) as n from detections where said_by = 'human'"
    assert f'"n": {total - 1}' in served.resight("sql", images, "--format", "json")
    page.keyboard.press("Control+z")
    expect(page.locator("#notice")).to_have_text("Taken back.")
    assert '"n": 0' in served.resight("sql", images, "--format", "json")
    expect(page.locator(".cell.reviewed")).to_have_count(0)
    expect(page.locator("#count")).to_have_text(f"{total} images")


def test_the_rest_is_shown_once_all_pictures_above_are_decided(served: Served, visit: Visit) -> None:
    page = visit("/session")
    page.on("dialog", lambda dialog: dialog.accept())
    found = "status=ok&reviewed=false"
    columns = page.evaluate(f"fetch('/ui/v1/images?{found}').then(a => a.json())")["columns"]
    times, shown = columns["captured_at_corrected"], columns["media_sha256"]
    above = next(n for n, time in enumerate(times) if time < times[0])
    page.goto(f"{served.url}/images?{found}&at={times[above]}")
    cells = page.locator(".cell")
    expect(cells.first).to_have_attribute("data-digest", shown[above])
    expect(page.locator("#count")).not_to_be_empty()
    page.evaluate("scrollTo(0, 10)")
    expect(cells.first).to_have_attribute("data-digest", shown[0])
    for n in range(above):
        cells.nth(n).locator("input").click()
    page.get_by_role("button", name="Confirm").click()
    expect(cells.first).to_have_attribute("data-digest", shown[above])
    page.keyboard.press("Control+z")
    expect(cells.first).to_have_attribute("data-digest", shown[0])


def test_a_decision_without_a_list_reports_only_that_it_is_saved(served: Served, visit: Visit) -> None:
    page = visit("/session")
    n = page.evaluate("fetch('/ui/v1/images/count?status=ok').then(a => a.json())")["count"]
    page.route("**/v1/images?*", lambda route: route.abort())
    page.route(
        "**/images/count?*", lambda route: route.fulfill(json={"count": n, "behind_s": 0, "index_version": None})
    )
    page.on("dialog", lambda dialog: dialog.accept())
    page.goto(f"{served.url}/images?status=ok")
    expect(page.locator("#notice")).to_have_text("The server does not answer.")
    page.evaluate(NOTICES)
    page.get_by_role("button", name="Select all that match").click()
    with page.expect_response("**/images/count?*"):  # then the list is read again
        page.get_by_role("button", name="Confirm").click()
    page.keyboard.press("Control+z")
    expect(page.locator("#notice")).to_have_text("Taken back.")
    assert page.evaluate("notices") == [f"Saved for {n} images. Ctrl+Z takes it back.", "Taken back."]


def test_the_words_after_a_decision_are_those_of_its_answer(visit: Visit) -> None:
    page = visit("/images?status=ok")
    page.on("dialog", lambda dialog: dialog.accept())
    saved = {"batch_id": "", "added": 0, "left": 0, "kept": 0, "by": ["Ben"]}
    answers = [{"count": 1, "index_version": "", "decided": 0, "by": []}, saved, saved | {"added": 1, "kept": 2}]
    sent: list[str] = []

    def answer(route: Route) -> None:
        sent.append(route.request.post_data or "")
        route.fulfill(json=answers.pop(0))

    page.route(re.compile("/v1/assertions"), answer)
    counted = {"count": 1234, "behind_s": 0, "index_version": "1.1"}
    page.route("**/images/count?*", lambda route: route.fulfill(json=counted))
    expect(page.locator("#count")).not_to_be_empty()
    page.locator(".cell input").first.click()
    page.get_by_role("button", name="Confirm").click()
    expect(page.locator("#notice")).to_have_text("Nothing was recorded: no detection is left to decide.")
    page.keyboard.press("Control+z")
    expect(page.locator("#notice")).to_have_text("2 decisions stay, because Ben decided again later.")
    expect(page.locator("#count")).to_have_text("1\u202f234 images")
    assert "index_version" in sent[1], "of what was shown, also for images that are ticked"
