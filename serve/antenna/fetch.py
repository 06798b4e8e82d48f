"""Fetch images by URL: from listed hosts, at permitted addresses, within bounds of bytes and time.

URL -> listed host -> its addresses, each permitted -> a connection to one of these addresses -> bytes

The connection goes to an address that was checked, not to the name, so that DNS cannot change between check and use.
Redirects are not followed, no proxy of the environment is used, and neither credentials nor cookies are sent.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Collection
from functools import cached_property
from http.cookiejar import CookieJar, DefaultCookiePolicy
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import httpx2

from model_store.errors import BadRequest, ImageTooLarge, TooSlow
from model_store.names import MAX_QUOTED
from serve.api.bodies import MIB, declared_bytes
from serve.settings import DetectArgs

PORTS = {"http": 80, "https": 443}
PUBLIC_V6 = ip_network("2000::/3")
Resolve = Callable[[str, int], Awaitable[list[str]]]
"""Returns the addresses of a host. Raises OSError."""


async def resolve_host(host: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[4][0]) for address in found]


class ImageFetcher:
    """Fetches the images that requests name by URL. Use it on one event loop."""

    def __init__(self, args: DetectArgs, resolve: Resolve = resolve_host) -> None:
        self._hosts = frozenset(args.image_hosts)
        self._networks = [ip_network(text) for text in args.image_networks]
        self._max_bytes, self._within_s = args.limits.body_mib * MIB, args.limits.fetch_s
        self._resolve = resolve

    async def fetch(self, text: str) -> bytes:
        """Return an image. Raises BadRequest for a URL that is not permitted or has no file, ImageTooLarge, TooSlow."""
        url, host, port = self._listed(text)
        try:
            async with asyncio.timeout(self._within_s):
                return await self._read(url, host, await self._address(host, port))
        except TimeoutError:
            raise TooSlow(f"{host} did not send the image within {self._within_s} s (limits.fetch_s)") from None
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            reason = str(error) or type(error).__name__
            kind = TooSlow if isinstance(error, httpx2.NetworkError) else BadRequest
            raise kind(f"{host} did not send the image: {reason[:MAX_QUOTED]}") from error

    def _listed(self, text: str) -> tuple[httpx2.URL, str, int]:
        """Parse a URL; return it with its host and port. Raises BadRequest unless these are listed.

        The errors name only the host, as the other parts may contain a password or a signature.
        """
        try:
            url = httpx2.URL(text)
        except (httpx2.InvalidURL, ValueError):
            url = httpx2.URL("")
        host = url.raw_host.decode()
        if url.scheme not in PORTS or not host or url.userinfo:
            raise BadRequest(
                f"invalid URL of the host '{host[:MAX_QUOTED]}': use http:// or https:// and a host, without a password"
            )
        port, bracketed = url.port or PORTS[url.scheme], f"[{host}]" if ":" in host else host
        names = {f"{bracketed}:{port}", bracketed if port == PORTS[url.scheme] else ""}
        if names.isdisjoint(self._hosts):
            listed = ", ".join(sorted(self._hosts)) or "none"
            raise BadRequest(
                f"{host[:MAX_QUOTED]}:{port} is not a host of images: add it to image_hosts (listed: {listed})"
            )
        return url, host, port

    async def _address(self, host: str, port: int) -> str:
        """Return an address of a host. Raises BadRequest unless all its addresses are permitted."""
        try:
            addresses = await self._resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise BadRequest(f"{host} has no address: {error}") from error
        if not addresses:
            raise BadRequest(f"{host} has no address")
        for address in addresses:
            if not is_permitted(address, self._networks):
                raise BadRequest(
                    f"{host} has the address {address}, which is not public: add its network to image_networks"
                )
        return addresses[0]

    async def _read(self, url: httpx2.URL, host: str, address: str) -> bytes:
        async with self._http.stream(
            "GET",
            url.copy_with(host=address),
            headers={"Host": url.netloc.decode(), "Accept-Encoding": "identity"},
            extensions={"sni_hostname": host},  # TLS verifies the name
        ) as answer:
            if answer.is_redirect:
                raise BadRequest(f"{host} redirects the image elsewhere, which is not followed")
            if answer.status_code != 200:
                kind = TooSlow if answer.status_code == 429 or answer.status_code >= 500 else BadRequest
                raise kind(f"{host} answered {answer.status_code} in place of the image")
            if answer.headers.get("content-encoding", "identity") != "identity":
                raise BadRequest(f"{host} sent the image compressed, which was not requested")
            too_large = ImageTooLarge(f"the image is over the limit of {self._max_bytes // MIB} MiB")
            if declared_bytes(answer.headers) > self._max_bytes:
                raise too_large
            parts, size = list[bytes](), 0
            async for part in answer.aiter_raw():
                size += len(part)
                if size > self._max_bytes:
                    raise too_large
                parts.append(part)
        if not size:
            raise BadRequest(f"{host} sent 0 bytes in place of the image")
        return b"".join(parts)

    @cached_property
    def _http(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(
            trust_env=False,
            follow_redirects=False,
            timeout=self._within_s,
            # a connection or cookie that is kept could serve another name of the same address
            limits=httpx2.Limits(max_keepalive_connections=0),
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        )


def is_permitted(address: str, networks: Collection[IPv4Network | IPv6Network]) -> bool:
    """Return whether an address is public, or lies in one of the networks."""
    ip = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    if any(ip in network for network in networks):
        return True
    if isinstance(ip, IPv4Address):
        return ip.is_global and not ip.is_multicast
    tunnel = ip.sixtofour or ip.teredo  # they contain another address
    return ip in PUBLIC_V6 and ip.is_global and not tunnel
