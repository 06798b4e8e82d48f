"""Test that the tables of reports fit the page."""

from __future__ import annotations

from playwright.sync_api import Browser

from serve.pages import render

COLUMNS = ("images", "changed", "emptied", "filled", "shown old", "shown new", "matched", "lost", "new")
COLUMNS += ("relabelled from", "to", "shift mean", "median", "p5", "p95")


def test_the_widest_table_needs_no_scroll_bar_in_a_window_of_1200_px(browser: Browser) -> None:
    """The columns are those of an impact report by camera; a long name takes several lines."""
    head = "".join(f"<th>{name}</th>" for name in ("camera", *COLUMNS))
    cells = f"<td>camera_{'of_the_north_' * 4}</td>{'<td>1234</td>' * 11}{'<td>+0.2936</td>' * 4}"
    table = f'<table class="numbers"><thead><tr>{head}</tr></thead><tbody><tr>{cells}</tr></tbody></table>'
    with browser.new_page(viewport={"width": 1200, "height": 800}) as page:
        page.set_content(render("serve/page.html", title="Report").replace("</body>", f"{table}</body>"))
        width, room = page.evaluate("(t => [t.scrollWidth, t.clientWidth])(document.querySelector('table'))")
    assert width <= room
