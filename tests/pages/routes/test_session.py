"""The login: what starts a session, where it leads, and what a wrong one costs."""

from __future__ import annotations

import asyncio
import html
import re
from pathlib import Path

import httpx2
import pytest

from model_store.errors import InvalidPolicy
from pages.context import Context
from pages.http_app import build_pages_app
from pages.routes import session as session_module
from serve.auth.browsers import COOKIE
from serve.auth.guard import Access
from serve.auth.scopes import TokenScope
from serve.auth.tokens import TokenFile

ALL = frozenset(TokenScope)
PAGE = {"accept": "text/html"}
SAME = {"sec-fetch-site": "same-origin"}


@pytest.fixture
def file(tmp_path: Path) -> TokenFile:
    return TokenFile(str(tmp_path / "tokens.json"))


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The delays that were waited for, in no time."""
    pauses = list[float]()

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(session_module.asyncio, "sleep", sleep)
    return pauses


def browser(context: Context, access: Access, at: str = "http://127.0.0.1:8000") -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(build_pages_app(context, access), root_path="/ui")
    return httpx2.AsyncClient(transport=transport, base_url=at)


async def login(client: httpx2.AsyncClient, headers: dict[str, str] = SAME, **fields: str) -> httpx2.Response:
    return await client.post("/ui/v1/session", json=fields, headers=headers)


async def test_a_token_opens_the_page_that_was_requested(context: Context, file: TokenFile) -> None:
    token = file.add("anna", [TokenScope.detect, TokenScope.review])
    async with browser(context, Access("secret", file)) as client:
        asked = await client.get("/ui/?a=1", headers=PAGE)
        form = await client.get(asked.headers["location"], headers=PAGE | SAME)
        assert form.status_code == 200
        assert 'data-then="//ui/?a=1"' in form.text, "of the whole server, not of the page"
        assert 'name="token" type="password"' in form.text
        answer = await login(client, token=f" {token} ")
        assert answer.status_code == 200
        assert token not in answer.headers["set-cookie"]
        assert (await client.get("/ui/", headers=PAGE)).status_code == 200
        own = await client.get("/ui/session", headers=PAGE)
        assert "Signed in as anna." in own.text
        assert 'name="token"' not in own.text


async def test_the_end_of_a_session_removes_the_cookie(context: Context, file: TokenFile) -> None:
    async with browser(context, Access("secret", file)) as client:
        await login(client, token="secret")
        assert client.cookies.get(COOKIE)
        answer = await client.post("/ui/v1/session/end", headers=SAME)
        assert answer.status_code == 200
        assert "clear-site-data" not in answer.headers
        assert not client.cookies.get(COOKIE)
        assert (await client.get("/ui/", headers=PAGE)).status_code == 303


@pytest.mark.parametrize("by_proxy", [True, False])
async def test_over_https_the_cookie_stays_there(context: Context, file: TokenFile, by_proxy: bool) -> None:
    """A proxy that ends TLS leaves the scheme in `Origin` only."""
    scheme, origin = ("http", {"origin": "https://page.example"}) if by_proxy else ("https", {})
    async with browser(context, Access("secret", file), f"{scheme}://page.example") as client:
        answer = await login(client, SAME | origin, token="secret")
        assert "; Secure" in answer.headers["set-cookie"]
        ended = await client.post("/ui/v1/session/end", headers=SAME | origin)
        assert ended.headers["clear-site-data"] == '"cache"'
    async with browser(context, Access("secret", file), "http://10.0.0.7") as client:
        plain = await login(client, SAME | {"origin": "http://10.0.0.7"}, token="secret")
        assert "Secure" not in plain.headers["set-cookie"]


async def test_a_wrong_token_is_refused_after_a_pause(context: Context, file: TokenFile, pauses: list[float]) -> None:
    async with browser(context, Access("secret", file)) as client:
        for fields in (
            {"token": "made-up"},
            {},
            {"name": "secret"},
            {"token": "<script>alert(1)</script>"},
            {"token": "x\r\nSet-Cookie: a=b"},
            {"token": "ü" * 900},
        ):
            answer = await login(client, SAME, **fields)
            assert answer.status_code == 401
            assert "unknown or revoked" in answer.json()["errors"]["token"]
            assert "set-cookie" not in answer.headers
            assert "made-up" not in answer.text
            assert "<script>alert" not in answer.text
    assert pauses == [session_module.FAILURE_S] * 6


async def test_a_token_that_cannot_read_is_explained(context: Context, file: TokenFile, pauses: list[float]) -> None:
    token = file.add("station", [TokenScope.upload])
    async with browser(context, Access(file=file)) as client:
        answer = await login(client, token=token)
    assert answer.status_code == 403
    assert "lacks the scope detect" in answer.text


async def test_a_special_error_of_a_login_has_the_words_of_its_base(
    context: Context, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuses(*_: object) -> str:
        raise InvalidPolicy("special")

    monkeypatch.setattr(Access, "start_session", refuses)
    async with browser(context, Access("secret")) as client:
        answer = await login(client, token="secret")
    assert "1 to 64 printable" in answer.json()["detail"]


async def test_many_wrong_tokens_lock_nobody_out(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = asyncio.Event()

    async def sleep(_: float) -> None:
        await gate.wait()

    monkeypatch.setattr(session_module.asyncio, "sleep", sleep)
    async with browser(context, Access("secret")) as client:
        slow = [asyncio.create_task(login(client, token=f"guess-{i}")) for i in range(session_module.MAX_FAILURES + 3)]
        full, _ = await asyncio.wait(slow, timeout=30, return_when=asyncio.FIRST_COMPLETED)
        answer = full.pop().result()
        assert answer.status_code == 429
        assert "too many failed logins" in answer.text
        assert (await login(client, token="secret")).status_code == 200
        gate.set()
        statuses = sorted([(await one).status_code for one in slow])
    assert statuses == [401] * session_module.MAX_FAILURES + [429] * 3


async def test_without_tokens_a_name_is_enough(context: Context, pauses: list[float]) -> None:
    async with browser(context, Access()) as client:
        assert (await client.get("/ui/", headers=PAGE)).status_code == 200
        form = await client.get("/ui/session", headers=PAGE)
        assert 'name="name"' in form.text
        assert 'name="token"' not in form.text
        for wrong in ("", " ", "a\nb", "x" * 65, "a\u202eb"):
            answer = await login(client, name=wrong)
            assert answer.status_code == 400
            assert "1 to 64 printable" in answer.json()["errors"]["name"]
        assert (await login(client, name="<b>Zoë & 山田</b>")).status_code == 200
        own = await client.get("/ui/session", headers=PAGE)
    assert "Signed in as &lt;b&gt;Zoë &amp; 山田&lt;/b&gt;." in own.text
    assert "<b>Zoë" not in own.text


async def test_a_login_leads_to_no_other_site(context: Context) -> None:
    strange = ("//evil.example", "https://evil.example/ui/", "/\\evil.example", "/ui/\r\nSet-Cookie: a=b")
    app = build_pages_app(context, Access("secret"))
    for follow in (*strange, "/\n/evil.example", "", "/" + "a" * 3000):
        transport = httpx2.ASGITransport(app, root_path="/ui")
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
            form = await client.get("/ui/session", params={"next": follow}, headers=PAGE)
            assert 'data-then="//ui/"' in form.text
            answer = await login(client, token="secret")
            (cookie,) = answer.headers.get_list("set-cookie")
            assert cookie.startswith(COOKIE)
            again = await client.get("/ui/session", params={"next": follow}, headers=PAGE)
            assert again.status_code == 200, "a session leads there neither"


@pytest.mark.parametrize(
    ("site", "opens"), [("cross-site", True), (None, True), ("none", False), ("same-origin", False)]
)
async def test_a_link_on_another_site_opens_for_a_person_with_a_session(
    context: Context, site: str | None, opens: bool
) -> None:
    """The browser withholds the cookie from the link, and sends it as soon as the page opens itself again."""
    headers = PAGE | ({"sec-fetch-site": site} if site else {})
    async with browser(context, Access("secret")) as client:
        link = "/ui/session?next=/ui/images%3Fcamera%3D%22north%22"
        page = await client.get(link, headers=headers)
        address = re.search('http-equiv="refresh" content="0;url=([^"]*)"', page.text)
        assert bool(address) == opens
        again = html.unescape(address[1]) if address else f"{link}&again=1"
        for headers_ in (headers, PAGE | SAME):
            once_more = await client.get(again, headers=headers_)
            assert once_more.status_code == 200
            assert "refresh" not in once_more.text, "once only"
        await login(client, token="secret")
        for path in (link, again):
            answer = await client.get(path, headers=headers)
            assert answer.status_code == 303
            assert answer.headers["location"] == "/ui/images?camera=%22north%22"


async def test_a_login_that_is_too_large_or_strange_is_refused(context: Context) -> None:
    async with browser(context, Access("secret")) as client:
        large = await login(client, token="x" * 9000)
        unknown = await login(client, token="secret", next="/ui/")
        form = await client.post("/ui/v1/session", content="token=secret", headers=SAME)
        strange = await client.post("/ui/v1/session", content=b'{"token": "\xff"}', headers=SAME)
    assert [large.status_code, unknown.status_code] == [413, 400]
    assert [form.status_code, strange.status_code] == [400, 400]


async def test_a_form_of_another_site_is_refused(context: Context) -> None:
    foreign = {"sec-fetch-site": "cross-site", "origin": "https://evil.example"}
    body = {"token": "secret", "name": "secret"}
    for access in (Access(), Access("secret")):
        async with browser(context, access) as client:
            for path in ("", "/end", "/look"):
                answer = await client.post(f"/ui/v1/session{path}", json=body, headers=foreign)
                assert answer.status_code == 403
                assert "set-cookie" not in answer.headers


async def test_language_and_colours_are_kept(context: Context) -> None:
    async with browser(context, Access("secret")) as client:
        for wrong in ({"language": "fr", "theme": "dark"}, {"language": "de"}):
            refused = await client.post("/ui/v1/session/look", json=wrong, headers=SAME)
            assert refused.status_code == 400
            assert "set-cookie" not in refused.headers
        german = {"language": "de", "theme": "dark"}
        answer = await client.post("/ui/v1/session/look", json=german, headers=SAME)
        assert answer.status_code == 200
        form = await client.get("/ui/session", headers=PAGE)
    assert 'lang="de" data-theme="dark"' in form.text
    assert '<option value="dark" selected>' in form.text
