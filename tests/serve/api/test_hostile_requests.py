"""Wrong methods, content types, headers, queries and controls: a 4xx, or they do not matter; never a 5xx."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi import FastAPI

from tests.serve.api.v2.test_inference import of_images
from tests.serve.hostile import CANARY, CAT, DETECT, INFER, client, tried

DIGITS = "9" * 5000
"""More than int() takes."""


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    yield from tried(tmp_path_factory.mktemp("hostile"))


async def test_every_method_on_every_path_is_answered(api: FastAPI) -> None:
    async with client(api) as asked:
        paths = (await asked.get("/openapi.json")).json()["paths"]
        for path, known in paths.items():
            real = path.replace("{model}", "blobs").replace("{name}", "blobs")
            real = real.replace("{version}", "1").replace("{outcome_id}", "x")
            for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"):
                answer = await asked.request(method, real)
                assert answer.status_code < 500, (method, path, answer.text)
                if method.lower() not in known and path != "/v1/models/reload":
                    assert answer.status_code == 405, (method, path)
                    assert known.keys() >= {m.lower() for m in answer.headers["allow"].split(", ")}


KINDS = [
    "",
    "application/json",
    "\xff" * 3000,
    "multipart/mixed; boundary=a",
    "multipart/form-data",
    'multipart/form-data; boundary="',
    "multipart/form-data; boundary=\xff\xfe",
    "multipart/form-data; boundary*=utf-9''x%ff",
]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_wrong_content_type_is_refused_or_does_not_matter(api: FastAPI, kind: str) -> None:
    async with client(api) as asked:
        headers = [(b"content-type", kind.encode("latin-1"))]
        found = await asked.post(DETECT, content=CAT, headers=headers)
        assert found.status_code == (400 if kind.startswith("multipart") else 200), found.text
        body, more = of_images(CAT)
        sent = [*headers, *((k.encode(), v.encode()) for k, v in more.items())]
        assert (await asked.post(INFER, content=body, headers=sent)).status_code == 200


@pytest.mark.parametrize(
    "disposition",
    [
        "form-data; name=a; filename*=utf-9''x%ff",
        "form-data; name=a; filename*0*=iso-2022-jp''%1b%24; filename*1=x",
        "form-data; name=a; filename=x; filename*=utf-8''%ed%b0%80",
        "form-data; name=a; filename=x\0y",
        "",
        ";" * 1000,
    ],
)
async def test_odd_names_in_a_form_are_refused_or_shown(api: FastAPI, disposition: str) -> None:
    part = f"--b\r\nContent-Disposition: {disposition}\r\n\r\n".encode("latin-1")
    body = part + CAT + b"\r\n--b--\r\n"
    async with client(api) as asked:
        kind = {"content-type": "multipart/form-data; boundary=b"}
        answer = await asked.post(DETECT, content=body, headers=kind)
    assert answer.status_code in (200, 400), answer.text


@pytest.mark.parametrize(
    ("path", "header", "value"),
    [
        (DETECT, "x-request-timeout-ms", DIGITS),
        (INFER, "inference-header-content-length", f"{'0' * 19}1{DIGITS}"),
        (INFER, "content-length", f"{'0' * 5000}2"),
        (INFER, "accept-encoding", "gzip;q=" + "0." * 5000),
        (INFER, "content-encoding", "gzip, " * 1000),
        (DETECT, "x-request-id", "\xff\0\r"),
        (DETECT, "origin", "\xff" * 100),
        (DETECT, "authorization", "Bearer \xff"),
    ],
)
async def test_odd_headers_are_refused_or_do_not_matter(api: FastAPI, path: str, header: str, value: str) -> None:
    async with client(api) as asked:
        headers = [(header.encode(), value.encode("latin-1"))]
        body = b"{}" if path == INFER else CAT
        answer = await asked.post(path, content=body, headers=headers)
    assert answer.status_code < 500, answer.text


@pytest.mark.parametrize("query", ["nan", "1e999", "%00", "\u0663"])
async def test_odd_scores_are_refused_or_understood(api: FastAPI, query: str) -> None:
    async with client(api) as asked:
        answer = await asked.post(f"{DETECT}&min_score={query}", content=CAT)
    assert answer.status_code in (200, 400), answer.text


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"[" * 50_000,
        b'{"percent": ' + b"9" * 5001 + b"}",
        b'{"percent": NaN, "version": "1"}',
        b'{"percent": 5, "version": "\\udfff"}',
        b'{"percent": 5, "version": "' + b"x" * 65 + b'"}',
        b'{"percent": 5, "version": "1", "alias": "../x"}',
        b'{"percent": 5}',
    ],
)
async def test_controls_that_make_no_sense_are_refused(api: FastAPI, body: bytes) -> None:
    async with client(api) as asked:
        kind = {"content-type": "application/json"}
        answer = await asked.post(CANARY, content=body, headers=kind)
    assert answer.status_code == 400, answer.text


async def test_a_control_s_body_is_bounded(api: FastAPI) -> None:
    async with client(api) as asked:
        kind = {"content-type": "application/json"}
        answer = await asked.post(CANARY, content=b" " * (1 << 20) + b"{}", headers=kind)
    assert answer.status_code == 413, answer.text
