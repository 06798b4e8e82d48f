"""Images by URL: only from listed hosts, at permitted addresses, within the bounds."""

from __future__ import annotations

import asyncio
from ipaddress import ip_network
from typing import Any

import httpx2
import pytest

from model_store.errors import BadRequest, ImageTooLarge, ResightError, TooSlow
from serve.antenna.fetch import ImageFetcher, is_permitted
from serve.settings import DetectArgs, Limits
from tests.serve.antenna.stations import Station, at_loopback, file_of

PIXELS = b"not decoded here"
MIB = 2**20


async def forever(writer: asyncio.StreamWriter) -> None:
    """Send a byte, and then nothing until the client leaves."""
    writer.write(b"HTTP/1.1 200 OK\r\n\r\nx")
    await writer.drain()
    await writer.wait_closed()


async def endless(writer: asyncio.StreamWriter) -> None:
    """Send bytes without a length until the client leaves."""
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while not writer.is_closing():
        writer.write(bytes(MIB // 4))
        await writer.drain()


def fetched(
    file: Any, path: str = "/a.jpg", more: dict[str, Any] | None = None, resolve: Any = at_loopback, within_s: int = 60
) -> bytes | ResightError:
    """Return what the fetch of one file gives, with the bound of a body at 1 MiB."""

    async def fetch() -> bytes | ResightError:
        async with Station({"/a.jpg": file}).running() as station:
            args = station.arguments(limits=Limits(body_mib=1, fetch_s=within_s)).model_copy(update=more or {})
            try:
                return await ImageFetcher(args, resolve).fetch(station.url(path))
            except ResightError as error:
                return error

    return asyncio.run(fetch())


def test_path_query_and_name_are_sent_as_they_are_and_nothing_else() -> None:
    async def head() -> bytes:
        async with Station({"/a.jpg": file_of(PIXELS)}).running() as station:
            await ImageFetcher(station.arguments(), at_loopback).fetch(station.url("/a.jpg?s=%2Fa"))
            return station.asked[0].replace(str(station.port).encode(), b"PORT")

    sent = asyncio.run(head())
    assert sent.startswith(b"GET /a.jpg?s=%2Fa HTTP/1.1\r\n")
    assert b"Host: pictures.test:PORT\r\n" in sent
    for private in (b"authorization", b"cookie", b"127.0.0.1"):
        assert private not in sent.lower()


@pytest.mark.parametrize(
    ("file", "kind", "words"),
    [
        (file_of(b""), BadRequest, "0 bytes"),
        (file_of(PIXELS, Content_Length="99"), BadRequest, "did not send the image"),
        (file_of(PIXELS, Content_Length=str(2 * MIB)), ImageTooLarge, "limit of 1 MiB"),
        (file_of(bytes(MIB + 1)), ImageTooLarge, "limit of 1 MiB"),
        (file_of(PIXELS, Content_Encoding="gzip"), BadRequest, "compressed"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\n\r\n", BadRequest, "redirects"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", BadRequest, "answered 404"),
        (b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n", TooSlow, "answered 429"),
        (b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\n\r\n", TooSlow, "answered 503"),
        (b"220 mail.test ESMTP\r\n", BadRequest, "did not send the image"),
        (endless, ImageTooLarge, "limit of 1 MiB"),
    ],
)
def test_a_hostile_answer_is_an_error(file: Any, kind: type[ResightError], words: str) -> None:
    error = fetched(file)
    assert type(error) is kind
    assert words in str(error)


def test_a_host_that_cannot_be_reached_may_send_the_image_later() -> None:
    async def fetch() -> bytes:
        async with Station({}).running() as station:
            pass
        return await ImageFetcher(station.arguments(), at_loopback).fetch(station.url("/a.jpg"))

    with pytest.raises(TooSlow, match=r"pictures\.test did not send the image: "):
        asyncio.run(fetch())


def test_a_slow_image_ends_with_its_time() -> None:
    error = fetched(forever, within_s=1)
    assert type(error) is TooSlow
    assert "within 1 s (limits.fetch_s)" in str(error)


@pytest.mark.parametrize(
    "url",
    [
        "http://elsewhere.test/a.jpg",
        "http://pictures.test/a.jpg",  # another port
        "https://127.0.0.1/a.jpg",
        "http://[::ffff:127.0.0.1]/a.jpg",
        "http://user:password@pictures.test:8080/a.jpg",
        "http://pictures.test:8080@evil.test/a.jpg",
        "file:///etc/passwd",
        "http://pictures.test:99999999/a.jpg",
        "http://\x00/",
        "",
    ],
)
def test_a_url_that_is_not_listed_is_refused_before_its_name_is_resolved(url: str) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        raise AssertionError("resolved")

    fetcher = ImageFetcher(DetectArgs(image_hosts=["pictures.test:8080"]), resolve)
    with pytest.raises(BadRequest, match=r"invalid URL|not a host of images"):
        asyncio.run(fetcher.fetch(url))


@pytest.mark.parametrize("addresses", [["93.184.216.34", "169.254.169.254"], ["::1"], []])
def test_a_name_with_a_private_address_is_refused(addresses: list[str]) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return addresses

    error = fetched(file_of(PIXELS), more={"image_networks": []}, resolve=resolve)
    assert type(error) is BadRequest
    assert str(error).endswith(": add its network to image_networks" if addresses else "pictures.test has no address")


def test_tls_verifies_the_name_and_not_the_address() -> None:
    asked: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        return httpx2.Response(200, stream=httpx2.ByteStream(PIXELS))

    async def resolve(host: str, port: int) -> list[str]:
        return ["2606:2800:21f:cb07::1"]

    fetcher = ImageFetcher(DetectArgs(image_hosts=["pictures.test"]), resolve)
    fetcher._http = httpx2.AsyncClient(transport=httpx2.MockTransport(answer))
    assert asyncio.run(fetcher.fetch("https://pictures.test/a.jpg")) == PIXELS
    assert str(asked[0].url) == "https://[2606:2800:21f:cb07::1]/a.jpg"
    assert asked[0].headers["host"] == "pictures.test"
    assert asked[0].extensions["sni_hostname"] == "pictures.test"


@pytest.mark.parametrize(
    ("address", "permitted"),
    [
        ("93.184.216.34", True),
        ("2606:2800:21f:cb07::1", True),
        ("0.0.0.0", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("224.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:93.184.216.34", True),
        ("fe80::1%eth0", False),
        ("64:ff9b::a00:1", False),  # NAT64 of 10.0.0.1
        ("2002:a00:1::", False),  # 6to4 of 10.0.0.1
        ("ff02::1", False),
    ],
)
def test_only_public_addresses_are_permitted(address: str, permitted: bool) -> None:
    assert is_permitted(address, []) is permitted


@pytest.mark.parametrize("address", ["10.1.2.3", "::ffff:10.1.2.3"])
def test_a_listed_network_is_permitted(address: str) -> None:
    assert is_permitted(address, [ip_network("10.1.0.0/16")])
    assert not is_permitted("10.2.0.1", [ip_network("10.1.0.0/16")])


@pytest.mark.parametrize("fields", [{"image_hosts": ["http://a.test"]}, {"image_networks": ["10.0.0.1/8"]}])
def test_invalid_settings_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"image_"):
        DetectArgs(**fields)


def test_cookies_are_not_kept_for_another_name_of_the_address() -> None:
    async def heads() -> list[bytes]:
        async with Station({"/a.jpg": file_of(PIXELS, Set_Cookie="a=secret; Path=/")}).running() as station:
            fetcher = ImageFetcher(station.arguments(), at_loopback)
            await fetcher.fetch(station.url("/a.jpg"))
            await fetcher.fetch(station.url("/a.jpg"))
            return station.asked

    assert b"cookie" not in asyncio.run(heads())[1].lower()


@pytest.mark.parametrize(
    "url",
    [
        "http://user:secret@pictures.test/a.jpg",
        "http://elsewhere.test/a.jpg?key=secret",
        "http://pictures.test:secret/",
    ],
)
def test_an_error_names_no_other_part_of_a_url_than_its_host(url: str) -> None:
    with pytest.raises(BadRequest) as error:
        asyncio.run(ImageFetcher(DetectArgs(image_hosts=["pictures.test"])).fetch(url))
    assert "secret" not in str(error.value)
