"""Forms in a browser: what they send, and errors at the fields that the server names."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from batch.filters.registry import FILTERS
from tests.browser.conftest import Served, Visit, visits


def test_a_camera_and_its_deployment_are_added_corrected_and_deleted(visit: Visit) -> None:
    page = visit("/cameras")
    page.get_by_text("Add a camera").first.click()
    page.get_by_label("Camera", exact=True).fill(" gate/1 #2 ")
    page.get_by_role("button", name="Add a camera").click()
    page.wait_for_url(re.compile("/ui/cameras/gate.*1%20%232$"))
    page.get_by_text("Add a deployment").click()
    page.get_by_label("Location").fill("Mill")
    page.get_by_label("From").fill("2026-05-01T09:30")
    page.get_by_label("Until").fill("2026-04-01T09:30")
    page.get_by_label("Latitude").fill("52.5")
    page.get_by_role("button", name="Add deployment").click()
    until = page.get_by_label("Until")
    expect(until).to_have_attribute("aria-invalid", "true")
    expect(page.locator(".field:has([name=until_local]) + .field-error")).to_contain_text("is not after")
    expect(page.locator(".field:has([name=longitude]) + .field-error")).to_contain_text("together")
    expect(page.get_by_label("Location")).to_have_value("Mill")
    until.fill("")
    page.get_by_label("Latitude").fill("")
    page.get_by_label("or: the camera showed").fill("2026-05-02T10:00")
    page.get_by_label("when it really was").fill("2026-05-02T11:00:30")
    expect(page.get_by_label("Seconds to add")).to_have_value("3630")
    expect(page.locator(".example")).to_contain_text("2026-05-01 09:30:00 → 2026-05-01 10:30:30")
    page.get_by_role("button", name="Add deployment").click()
    deployment = page.locator("details").filter(has_text="clock corrected by 3630 s")
    expect(deployment).to_be_visible()
    deployment.locator("summary").click()
    deployment.get_by_role("button", name="Delete").click()
    expect(page.get_by_text("No deployment yet.")).to_be_visible()
    page.get_by_role("button", name="Delete camera").click()
    page.wait_for_url(re.compile("/ui/cameras$"))
    expect(page.get_by_role("link", name="gate/1 #2")).to_have_count(0)


def test_errors_of_the_server_are_shown_in_german(visit: Visit) -> None:
    page = visit("/cameras", locale="de-DE")
    page.get_by_text("Kamera hinzufügen").first.click()
    page.get_by_label("Kamera", exact=True).fill("a\tb")
    page.get_by_role("button", name="Kamera hinzufügen").click()
    expect(page.locator(".field-error[data-of]")).to_contain_text("verwenden Sie druckbare Zeichen")
    page.goto(page.url.replace("/cameras", "/images"))
    page.get_by_role("button", name="Alle passenden auswählen").click()
    page.get_by_role("button", name="Bestätigen").click()
    expect(page.locator("#notice")).to_contain_text("eine Auswahl braucht einen Filter mit einer Bedingung")


@pytest.fixture(scope="module")
def filters(browser: Browser, served: Served) -> Iterator[Page]:
    """A page that goes from filter to filter."""
    with visits(browser, served) as visit:
        yield visit("/session")


@pytest.mark.parametrize("kind", FILTERS)
def test_the_form_of_a_filter_sends_its_defaults(filters: Page, served: Served, kind: str) -> None:
    page = filters
    page.goto(f"{served.url}/filters/{kind}")
    sent = page.evaluate(
        """async () => {
            const { values } = await import(document.querySelector("script[src*='actions.js']").src);
            return values(document.getElementById("filter"));
        }"""
    )
    config = FILTERS[kind].config
    assert config.model_validate(sent.pop("config")) == config()
    assert sent == {"view": "production", "scope": {"camera": []}}


def test_the_values_of_a_form_have_the_shapes_of_its_fields(visit: Visit) -> None:
    page = visit("/filters/rank-rollup")
    page.get_by_label("Name 3 of thresholds").fill("")
    page.get_by_label("Name 4 of thresholds").fill("order")
    page.get_by_label("Value 4 of thresholds").fill("0.3")
    page.get_by_label("ranks (one a line)").fill("order\n\n genus \nspecies")
    page.get_by_role("group", name="ignored labels").get_by_label("Other labels").fill("fox\n cat ")
    page.get_by_label("strict").check()
    with page.expect_request("**/preview") as request:
        page.get_by_role("button", name="Preview", exact=True).click()
    config = (request.value.post_data_json or {})["config"]
    assert config["thresholds"] == {"species": "0.8", "genus": "0.6", "order": "0.3"}
    assert config["ranks"] == ["order", "genus", "species"]
    assert config["ignored_labels"][-2:] == ["fox", "cat"]
    assert (config["strict"], config["lineage"]) == (True, "constrained")
    folder = page.evaluate(
        """async () => {
            const { values } = await import(document.querySelector("script[src*='actions.js']").src);
            const form = document.createElement("form");
            form.innerHTML = '<input type="hidden" name="path" value="Site 1 ">';
            return values(form).path;
        }"""
    )
    assert folder == "Site 1 ", "names of folders can end with a space"
    page.get_by_label("Name 5 of thresholds").fill("genus")
    page.get_by_role("button", name="Preview", exact=True).click()
    expect(page.get_by_text("listed twice: genus")).to_be_visible()
    page.goto(page.url.replace("rank-rollup", "small-size"))
    page.get_by_label("per camera (JSON)").fill("{")
    page.get_by_role("button", name="Preview", exact=True).click()
    expect(page.get_by_text("invalid JSON")).to_be_visible()
    expect(page.get_by_label("per camera (JSON)")).to_be_focused()


def test_a_session_is_started_in_german_and_ended(visit: Visit) -> None:
    page = visit("/session")
    name = page.get_by_label("Your name")
    name.fill("a\u202eb")
    page.get_by_role("button", name="Use this name").click()
    expect(name).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_text("A name has 1 to 64")).to_be_visible()
    name.fill("Zoë")
    page.get_by_role("button", name="Use this name").click()
    page.wait_for_url(re.compile("/ui/$"))
    page.get_by_role("link", name="Zoë").click()
    page.get_by_label("Language").select_option("de")
    page.get_by_role("button", name="Use these").click()
    expect(page.get_by_text("Angemeldet")).to_be_visible()
    expect(page.get_by_role("row").filter(has_text="rückgängig")).to_have_count(1)
    page.get_by_role("button", name="Abmelden").click()
    expect(page.get_by_text("Angemeldet")).to_have_count(0)
