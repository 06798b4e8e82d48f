"""Several images in one form: a result for each, in order, within bounds."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2
import numpy as np
import pytest

from model_store.detector import LoadedDetector
from model_store.errors import Overloaded
from serve.api.multipart import FORM_FILES, FORM_FULL_FILES
from serve.inference.engine import Engine
from serve.settings import DetectArgs, Limits
from tests.fixtures_local import MODELS, encoded, motion_store, photo
from tests.serve.http_client import api_of

MIB = 1024 * 1024
TIMEOUT_S = 20
CAT, PERSON = photo("cat"), photo("person")
SMALL = encoded(np.zeros((32, 48, 3), np.uint8), "JPEG")
BOUNDARY = "a-line-between"
FORM = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Inference waits until it is set."""
    infer, gate = LoadedDetector.infer, threading.Event()

    def infer_at_the_gate(self: LoadedDetector, *args: Any) -> Any:
        assert gate.wait(TIMEOUT_S)
        return infer(self, *args)

    monkeypatch.setattr(LoadedDetector, "infer", infer_at_the_gate)
    yield gate
    gate.set()


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = Engine(DetectArgs(models=str(MODELS), workers=1))
    asyncio.run(engine.aliases.refresh())
    yield engine
    engine.stop()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A replica with room for four images, of at most 1 MiB."""
    store = motion_store(tmp_path_factory.mktemp("small"), "1")
    limits = Limits(online_queue=4, body_mib=1)
    engine = Engine(DetectArgs(models=store.url, workers=1, limits=limits))
    asyncio.run(engine.aliases.refresh())
    yield engine
    engine.stop()


def form(*files: tuple[str, bytes], field: str = "image", end: bytes = f"--{BOUNDARY}--\r\n".encode()) -> bytes:
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n".encode()
        + data
        + b"\r\n"
        for name, data in files
    ]
    return b"".join(parts) + end


async def post(
    engine: Engine, body: Any, model: str = "blobs", headers: dict[str, str] = FORM, **query: Any
) -> httpx2.Response:
    transport = httpx2.ASGITransport(api_of(engine))
    async with httpx2.AsyncClient(transport=transport, base_url="http://resight") as api:
        parameters = {"model": model, **query}
        return await api.post("/v1/detect", content=body, params=parameters, headers=headers)


async def results(engine: Engine, body: Any, model: str = "blobs", **query: Any) -> list[Any]:
    """Return the results of a readable form; each has an answer or a problem."""
    answer = await post(engine, body, model, **query)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert list(body) == ["results"]
    for one in body["results"]:
        assert set(one) == {"name", "status", "answer", "problem"}
        assert (one["status"] == 200) == (one["problem"] is None) == (one["answer"] is not None)
        if one["problem"]:
            assert one["problem"]["status"] == one["status"]
    return body["results"]


def detail_of(answer: httpx2.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    return str(answer.json()["detail"])


def free_places(engine: Engine) -> int:
    """Return the number of images that the replica would accept now."""
    places = [engine.admission.images.place() for _ in range(engine.args.limits.online_queue)]
    taken = 0
    try:
        for place in places:
            place.__enter__()
            taken += 1
    except Overloaded:
        pass
    for place in places[:taken]:
        place.__exit__(None, None, None)
    return taken


async def test_each_file_has_the_result_it_has_alone_and_in_order(engine: Engine) -> None:
    files = {"cat.jpg": CAT, "person.jpg": PERSON, "again.jpg": CAT}
    found = await results(engine, form(*files.items()), "ssdlite-coco", min_score=0.1)
    assert [one["name"] for one in found] == list(files)
    for one, data in zip(found, files.values(), strict=True):
        alone = (await post(engine, data, "ssdlite-coco", headers={}, min_score=0.1)).json()
        assert one["answer"]["detections"] == alone["detections"]
        assert one["answer"]["model"] == alone["model"]
        assert one["answer"]["image"] == alone["image"]
    assert found[0]["answer"]["detections"] != found[1]["answer"]["detections"]


async def test_what_is_wrong_with_a_file_is_its_own_result(small: Engine) -> None:
    wrong = [("a.jpg", b""), ("b.txt", b"no image at all"), ("c.jpg", CAT[:300])]
    sent = [("1.jpg", SMALL), wrong[0], wrong[1], ("2.jpg", SMALL)]
    found = await results(small, form(*sent))
    assert [one["status"] for one in found] == [200, 400, 415, 200]
    assert found[1]["problem"]["detail"] == "the file is empty"
    assert "jpeg, png, webp" in found[2]["problem"]["detail"]
    assert [one["status"] for one in await results(small, form(*wrong))] == [400, 415, 400]
    assert free_places(small) == 4


async def test_an_error_nobody_thought_of_is_a_500_of_its_file_alone(
    small: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    detect = small.detect

    async def fail_on_text(body: bytes, *args: Any, **more: Any) -> Any:
        if body == b"text":
            raise LookupError("the secret path")
        return await detect(body, *args, **more)

    monkeypatch.setattr(small, "detect", fail_on_text)
    found = await results(small, form(("1", SMALL), ("2", b"text"), ("3", SMALL)))
    assert [one["status"] for one in found] == [200, 500, 200]
    assert "LookupError" in found[1]["problem"]["detail"]
    assert "secret" not in str(found)
    assert free_places(small) == 4


async def test_a_file_over_the_limit_fails_alone_and_is_not_kept(small: Engine) -> None:
    large = SMALL + bytes(MIB)
    exact = SMALL + bytes(MIB - len(SMALL))
    found = await results(small, form(("1", SMALL), ("2", large), ("3", exact), ("4", SMALL)))
    assert [one["status"] for one in found] == [200, 413, 200, 200]
    assert "limit of 1 MiB" in found[1]["problem"]["detail"]
    assert free_places(small) == 4


async def test_a_file_that_is_thrown_away_holds_no_place_meanwhile(small: Engine) -> None:
    free: list[int] = []

    async def body() -> AsyncIterator[bytes]:
        begun, _, _ = form(("a", b"")).partition(b"\r\n--")
        yield begun
        for _ in range(4):
            free.append(free_places(small))
            yield bytes(MIB // 2)
        free.append(free_places(small))
        yield b"\r\n" + form(("b", SMALL))

    found = await results(small, body())
    assert [one["status"] for one in found] == [413, 200]
    assert free == [3, 3, 3, 4, 4]


async def test_files_that_find_no_place_are_429_and_the_others_are_answered(
    small: Engine, gate: threading.Event
) -> None:
    asked = asyncio.create_task(results(small, form(*[(str(i), SMALL) for i in range(7)])))
    async with asyncio.timeout(TIMEOUT_S):
        while free_places(small):
            await asyncio.sleep(0)
    alone = await post(small, SMALL, headers={})
    gate.set()
    found = await asked
    assert [one["status"] for one in found] == [200] * 4 + [429] * 3
    assert "the bound is 4" in found[5]["problem"]["detail"]
    assert alone.status_code == 429
    assert free_places(small) == 4


async def test_images_are_worked_on_while_the_next_ones_arrive(small: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file is sent only after all before it have been detected: more than there are places."""
    done: list[int] = []
    detect = small.detect

    async def counted(*args: Any, **more: Any) -> Any:
        answer = await detect(*args, **more)
        done.append(1)
        return answer

    monkeypatch.setattr(small, "detect", counted)

    async def body() -> AsyncIterator[bytes]:
        for i in range(9):
            yield form((str(i), SMALL), end=b"--")  # the file ends with the next boundary …
            yield form(end=f"{BOUNDARY}\r\n".encode())  # … here, and the next one begins
            yield b'Content-Disposition: form-data; name="x"; filename="y"\r\n\r\n\r\n'
            async with asyncio.timeout(TIMEOUT_S):
                while len(done) <= i:
                    await asyncio.sleep(0)
        yield f"--{BOUNDARY}--".encode()

    found = await results(small, body())
    assert [one["status"] for one in found if one["name"] != "y"] == [200] * 9


@pytest.mark.parametrize("step", [1, 7])
async def test_however_the_form_is_cut_on_its_way_it_is_the_same(small: Engine, step: int) -> None:
    tricky = SMALL + b"\r\n--" + BOUNDARY.encode()[:-1] + b"\r\n--\r\n\r"
    sent = form(("a", SMALL), ("b", b"\r\n"), ("c", tricky), ("d", b""))

    async def body() -> AsyncIterator[bytes]:
        for start in range(0, len(sent), step):
            yield sent[start : start + step]

    found = await results(small, body())
    assert [one["name"] for one in found] == ["a", "b", "c", "d"]
    assert [one["status"] for one in found] == [200, 415, 200, 400]


CUT = "truncated"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", CUT),
        (b"no form at all", "cannot be read"),
        (form(), "has no file"),
        (form(("a", SMALL), end=b""), CUT),
        (form(("a", SMALL))[:200], CUT),
        (
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="model"\r\n\r\nblobs\r\n--{BOUNDARY}--'.encode(),
            "field 'model' is not a file; send parameters in the query",
        ),
        (f"--{BOUNDARY}\r\n".encode() + b"A: b\r\n" * 100 + b"\r\n", "header count"),
        (f"--{BOUNDARY}\r\nA: ".encode() + b"b" * 100_000, "header size"),
        (form(*[(str(i), b"x") for i in range(FORM_FILES + 1)]), f"more than {FORM_FILES}"),
    ],
)
async def test_what_is_no_whole_form_is_refused_and_leaves_no_place_taken(
    small: Engine, body: bytes, words: str
) -> None:
    assert words in detail_of(await post(small, body), 400)
    assert free_places(small) == 4


@pytest.mark.parametrize(
    "kind", ["multipart/form-data", 'Multipart/Form-Data; boundary=""', f"multipart/form-data; boundary={'x' * 300}"]
)
async def test_a_form_without_a_usable_boundary_is_refused(small: Engine, kind: str) -> None:
    detail = detail_of(await post(small, form(("a", SMALL)), headers={"content-type": kind}), 400)
    assert "boundary" in detail


async def test_a_form_that_becomes_too_large_is_refused_as_soon_as_it_is(small: Engine) -> None:
    sent: list[int] = []

    async def body() -> AsyncIterator[bytes]:
        yield form(("a", SMALL), ("b", SMALL), end=b"")
        yield form(("c", SMALL), end=b"")[:-2]
        for i in range(100):
            sent.append(i)
            yield bytes(MIB // 2)

    assert "several requests" in detail_of(await post(small, body()), 413)
    assert len(sent) <= FORM_FULL_FILES * 2
    assert free_places(small) == 4


async def test_a_form_whose_sender_breaks_off_leaves_no_place_taken(small: Engine) -> None:
    """Cancelled while one image is worked on, one has just begun, and one is half sent."""

    async def body() -> AsyncIterator[bytes]:
        yield form(("a", SMALL), ("b", SMALL), ("c", SMALL), end=b"")[:-2]
        await asyncio.sleep(TIMEOUT_S)

    asked = asyncio.create_task(post(small, body()))
    async with asyncio.timeout(TIMEOUT_S):
        while free_places(small) == 4:
            await asyncio.sleep(0)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    async with asyncio.timeout(TIMEOUT_S):
        while free_places(small) < 4:
            await asyncio.sleep(0.01)


async def test_mutated_forms_are_never_an_error_of_ours(small: Engine) -> None:
    rng = random.Random(7)
    whole = form(("a.jpg", SMALL), ("b.jpg", b"text"))
    for _ in range(80):
        body = bytearray(whole)
        for _ in range(rng.randint(1, 8)):
            at = rng.randrange(len(body))
            if rng.random() < 0.5:
                body[at] = rng.choice(b'\r\n-:;=" a\x00\xff')
            else:
                del body[at : at + rng.randint(1, 40)]
        answer = await post(small, bytes(body))
        assert answer.status_code in (200, 400), (answer.text, bytes(body))
        if answer.status_code == 200:
            assert not [one for one in answer.json()["results"] if one["status"] >= 500]
        assert free_places(small) == 4


async def test_a_form_that_says_it_is_too_large_is_refused_before_it_is_read(small: Engine) -> None:
    read: list[int] = []

    async def body() -> AsyncIterator[bytes]:
        read.append(1)
        yield form(("a", SMALL))

    declared = FORM | {"content-length": str(FORM_FULL_FILES * MIB + 1)}
    detail = detail_of(await post(small, body(), headers=declared), 413)
    assert f"limit of {FORM_FULL_FILES} MiB" in detail
    assert read == []
