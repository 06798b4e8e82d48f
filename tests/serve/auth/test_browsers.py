"""Requests of browsers: who may change something with a cookie, and who is sent to the login."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from fastapi import FastAPI, Request, Response
from starlette.datastructures import Headers

from serve.auth.browsers import COOKIE, LOGIN, RENEW_S, local_path
from serve.auth.guard import Access, Guard
from serve.auth.scopes import IDENTITY, TokenScope
from serve.auth.tokens import TokenFile
from tests.serve.auth.conftest import Clock

ALL = frozenset(TokenScope)
HOST = "192.168.1.7:8000"
PAGE = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


def guarded(access: Access, prefix: str = "", host: str = HOST, origins: tuple[str, ...] = ()) -> httpx2.AsyncClient:
    """An application that answers every request with the name of its sender."""
    api = FastAPI(openapi_url=None)

    @api.api_route("/{path:path}", methods=["GET", "HEAD", "POST", "PUT", "DELETE"])
    async def name(path: str, request: Request) -> Response:
        identity = request.scope.get(IDENTITY)
        kinds = {"thumb": "image/jpeg", "stream": "text/event-stream"}
        kind = kinds.get(path.rpartition("/")[2], "application/json")
        headers = {"set-cookie": "mine=1"} if path.endswith("own") else {}
        return Response(identity.name if identity else "", 200, headers, kind)

    api.add_middleware(Guard, access=access, origins=origins, prefix=prefix)
    transport = httpx2.ASGITransport(api, root_path=prefix)
    return httpx2.AsyncClient(transport=transport, base_url=f"http://{host}")


async def cookie_of(access: Access, text: str) -> dict[str, str]:
    return {"cookie": (await access.start_session(text, False)).partition(";")[0]}


@pytest.fixture(params=["closed", "open"])
async def access(request: Any, file: TokenFile) -> Access:
    return Access("secret" if request.param == "closed" else "", file)


FROM = [
    ({"sec-fetch-site": "same-origin"}, True),
    ({"sec-fetch-site": "same-site"}, False),
    ({"sec-fetch-site": "cross-site"}, False),
    ({"sec-fetch-site": "cross-site", "origin": f"http://{HOST}"}, False),
    ({"origin": f"http://{HOST}"}, True),
    ({"origin": f"https://{HOST}"}, True),  # a proxy has ended TLS
    ({"origin": "http://192.168.1.7:8001"}, False),
    ({"origin": f"http://{HOST}.evil.example"}, False),
    ({"origin": "null"}, False),
    ({"referer": f"http://{HOST}/ui/"}, False),
    ({}, False),
]


@pytest.mark.parametrize("prefix", ["", "/ui"])
@pytest.mark.parametrize(("headers", "passes"), FROM)
async def test_a_change_by_cookie_must_come_from_a_page_of_this_site(
    access: Access, prefix: str, headers: dict[str, str], passes: bool
) -> None:
    cookie = await cookie_of(access, "secret")
    async with guarded(access, prefix) as api:
        for method in ("POST", "PUT", "DELETE"):
            answer = await api.request(method, f"{prefix}/v1/x", headers=cookie | headers)
            assert (answer.status_code == 200) == passes, answer.text
            assert passes or answer.status_code == 403
        assert "session" in answer.text or passes or "other sites" in answer.text
        for method in ("GET", "HEAD"):
            origin = {name: headers[name] for name in headers if name != "origin"}
            read = await api.request(method, f"{prefix}/v1/x", headers=cookie | origin)
            embedded = headers.get("sec-fetch-site") == "cross-site"
            shows_pictures = access.open and prefix == "/ui"
            assert read.status_code == (403 if embedded and shows_pictures else 200)


@pytest.mark.parametrize("path", ["/ui/v1/session"])
@pytest.mark.parametrize(("headers", "passes"), FROM)
async def test_another_site_can_neither_log_in_nor_out(
    access: Access, path: str, headers: dict[str, str], passes: bool
) -> None:
    async with guarded(access, "/ui") as api:
        assert (await api.post(path, headers=headers)).status_code == (200 if passes else 403)
        assert (await api.get("/ui/session", headers=headers)).status_code == 200


@pytest.mark.parametrize("host", ["evil.example:8000"])
async def test_a_page_with_a_rebound_name_changes_nothing_without_tokens(file: TokenFile, host: str) -> None:
    """Its origin is its host, so the browser reports the same site."""
    access = Access(file=file)
    rebound = {"origin": f"http://{host}", "sec-fetch-site": "same-origin"}
    cookie = await cookie_of(access, "Anna")
    async with guarded(access, "/ui", host) as api:
        for path in ("/ui/v1/session", "/ui/v1/session/end", "/ui/v1/assertions", "/ui/v1/x"):
            for headers in (rebound, rebound | cookie):
                answer = await api.post(path, headers=headers)
                assert answer.status_code == 403, path


async def test_the_first_request_of_a_replica_can_be_a_login(file: TokenFile) -> None:
    """The tokens are read before the guard decides whether the name of the host matters."""
    login = {"origin": "http://evil.example", "sec-fetch-site": "same-origin"}
    async with guarded(Access(file=file), "/ui", "evil.example") as api:
        assert (await api.post("/ui/v1/session", headers=login)).status_code == 403
    file.add("anna", ALL)
    async with guarded(Access(file=file), "/ui", "evil.example") as api:
        assert (await api.post("/ui/v1/session", headers=login)).status_code == 200, "needs a token"


async def test_a_site_that_is_allowed_cannot_use_the_session(access: Access) -> None:
    """Named in cors_origins: it may send requests with its own token."""
    site = "http://192.168.1.7:9000"
    origin = {"origin": site, "sec-fetch-site": "same-site"}
    async with guarded(access, origins=(site,)) as api:
        bearer = {"authorization": "Bearer secret"}
        assert (await api.post("/v1/x", headers=origin | bearer)).status_code == 200
        cookie = await cookie_of(access, "secret")
        assert (await api.post("/v1/x", headers=origin | cookie)).status_code == 403


@pytest.mark.parametrize(
    ("path", "follow"),
    [
        ("/ui/images?camera=north&label=fox", "/ui/images?camera=north&label=fox"),
        ("/ui/cameras/H%C3%B6hle%2F1", "/ui/cameras/H%C3%B6hle/1"),
        ("/ui/%0d%0aSet-Cookie:%20x=1", "/ui/%0D%0ASet-Cookie%3A%20x%3D1"),
    ],
)
async def test_a_page_without_a_session_leads_to_the_login_and_back(path: str, follow: str) -> None:
    async with guarded(Access("secret"), "/ui") as api:
        for headers in (PAGE, PAGE | {"cookie": f"{COOKIE}=forged"}):
            answer = await api.get(path, headers=headers)
            assert answer.status_code == 303
            assert answer.headers["cache-control"] == "no-store"
            assert "set-cookie" not in answer.headers
            location = urlsplit(answer.headers["location"])
            assert location[:3] == ("", "", LOGIN)
            assert parse_qs(location.query) == {"next": [follow]}
            assert local_path(follow) == follow


async def test_the_address_alone_leads_to_the_login_and_on_to_the_page() -> None:
    async with guarded(Access("secret")) as api:
        answer = await api.get("/", headers=PAGE)
    assert (answer.status_code, answer.headers["location"]) == (303, f"{LOGIN}?next=/")
    mounted = Guard(FastAPI(), Access("secret"))
    transport = httpx2.ASGITransport(mounted, root_path="/runs")
    async with httpx2.AsyncClient(transport=transport, base_url=f"http://{HOST}") as api:
        assert (await api.get("/runs/", headers=PAGE)).status_code == 401, "it is no page"


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", "/ui/v1/cells", PAGE),
        ("POST", "/ui/images", PAGE),
        ("GET", "/ui/images", {"accept": "application/json"}),
        ("GET", "/ui/images", PAGE | {"authorization": "Bearer made-up"}),
    ],
)
async def test_programs_are_answered_401(method: str, path: str, headers: dict[str, str]) -> None:
    async with guarded(Access("secret"), "/ui") as api:
        answer = await api.request(method, path, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "//evil.example",
        "/\\evil.example",
        "https://evil.example",
        "/ui\r\nSet-Cookie: x=1",
        "/\t/evil.example",
        "/ui/ü",
        "/ui/" + "a" * 2000,
    ],
)
def test_what_is_not_a_path_of_this_site_is_not_followed(text: str) -> None:
    assert local_path(text) is None


async def test_answers_renew_a_session_that_is_used(file: TokenFile, clock: Clock) -> None:
    access = Access("secret", file)
    cookie = await cookie_of(access, "secret")
    async with guarded(access, "/ui") as api:
        fresh = await api.get("/ui/v1/x", headers=cookie)
        clock.now += RENEW_S
        old = await api.get("/ui/v1/x", headers=cookie)
        others = [await api.get(f"/ui/v1/{x}", headers=cookie) for x in ("thumb", "stream", "own")]
    assert "set-cookie" not in fresh.headers
    assert old.headers["set-cookie"].startswith(f"{COOKIE}=token.0.")
    assert not [answer for answer in others if COOKIE in answer.headers.get("set-cookie", "")]
    renewed = Headers({"cookie": old.headers["set-cookie"].partition(";")[0]})
    assert (await access.check(renewed, TokenScope.admin)).name == "operator"


async def test_the_open_page_is_read_under_a_fixed_host_only(file: TokenFile) -> None:
    """A page of another site could point its own name to this machine, and read pictures without `Origin`."""
    open_access = Access("", file)
    for name, status in (("localhost", 200), ("127.0.0.1:8000", 200), ("evil.example", 403)):
        async with guarded(open_access, "/ui") as api:
            read = await api.get("/ui/v1/x", headers={"host": name})
            assert read.status_code == status, name
            followed = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
            link = await api.get("/ui/v1/x", headers={"host": name, **followed})
            assert link.status_code == status, "a link of another site may be followed"


async def test_a_page_with_a_very_long_query_leads_to_the_login_alone() -> None:
    async with guarded(Access("secret"), "/ui") as api:
        answer = await api.get("/ui/images?" + "a" * 3000, headers=PAGE)
    assert (answer.status_code, answer.headers["location"]) == (303, LOGIN)
