"""Look, decide by keys, reload, undo: each decision is in the table, and is gone again after its undo."""

from __future__ import annotations

import json
import re
import signal

from playwright.sync_api import Page, Route, expect

from tests.browser.conftest import Served, Visit


def statements(served: Served) -> list[dict[str, object]]:
    """Return the valid human statements, as a command reads them from the table."""
    rows: list[dict[str, object]] = json.loads(served.resight("assertions", "list", "--format", "json"))
    return rows


def shown(page: Page) -> str:
    return page.locator("#place").inner_text()


def test_a_picture_is_opened_decided_by_keys_and_undone_after_a_reload(served: Served, visit: Visit) -> None:
    assert statements(served) == []
    page = visit("/images?status=ok")
    expect(page.locator("#count")).to_have_text("{n} images".replace("{n}", str(count(page))))
    cell = page.locator("#grid .cell").first
    expect(cell.locator("img")).to_have_js_property("complete", True)
    cell.locator("a").click()
    wait_for_picture(page)
    first = page.url.split("/")[-1][:64]

    page.keyboard.press("Enter")
    expect(page).not_to_have_url(re.compile(first))
    wait_for_picture(page)
    page.keyboard.press("j")
    page.keyboard.press("x")
    expect(page.locator("#boxes")).to_contain_text("rejected")
    expect(page.locator("#place")).not_to_contain_text("unsaved")
    said = statements(served)
    assert {row["action"] for row in said} == {"keep", "suppress"}
    assert {row["media_sha256"] for row in said if row["action"] == "keep"} == {first}

    page.reload()
    expect(page.locator("#boxes")).to_contain_text("rejected")
    page.keyboard.press("u")
    expect(page.locator("#boxes")).not_to_contain_text("rejected")
    assert {row["action"] for row in statements(served)} == {"keep"}
    page.keyboard.press("u")
    assert_taken_back(page)
    assert statements(served) == []


def test_an_earlier_decision_is_taken_back_alone(served: Served, visit: Visit) -> None:
    page = visit("/images?status=ok")
    page.locator("#grid .cell a").first.click()
    taken = page.locator("#statements").get_by_role("button", name="Take back")

    def reject() -> None:
        wait_for_picture(page)
        box = page.locator("#boxes button").first
        if box.get_attribute("aria-pressed") == "false":
            box.click()
        page.keyboard.press("x")
        expect(page.locator("#boxes")).to_contain_text("rejected")
        expect(taken).to_have_count(1)

    reject()
    first = page.url.split("/")[-1][:64]
    page.keyboard.press("d")
    expect(page).not_to_have_url(re.compile(first))
    reject()
    page.keyboard.press("a")
    expect(page).to_have_url(re.compile(first))
    wait_for_picture(page)
    taken.click()
    expect(page.locator("#boxes")).not_to_contain_text("rejected")
    expect(taken).to_have_count(0)
    (left,) = statements(served)
    assert left["media_sha256"] != first
    page.keyboard.press("u")  # the last decision that stands, not that of the picture here
    assert_taken_back(page)
    assert statements(served) == []


def test_two_people_on_one_picture_both_have_their_word(served: Served, visit: Visit) -> None:
    ana, ben = signed_in(visit, "Ana"), signed_in(visit, "Ben")
    ana.goto(f"{served.url}/review?status=ok&camera=deer-north")
    wait_for_picture(ana)
    digest = ana.evaluate("document.querySelector('#stage img').src").split("/")[-2]
    ben.goto(f"{served.url}/images/{digest}")
    wait_for_picture(ben)
    ana.goto(f"{served.url}/images/{digest}")
    wait_for_picture(ana)
    for person, key in ((ana, "j"), (ben, "j")):
        person.keyboard.press(key)
    ana.keyboard.press("x")
    expect(ana.locator("#boxes")).to_contain_text("rejected")
    ben.keyboard.press("l")
    give_new_label(ben, "wolf")
    expect(ben.locator("#place")).not_to_contain_text("unsaved")
    expect(ben.locator("#notice")).to_contain_text("Somebody else changed this image")
    ana.keyboard.press("u")
    assert_taken_back(ana)
    said = [(row["actor"], row["label"]) for row in statements(served)]
    assert said == [("Ben", "wolf")], "the undo of one person leaves the word of the other"
    ben.keyboard.press("u")
    assert_taken_back(ben)
    assert statements(served) == []


def give_new_label(page: Page, label: str) -> None:
    """Type a label in the question that is open; the second Enter adds it."""
    page.locator("#label-input").fill(label)
    page.keyboard.press("Enter")
    expect(page.locator("#label-new")).to_contain_text(f"“{label}” is a new label")
    page.keyboard.press("Enter")


def assert_taken_back(page: Page) -> None:
    expect(page.locator("#notice")).to_have_text("Taken back.")
    expect(page.locator("#place")).not_to_contain_text("unsaved")


def signed_in(visit: Visit, name: str) -> Page:
    page = visit("/session")
    page.get_by_label("Your name").fill(name)
    page.get_by_role("button", name="Use this name").click()
    expect(page.locator(".who")).to_have_text(name)
    return page


def test_nothing_is_decided_before_the_picture_can_be_seen(served: Served, visit: Visit) -> None:
    page, held = visit("/session"), list[Route]()
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if request.method == "POST" else None)
    page.route("**/thumbnail?w=1600", lambda route: held.append(route))
    page.goto(f"{served.url}/review?status=ok")
    expect(page.locator("#boxes li")).not_to_have_count(0)
    expect(page.locator("#stage")).to_have_attribute("aria-busy", "true")
    source = str(page.locator("#stage img").get_attribute("src"))
    for key in ("Enter", "Shift+Enter", "0", "m", "r", "b"):
        page.keyboard.press(key)
    assert (sent, page.locator("#stage.drawing").count()) == ([], 0)
    page.keyboard.press("d")
    expect(page.locator("#stage img")).not_to_have_attribute("src", source)
    page.keyboard.press("Shift+Enter")
    page.keyboard.press("a")
    expect(page.locator("#stage img")).to_have_attribute("src", source)
    expect(page.locator("#place")).not_to_contain_text("unsaved")
    assert sent == []
    page.unroute("**/thumbnail?w=1600")  # the held ones go on
    wait_for_picture(page)
    page.route("**/neighbours?**", lambda route: held.append(route))
    page.keyboard.press("n")
    expect(page.locator("#stage")).to_have_attribute("aria-busy", "true")
    page.keyboard.press("Shift+Enter")  # would be about the picture that is left
    page.keyboard.press("l")
    assert (sent, page.locator("dialog[open]").count()) == ([], 0)
    page.unroute("**/neighbours?**")
    wait_for_picture(page)
    with page.expect_request("**/v1/assertions"):
        page.keyboard.press("Shift+Enter")
    page.keyboard.press("u")
    assert_taken_back(page)
    assert statements(served) == []


def test_an_answer_that_is_cut_off_is_not_the_end_of_the_list(visit: Visit) -> None:
    page = visit("/session")
    page.route("**/original", lambda route: route.fulfill(body="", content_type="image/tiff"))
    page.route("**/neighbours?**", lambda route: route.fulfill(body='{"previous": null, "ne'))
    page.goto(page.url.replace("/session", "/review?status=ok"))
    wait_for_picture(page)
    page.keyboard.press("d")
    expect(page.locator("#notice")).to_have_text("The server does not answer.")
    with page.expect_request("**/original"):
        for _ in range(6):
            page.keyboard.press("+")
    expect(page.locator("#stage img")).to_have_attribute("src", re.compile("/thumbnail"))
    expect(page.locator("#stage.unreadable")).to_have_count(0)


def test_decisions_survive_a_server_that_is_killed(served: Served, visit: Visit) -> None:
    page = visit("/review?status=ok")
    wait_for_picture(page)
    served.server.end(signal.SIGKILL)
    page.keyboard.press("Shift+Enter")
    expect(page.locator("#place")).to_contain_text("1 unsaved")
    expect(page.locator("#notice")).to_contain_text("Not saved yet")
    served.server.start()
    expect(page.locator("#place")).not_to_contain_text("unsaved")
    expect(page.locator("#notice")).to_be_hidden()
    assert len({row["media_sha256"] for row in statements(served)}) == 1
    page.keyboard.press("u")
    assert_taken_back(page)
    assert statements(served) == []


def test_half_a_label_is_not_stored_without_a_question(served: Served, visit: Visit) -> None:
    page = visit("/review?status=ok")
    known = page.locator("#buttons button").last.inner_text().split(maxsplit=1)[1]
    first, asked = picture(page), page.locator("#label-new")
    page.keyboard.press("l")
    page.keyboard.type(known[:-1])
    page.keyboard.press("Enter")
    expect(asked).to_contain_text(f"“{known[:-1]}” is a new label: Enter again adds it. Known:")
    expect(asked).to_contain_text(known)
    page.keyboard.type(known[-1])
    page.keyboard.press("Enter")
    expect(page.locator("#stage img")).not_to_have_attribute("src", first)
    expect(page.locator("#place")).not_to_contain_text("unsaved")
    assert {row["label"] for row in statements(served)} == {known}
    page.keyboard.press("u")
    assert_taken_back(page)


def test_an_undo_is_shown_before_it_is_saved(served: Served, visit: Visit) -> None:
    page, held = visit("/review?status=ok"), list[Route]()
    expect(page.locator("#place")).to_contain_text(f"{count(page)} left")
    first, n = picture(page), count(page)
    page.keyboard.press("Shift+Enter")
    expect(page.locator("#place")).to_contain_text(f"{n - 1} left")
    expect(page.locator("#stage img")).not_to_have_attribute("src", first)
    page.route("**/assertions/undo", lambda route: held.append(route))
    with page.expect_request("**/assertions/undo"):
        page.keyboard.press("U")  # as with Caps Lock
    expect(page.locator("#stage img")).to_have_attribute("src", first)
    expect(page.locator("#notice")).to_have_text("Taken back.")
    expect(page.locator("#place")).to_contain_text(f"{n} left")
    held[0].continue_()
    expect(page.locator("#place")).not_to_contain_text("unsaved")
    assert statements(served) == []


def test_digits_keep_their_labels_across_decisions_cameras_and_reloads(served: Served, visit: Visit) -> None:
    page = visit("/review?status=ok&camera=deer-north")
    buttons = page.locator("#buttons")
    first, digits = picture(page), buttons.inner_text()
    page.keyboard.press("8")  # the rarest label of the sample
    expect(page.locator("#stage img")).not_to_have_attribute("src", first)
    wait_for_picture(page)
    buttons.get_by_role("button").last.dispatch_event("click", {"detail": 2})  # the second of a double click
    expect(page.locator("#place")).not_to_contain_text("unsaved")
    frequent = page.evaluate("fetch('/ui/v1/images/histogram?by=label&camera=deer-north').then(a => a.json())")
    assert f"1{frequent[0]['value']}" in digits.replace("\n", "").replace(" ", "")
    for camera in ("bee-hotel", "deer-north"):
        page.goto(f"{served.url}/review?status=ok&camera={camera}")
        wait_for_picture(page)
    expect(buttons).to_have_text(digits, use_inner_text=True)
    page.keyboard.press("u")
    assert_taken_back(page)
    assert statements(served) == []


def test_hidden_boxes_are_drawn_by_a_key_and_an_empty_list_has_no_picture(served: Served, visit: Visit) -> None:
    page = visit("/session")
    columns = page.evaluate("fetch('/ui/v1/images?status=empty&limit=500').then(a => a.json())")["columns"]
    detail = "sha => fetch(`/ui/v1/images/${sha}`).then(a => a.json())"
    boxes = {
        path: page.evaluate(detail, sha)["boxes"]
        for sha, path in zip(columns["media_sha256"], columns["path"], strict=True)
    }
    path = next(path for path, hidden in boxes.items() if hidden)
    page.goto(f"{served.url}/review?status=empty&path={path}")
    picture(page)
    notice, drawn = page.locator("#notice"), page.locator("#stage .box")
    for n, words in ((0, "No box: draw one with B."), (len(boxes[path]), "Choose a box first: J and K, or a click.")):
        expect(drawn).to_have_count(n)
        page.keyboard.press("1")
        expect(notice).to_have_text(words)
        page.keyboard.press("h")
    expect(drawn).to_have_count(0)
    page.keyboard.press("b")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Add")).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    page.keyboard.press("Shift+Digit0")
    expect(page.locator("#place")).to_have_text("Nothing is left to review.")
    expect(page.get_by_role("heading", name="Statements")).to_be_hidden()
    page.locator("#buttons").get_by_role("button").click()  # the only one
    assert_taken_back(page)
    expect(page.get_by_role("heading", name="Statements")).to_be_visible()
    assert statements(served) == []


def test_a_drawn_animal_outlives_a_quick_enter(served: Served, visit: Visit) -> None:
    page, held = visit("/review?status=empty"), list[Route]()
    picture(page)
    page.route("**/v1/assertions", lambda route: held.append(route), times=1)
    page.keyboard.press("b")
    page.keyboard.press("Enter")
    give_new_label(page, "ocelot")
    expect(page.locator("#boxes")).to_contain_text("ocelot")
    page.keyboard.press("Shift+Enter")  # before the server has answered
    expect(page.locator("#boxes")).not_to_contain_text("ocelot")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#boxes")).to_contain_text("ocelot")
    held[0].continue_()
    expect(page.locator("#place")).not_to_contain_text("unsaved")
    assert [(row["action"], row["label"]) for row in statements(served)] == [("add", "ocelot")]
    page.keyboard.press("u")
    assert_taken_back(page)
    assert statements(served) == []


def test_a_box_that_is_drawn_by_pointer_stays_chosen_once_it_is_saved(served: Served, visit: Visit) -> None:
    page, held = visit("/review?status=empty"), list[Route]()
    picture(page)
    page.route("**/v1/assertions", lambda route: held.append(route), times=1)
    page.locator("#buttons").get_by_role("button", name="Draw").click()
    stage = page.locator("#stage").bounding_box()
    assert stage
    for share, act in ((0.41, page.mouse.down), (0.57, page.mouse.up)):
        page.mouse.move(stage["x"] + share * stage["width"], stage["y"] + share * stage["height"])
        act()
    give_new_label(page, "margay")
    page.locator("#boxes button").last.click()
    chosen = page.locator("#boxes button[aria-pressed=true]")
    expect(chosen).to_contain_text("margay")
    held[0].continue_()
    expect(page.locator("#statements li:not(.past)")).to_contain_text("margay")
    expect(chosen).to_contain_text("margay")
    page.keyboard.press("u")
    assert_taken_back(page)
    assert statements(served) == []


def test_enter_after_a_click_on_a_button_is_a_key_of_its_own(visit: Visit) -> None:
    page = visit("/review?status=ok")
    picture(page)
    page.locator("#buttons").get_by_role("button", name="Draw").click()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Add", exact=True)).to_be_visible()


def test_n_walks_on_to_the_next_picture_without_a_decision(visit: Visit) -> None:
    page = visit("/review?status=ok")
    seen = [picture(page)]
    for key in ("d", "n", "n"):
        page.keyboard.press(key)
        expect(page.locator("#stage img")).not_to_have_attribute("src", seen[-1])
        seen.append(picture(page))
    assert len(set(seen)) == 4


def wait_for_picture(page: Page) -> None:
    """Wait until the picture with its boxes can be seen; until then, no key decides."""
    expect(page.locator("#stage")).to_have_attribute("aria-busy", "false")


def picture(page: Page) -> str:
    """Return the address of the picture that is shown, once its boxes and the keys are."""
    wait_for_picture(page)
    expect(page.locator("#buttons button")).not_to_have_count(0)
    return str(page.locator("#stage img").get_attribute("src"))


def count(page: Page) -> int:
    """Return the number of images that the API counts for the filter of the page."""
    return int(page.evaluate("fetch('/ui/v1/images/count' + location.search).then(a => a.json())")["count"])


def test_decisions_about_many_pictures_leave_room_in_the_browser(visit: Visit) -> None:
    """An undo of a decision that added nothing is not sent: the server would not find it."""
    page, sent = visit("/images?status=ok"), list[str]()

    def answer(route: Route) -> None:
        sent.append(route.request.url)
        route.fulfill(json={"added": len(sent) - 1, "batch_id": (route.request.post_data_json or {})["batch_id"]})

    page.route(re.compile("/v1/assertions"), answer)
    undone = page.evaluate(
        """async () => {
            const { src } = document.querySelector("script[src*='grid.js']");
            const { decide, save, undo } = await import(src.replace("grid.js", "decisions.js"));
            const ids = [];
            decide({}, []);
            undo();
            await save();
            for (let n = 0; n < 45; n++) {
                ids.push(decide({}, Array(2000).fill("a".repeat(64))));
                await save();
            }
            return ids.indexOf(undo().batch_id);
        }"""
    )
    assert undone == 44
    assert not sent[1].endswith("/undo")
