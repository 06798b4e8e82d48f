"""Headers of the page: every answer has them, also an error and a redirect."""

from __future__ import annotations

from starlette.testclient import TestClient

from pages.context import Context
from pages.http_app import build_pages_app
from serve.auth.guard import Access

POLICY = {
    "default-src 'self'",
    "img-src 'self' blob:",
    "style-src 'self'",
    "frame-ancestors 'none'",
    "base-uri 'none'",
    "form-action 'self'",
}


def test_every_answer_has_the_policy(context: Context) -> None:
    app = build_pages_app(context, Access("secret"))
    client = TestClient(app, "http://127.0.0.1:8000", root_path="/ui", follow_redirects=False)
    for method, path, status in (
        ("GET", "/ui/", 303),
        ("GET", "/ui/session", 200),
        ("GET", "/ui/v1/nothing", 401),
        ("POST", "/ui/v1/session", 403),
        ("GET", "/ui/static/0000/page.css", 200),
        ("GET", "/ui/static/0000/nothing.css", 404),
        ("GET", "/ui/session?unknown=1", 400),
        ("PATCH", "/ui/session", 401),
    ):
        answer = client.request(method, path, headers={"accept": "text/html"})
        assert answer.status_code == status
        assert set(answer.headers["content-security-policy"].split("; ")) == POLICY
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"


def test_a_route_can_have_a_stricter_policy(client: TestClient) -> None:
    assert "default-src 'none'" in client.get("/ui/docs").headers["content-security-policy"]
