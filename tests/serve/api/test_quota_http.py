"""Quotas over HTTP: two replicas behind their guards, stations that send at once, and forms."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from fastapi import FastAPI

from archive.delta.tables import Tables
from batch.doctor.places import check_uploads
from serve.api.app import build_http_api
from serve.auth.guard import Access
from serve.auth.scopes import TokenScope
from serve.auth.tokens import TokenFile
from serve.uploads.quota import Used
from serve.uploads.uploads import Upload, Uploads
from tests.fixtures_local import encoded
from tests.serve.http_client import MakeEngine, problem_of

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
BOTH = (TokenScope.detect, TokenScope.upload)


class NoTables:
    async def record(self, upload: Upload) -> None:
        pass

    async def find(self, wanted: Any) -> Any:
        raise AssertionError(f"nothing is searched here: {wanted}")


class Replicas:
    """Two replicas over one folder of uploads and one token file."""

    def __init__(self, engine: Any, place: Path) -> None:
        self.folder, self.tokens = place / "uploads", TokenFile(str(place / "tokens.json"))
        self._engine, self._number = engine, 0
        self.apis = [self.started() for _ in range(2)]

    def started(self) -> FastAPI:
        uploads = Uploads(str(self.folder), NoTables(), lambda outcome: None)
        uploads._quotas._now = lambda: NOON
        return build_http_api(self._engine, Access(file=self.tokens), uploads=uploads)

    def image(self) -> bytes:
        """The next BMP of 196,662 bytes: five of them fit into a MiB."""
        self._number += 1
        return encoded(np.full((256, 256, 3), self._number, np.uint8), "bmp")

    async def post(
        self, headers: dict[str, str], data: bytes | None = None, replica: int = 0, **body: Any
    ) -> httpx2.Response:
        transport = httpx2.ASGITransport(self.apis[replica])
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.post("/v1/images?model=blobs", content=data, headers=headers, **body)

    def used(self, name: str) -> int:
        return Used.model_validate_json((self.folder / ".quota" / f"{name}.json").read_bytes()).nbytes

    @property
    def files(self) -> list[Path]:
        return list(self.folder.glob("*.bmp"))


@pytest.fixture
async def replicas(blobs: MakeEngine, tmp_path: Path) -> Replicas:
    return Replicas(await blobs(), tmp_path)


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def test_uploads_at_once_get_exactly_what_each_token_may_store(replicas: Replicas) -> None:
    one, two = (bearer(replicas.tokens.add(name, BOTH, 1)) for name in ("one", "two"))
    free = bearer(replicas.tokens.add("free", BOTH))
    sent = [(headers, replicas.image(), i % 2) for i in range(8) for headers in (one, two)]
    answers: list[httpx2.Response] = []
    for start in range(0, len(sent), 4):  # places of the replicas
        answers += await asyncio.gather(*(replicas.post(*each) for each in sent[start : start + 4]))
    assert [answer.status_code for answer in answers].count(201) == 10
    for answer in answers:
        if answer.status_code == 201:
            continue
        assert "0.9 of 1 MiB" in problem_of(answer, 429)
        assert answer.json()["type"] == "urn:resight:quota-spent"
        assert answer.headers["retry-after"] == "43200"
    stored = sum(len(data) for answer, (_, data, _) in zip(answers, sent, strict=True) if answer.status_code == 201)
    assert len(replicas.files) == 10
    assert replicas.used("one") == replicas.used("two") == stored / 2
    first = next(data for answer, (h, data, _) in zip(answers, sent, strict=True) if answer.is_success and h is one)
    assert (await replicas.post(one, first)).status_code == 200
    assert (await replicas.post(free, replicas.image())).status_code == 201
    assert sorted(file.name for file in (replicas.folder / ".quota").glob("*.json")) == ["one.json", "two.json"]


async def test_a_form_has_the_problem_at_each_file_and_a_raised_quota_goes_on(replicas: Replicas) -> None:
    headers = bearer(replicas.tokens.add("one", BOTH, 1))
    for _ in range(4):
        assert (await replicas.post(headers, replicas.image())).status_code == 201
    answer = await replicas.post(headers, files=[("image", replicas.image()), ("image", replicas.image())])
    assert sorted(file["status"] for file in answer.json()["results"]) == [200, 429]
    replicas.tokens.set_quota("one", 2)
    replicas.apis = [replicas.started()]
    assert (await replicas.post(headers, replicas.image())).status_code == 201


async def test_the_doctor_finds_nothing_about_counts(replicas: Replicas, tmp_path: Path) -> None:
    headers = bearer(replicas.tokens.add("one", BOTH, 1))
    assert (await replicas.post(headers, replicas.image())).status_code == 201
    for file in replicas.files:
        file.unlink()
    assert list(check_uploads(Tables(str(tmp_path / "tables")), str(replicas.folder))) == []
