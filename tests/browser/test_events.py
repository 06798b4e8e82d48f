"""Events: one decision for all images, also with a lost answer; what others decided stays. Orders, flags and places."""

from __future__ import annotations

import contextlib
import json
import re

from playwright.sync_api import Dialog, Error, Page, Route, expect

from tests.browser.conftest import Served, Visit
from tests.browser.test_grid import digests
from tests.browser.test_review import signed_in, statements, wait_for_picture


def fetched(page: Page, path: str) -> object:
    return page.evaluate("path => fetch('/ui/v1' + path).then(a => a.json())", path)


def long_event(page: Page) -> dict[str, object]:
    """Return the event with the most images."""
    found = json.loads(json.dumps(fetched(page, "/events?limit=500")))["events"]
    return dict(max(found, key=lambda event: event["images"]))


def in_pages_of_two(page: Page) -> None:
    """Let the images of an event be in several pages."""
    of_event = "**/v1/images?*limit=500*"
    page.route(of_event, lambda route: route.continue_(url=route.request.url.replace("limit=500", "limit=2")))


def test_an_event_is_decided_at_once_and_taken_back(served: Served, visit: Visit) -> None:
    page = visit("/images")
    event = long_event(page)
    in_pages_of_two(page)
    page.goto(f"{served.url}/events/{event['event_id']}")
    expect(page.locator("#grid .cell")).to_have_count(int(str(event["images"])))
    newest = json.loads(json.dumps(fetched(page, f"/images?event_id={event['event_id']}")))["columns"]["media_sha256"]
    assert digests(page) == newest[::-1], "in order"
    expect(page.locator("#max-n li")).not_to_have_count(0)
    expect(page.locator("#selected")).to_have_text(f"{event['images']} selected")
    page.locator("body").focus()
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if request.method == "POST" else None)
    for _ in range(3):
        page.keyboard.down("0")  # held
    page.keyboard.up("0")
    expect(page.locator("#notice")).to_contain_text(f"Saved for {event['images']} images")
    assert len(sent) == 1
    assert {row["action"] for row in statements(served)} == {"suppress"}
    page.reload()
    expect(page.locator("#selected")).not_to_be_empty()
    page.keyboard.press("Control+z")
    expect(page.locator("#notice")).to_have_text("Taken back.")
    assert statements(served) == []


def test_a_picture_beyond_the_page_of_its_event_is_decided_alone(served: Served, visit: Visit) -> None:
    page = visit("/images")
    images = f"/images?event_id={long_event(page)['event_id']}"
    last = json.loads(json.dumps(fetched(page, images)))["columns"]["media_sha256"][-1]
    in_pages_of_two(page)
    page.goto(f"{served.url}{images.replace('?', f'/{last}?')}")
    wait_for_picture(page)
    with page.expect_response("**/v1/assertions"):
        page.keyboard.press("0")
    assert [row["media_sha256"] for row in statements(served)] == [last]
    expect(page.locator("#place")).to_have_text("End of the list")
    page.keyboard.press("u")
    expect(page.locator("#notice")).to_have_text("Taken back.")
    expect(page.locator("#place")).not_to_contain_text("unsaved")
    assert statements(served) == []


def test_a_selection_survives_a_lost_answer_and_a_reload(served: Served, visit: Visit) -> None:
    page = visit("/images?status=ok")
    expect(page.locator("#count")).not_to_be_empty()
    page.on("dialog", lambda dialog: dialog.accept())
    sent: list[str] = []

    def loses(route: Route) -> None:
        body = route.request.post_data_json or {}
        if "dry_run" in body:
            route.continue_()
            return
        sent.append(body["batch_id"])
        route.fetch()
        with contextlib.suppress(Error):  # the page has been left meanwhile, which ends the request as well
            route.fulfill(status=408, content_type="application/problem+json", body='{"detail": "too slow"}')

    page.route("**/v1/assertions", loses)
    page.locator(".cell input").first.click()
    page.get_by_role("button", name="Mark as empty").dblclick()
    expect(page.locator("#notice")).to_contain_text("Not saved yet")
    page.unroute("**/v1/assertions")
    page.reload()
    expect(page.locator("#notice")).to_contain_text("Saved for 1 images")
    (said,) = statements(served)
    assert len(set(sent)) == 1
    page.goto(f"{served.url}/images/{said['media_sha256']}")
    wait_for_picture(page)
    standing = page.locator("#statements li:not(.past)")
    expect(standing).to_have_count(1)
    page.keyboard.press("u")  # of what was decided in the grid
    expect(standing).to_have_count(0)
    assert statements(served) == []


def test_a_burst_leaves_what_a_colleague_decided(served: Served, visit: Visit) -> None:
    ana, ben = signed_in(visit, "Ana"), signed_in(visit, "Ben")
    event = long_event(ana)
    images = f"/images?event_id={event['event_id']}"
    digests = json.loads(json.dumps(fetched(ana, images)))["columns"]["media_sha256"]
    ana.goto(f"{served.url}/images/{digests[0]}")
    wait_for_picture(ana)
    expect(ana.locator("#strip a")).to_have_count(len(digests))
    ben.goto(f"{served.url}/images/{digests[1]}")
    expect(ben.locator("#strip a")).to_have_count(len(digests))
    wait_for_picture(ben)
    ben.keyboard.press("Shift+Digit0")  # types another sign than 0
    expect(ben.locator("#place")).not_to_contain_text("unsaved")
    (first,) = statements(served)
    with ana.expect_request("**/v1/assertions") as sent:
        ana.keyboard.press("Enter")
    assert json.loads(sent.value.post_data or "")["selection"]["index_version"], "of the burst that was shown"
    expect(ana.locator("#notice")).to_contain_text("1 images stay as Ben decided")
    assert [row for row in statements(served) if row["actor"] == "Ben"] == [first]
    for person in (ana, ben):
        person.keyboard.press("u")
        expect(person.locator("#notice")).to_contain_text("Taken back.")
        expect(person.locator("#place")).not_to_contain_text("unsaved")
    assert statements(served) == []


def test_a_confirmed_burst_counts_its_pictures_without_a_box(served: Served, visit: Visit) -> None:
    page = visit("/session")
    empty = json.loads(json.dumps(fetched(page, "/images?status=empty&limit=500")))["columns"]
    events = json.loads(json.dumps(fetched(page, "/events?status=empty&limit=500")))["events"]
    event = next(event["event_id"] for event in events if event["images"] > 1)
    held: list[Route] = []
    page.route("**/neighbours?**", lambda route: held.append(route))
    page.goto(f"{served.url}/review?event_id={event}")
    wait_for_picture(page)
    page.keyboard.press("Enter")
    n = empty["event_id"].count(event)
    expect(page.locator("#notice")).to_have_text(f"Now empty, as they have no box: {n} pictures. U takes it back.")
    page.keyboard.press("u")  # before the page has learnt that no image is left
    expect(page.locator("#notice")).to_have_text("Taken back.")
    page.unroute("**/neighbours?**")  # the held ones go on
    expect(page.locator("#place")).not_to_contain_text("unsaved")
    expect(page.locator("#stage img")).to_be_visible()
    assert statements(served) == []


def test_waiting_decisions_are_sent_after_the_next_sign_in_but_not_as_another_person(
    served: Served, visit: Visit
) -> None:
    page, questions = signed_in(visit, "Ana"), list[str]()

    def accept(dialog: Dialog) -> None:
        questions.append(dialog.message)
        dialog.accept()

    page.on("dialog", accept)
    for person in ("Ana", "Ben"):
        page.goto(f"{served.url}/review?status=ok")
        wait_for_picture(page)
        page.route("**/v1/assertions", lambda route: route.abort())
        page.keyboard.press("Shift+Enter")
        expect(page.locator("#place")).to_contain_text("1 unsaved")
        page.goto(f"{served.url}/session")
        page.get_by_label("Your name").fill("Ben")
        page.get_by_role("button", name="Use this name").click()
        page.wait_for_url(re.compile("/ui/$"))
        with page.expect_response("**/v1/assertions"):
            page.unroute("**/v1/assertions")
        if person == "Ana":
            expect(page.locator("#notice")).to_contain_text("Ana decided this, and you are Ben")
    assert any("Drop this decision" in question for question in questions)
    assert {row["actor"] for row in statements(served)} == {"Ben"}
    page.goto(f"{served.url}/review?status=ok")
    wait_for_picture(page)
    page.keyboard.press("u")
    expect(page.locator("#notice")).to_have_text("Taken back.")
    expect(page.locator("#place")).not_to_contain_text("unsaved")
    assert statements(served) == []


def test_a_flag_decides_nothing_and_leads_a_colleague_there(served: Served, visit: Visit) -> None:
    page = visit("/review?status=ok")
    expect(page.locator("#place")).to_contain_text("left")
    left = page.locator("#place").inner_text().split(" left")[0].split()[-1]
    source = str(page.locator("#stage img").get_attribute("src"))
    first = source.split("/")[-2]
    wait_for_picture(page)
    page.keyboard.press("m")
    expect(page.locator("#stage img")).not_to_have_attribute("src", source)
    expect(page.locator("#place")).not_to_contain_text("unsaved")

    def elsewhere(route: Route) -> None:
        detail = route.fetch().json()
        detail["statements"][0]["asserted_at"] = "2026-05-01T01:30:00+02:00"
        route.fulfill(json=detail)

    page.route(f"**/v1/images/{first}?*", elsewhere, times=1)
    page.goto(f"{served.url}/images/{first}")
    expect(page.locator("#place")).to_contain_text("⚑ flagged")
    expect(page.locator("#statements")).to_contain_text(re.compile("2026-04-30 23:30 UTC .*flagged"))
    assert statements(served) == []
    page.goto(f"{served.url}/review?status=ok")
    expect(page.locator("#place")).to_contain_text(f"{left} left")
    wait_for_picture(page)
    page.keyboard.press("Shift+Enter")
    expect(page.locator("#place")).to_contain_text(f"{int(left) - 1} left")
    for _ in range(2):
        page.keyboard.press("u")
        expect(page.locator("#notice")).to_contain_text("Taken back.")
        expect(page.locator("#place")).not_to_contain_text("unsaved")
    expect(page.locator("#place")).to_contain_text(f"{left} left")
    assert statements(served) == []


def test_a_flag_on_a_decided_picture_is_reviewed_too(served: Served, visit: Visit) -> None:
    page = visit("/review?status=ok")
    wait_for_picture(page)
    source = page.locator("#stage img")
    first = str(source.get_attribute("src"))
    for key in ("Shift+Enter", "m"):
        page.goto(f"{served.url}/images/{first.split('/')[-2]}")
        wait_for_picture(page)
        page.keyboard.press(key)
        expect(page.locator("#place")).not_to_contain_text("unsaved")
    while not json.loads(json.dumps(fetched(page, "/images/count?flagged=true")))["count"]:
        pass  # the list follows
    page.goto(f"{served.url}/images?flagged=true")
    page.get_by_role("link", name="Review these").click()
    expect(source).to_have_attribute("src", first)
    expect(page.locator("#place")).to_contain_text("1 left")
    for _ in range(2):
        page.keyboard.press("u")
        expect(page.locator("#notice")).to_contain_text("Taken back.")
        expect(page.locator("#place")).not_to_contain_text("unsaved")
    assert statements(served) == []


def test_arrows_go_to_events_and_g_to_the_grid(served: Served, visit: Visit) -> None:
    page = visit("/review?status=ok")
    expect(page.locator("#boxes li")).not_to_have_count(0)
    source, passed = page.locator("#stage img"), list[object]()
    for key in ("ArrowDown", "ArrowUp", ""):
        before = str(source.get_attribute("src"))
        detail = fetched(page, f"/images/{before.split('/')[-2]}")
        assert isinstance(detail, dict)
        passed.append(detail["event_id"])
        if key:
            page.keyboard.press(key)
            expect(source).not_to_have_attribute("src", before)
            expect(page.locator("#place")).to_contain_text("left")
    assert passed[0] == passed[2] != passed[1]
    time = page.locator("#place").inner_text()[:16]
    page.keyboard.press("g")
    page.wait_for_url("**/ui/images?*at=*")
    expect(page.locator(".cell .when").first).to_contain_text(time)
    page.keyboard.press("?")
    expect(page.locator("#keys-table")).to_contain_text("Ctrl+Z")


def test_a_picture_of_the_burst_leads_on_to_the_next_of_the_order(served: Served, visit: Visit) -> None:
    page = visit("/images")
    event = str(long_event(page)["event_id"])
    columns = json.loads(json.dumps(fetched(page, "/images?limit=500")))["columns"]
    of_event, others = (
        [sha for sha, of in zip(columns["media_sha256"], columns["event_id"], strict=True) if (of == event) is within]
        for within in (True, False)
    )
    order = [others[0], of_event[0], others[1]]
    page.route("**/images/uncertain?*", lambda route: route.fulfill(json=order))
    page.goto(f"{served.url}/review?order=uncertain")
    wait_for_picture(page)
    source = page.locator("#stage img")
    page.keyboard.press("d")
    expect(source).to_have_attribute("src", re.compile(of_event[0]))
    page.locator(f"#strip a[href*='{of_event[1]}']").click()
    expect(source).to_have_attribute("src", re.compile(of_event[1]))
    wait_for_picture(page)
    page.keyboard.press("d")
    expect(source).to_have_attribute("src", re.compile(others[1]))


def test_two_versions_are_chosen_from_lists(served: Served, visit: Visit) -> None:
    page = visit("/review?status=ok")
    page.get_by_text("Filter and order").click()
    page.get_by_label("Order").select_option("disagreement")
    run = page.get_by_label("Compared with").locator("option").nth(1).get_attribute("value")
    page.get_by_label("Compared with").select_option(run)
    page.locator(".filter").get_by_role("button", name="Show").click()
    expect(page.locator("#stage .other").first).to_be_attached()
    expect(page.locator("#second li")).to_have_count(page.locator("#stage .other").count())
    digest = page.evaluate("document.querySelector('#stage img').src").split("/")[-2]
    ranked = fetched(page, f"/images/disagreement?run={run}&status=ok&reviewed=false&limit=500")
    assert isinstance(ranked, list)
    assert ranked[0] == digest
    page.goto(f"{served.url}/images/{digest}?status=ok")
    page.get_by_text("View and versions").click()
    page.get_by_label("Boxes of").select_option(run)
    page.locator(".filter").get_by_role("button", name="Show").click()
    page.wait_for_url(f"**shown={run}*")
    expect(page.locator("#boxes li")).not_to_have_count(0)
    assert "status=ok" in page.url
