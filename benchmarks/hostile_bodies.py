"""Generate the requests of the hostile benchmark: seeds, mutations of them, and requests that contain them.

seeds(corpus) -> name to bytes;  mutated(random, seeds) -> name, bytes;  Sent: one request and its images
Everything depends on a seed of `random`, so that harmful requests can be reproduced.
"""

from __future__ import annotations

import base64
import json
import random
import struct
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness import ROOT

from model_store.images.header import SUPPORTED, media_type
from tests.hostile_images import hostile_bodies

Images = Sequence[tuple[str, bytes]]
LARGEST = 12 << 20
MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0*", b"BM", b"RIFF\0\0\0\0WEBP")
EXTREMES = (b"\0", b"\xff", b"\x7f", b"\x80", b"\0\0", b"\xff\xff", b"\xff\xff\xff\x7f", b"\x80\0\0\0")
MODELS = ("ssdlite-coco", "motion")
KINDS = ("", "image/jpeg", "text/plain", "application/json", "image/heic", "\xff; =", "multipart/mixed")
FORM_IMAGES = 3
BOUNDARY = "-----------------------------hostile"


@dataclass(frozen=True)
class Sent:
    """A request; `endpoint` is its name in the table, `cut` ends the connection halfway."""

    endpoint: str
    path: str
    body: bytes
    headers: Mapping[str, str]
    names: tuple[str, ...]
    cut: bool = False


def seeds(corpus: Sequence[str]) -> dict[str, bytes]:
    """Return files of folders and .tar.gz archives, the hostile bodies of the tests, and the photographs."""
    found = {f"ours/{name}": body for name, body in hostile_bodies().items()}
    photos = ROOT / "examples" / "photos"
    found |= {f"photos/{path.name}": path.read_bytes() for path in sorted(photos.glob("*.jpg"))}
    for place in map(Path, corpus):
        found |= dict(_files(place))
    return {name: body for name, body in found.items() if len(body) <= LARGEST}


def _files(place: Path) -> Iterator[tuple[str, bytes]]:
    if place.is_dir():
        for path in sorted(place.rglob("*")):
            if path.is_file():
                yield f"{place.name}/{path.relative_to(place)}", path.read_bytes()
        return
    with tarfile.open(place) as archive:
        for member in archive:
            file = archive.extractfile(member) if "/Tests/" in member.name else None
            if file is not None:
                yield member.name, file.read()


def mutations(chance: random.Random, known: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """Yield mutations without end; six of seven start like a supported format."""
    every = list(known)
    decoded = [name for name, body in known.items() if media_type(body[:512]) in SUPPORTED]
    while True:
        name = chance.choice(decoded if chance.random() < 6 / 7 else every)
        body, done = known[name], list[str]()
        for _ in range(chance.choice((1, 1, 2, 4))):
            way = chance.choice(list(WAYS))
            body = WAYS[way](chance, body, known[chance.choice(decoded)])
            done.append(way)
        yield f"{name} {'+'.join(done)}", body[:LARGEST]


def _place(chance: random.Random, body: bytes) -> int:
    """Return a random position, half of the time in the first 600 bytes, where the headers are."""
    return chance.randrange(min(len(body), chance.choice((600, len(body)))) + 1)


def _cut(chance: random.Random, body: bytes, other: bytes) -> bytes:
    return body[: _place(chance, body)]


def _flip(chance: random.Random, body: bytes, other: bytes) -> bytes:
    changed = bytearray(body)
    for _ in range(min(len(body), chance.choice((1, 3, 30)))):
        changed[_place(chance, body) % len(body)] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _extreme(chance: random.Random, body: bytes, other: bytes) -> bytes:
    at, value = _place(chance, body), chance.choice(EXTREMES)
    return body[:at] + value + body[at + len(value) :]


def _insert(chance: random.Random, body: bytes, other: bytes) -> bytes:
    at = _place(chance, body)
    return body[:at] + chance.randbytes(chance.choice((1, 16, 4096))) + body[at:]


def _remove(chance: random.Random, body: bytes, other: bytes) -> bytes:
    at = _place(chance, body)
    return body[:at] + body[at + chance.choice((1, 16, 4096)) :]


def _repeat(chance: random.Random, body: bytes, other: bytes) -> bytes:
    at = _place(chance, body)
    return body[:at] + body[at : at + chance.choice((4, 64, 1024))] * 50 + body[at:]


def _splice(chance: random.Random, body: bytes, other: bytes) -> bytes:
    return body[: _place(chance, body)] + other[_place(chance, other) :]


def _disguise(chance: random.Random, body: bytes, other: bytes) -> bytes:
    magic = chance.choice(MAGIC)
    return magic + body[len(magic) :]


WAYS = {
    "cut": _cut,
    "flip": _flip,
    "extreme": _extreme,
    "insert": _insert,
    "remove": _remove,
    "repeat": _repeat,
    "splice": _splice,
    "disguise": _disguise,
}


def requests(chance: random.Random, images: Iterator[tuple[str, bytes]]) -> Iterator[Sent]:
    """Yield requests with every image once: alone as a body, three in a form, or in a binary or JSON tensor.

    One in fifty is cut halfway, one in fifty has a timeout of 20 ms.
    """
    for number, first in enumerate(images):
        model = chance.choice(MODELS)
        headers = {"x-request-timeout-ms": "20"} if chance.random() < 0.02 else {}
        if number % 4 == 0:
            kind = chance.choice(KINDS[:-1])
            headers |= {"content-type": kind} if kind else {}
            sent = Sent("detect", f"/v1/detect?model={model}", first[1], headers, (first[0],))
        elif number % 4 == 1:
            sent = form([first, *_next(images, FORM_IMAGES - 1)], model, headers)
        else:
            sent = tensor([first, *_next(images, number % 4 - 2)], model, headers, number % 8 < 4)
        yield replace(sent, cut=chance.random() < 0.02)


def _next(images: Iterator[tuple[str, bytes]], count: int) -> Images:
    return [image for _, image in zip(range(count), images, strict=False)]


def form(images: Images, model: str, headers: Mapping[str, str]) -> Sent:
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="{i}"\r\n\r\n'.encode()
        + body
        + b"\r\n"
        for i, (_, body) in enumerate(images)
    ]
    body = b"".join((*parts, f"--{BOUNDARY}--\r\n".encode()))
    kind = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    names = tuple(name for name, _ in images)
    return Sent("detect, form", f"/v1/detect?model={model}", body, {**headers, **kind}, names)


def tensor(images: Images, model: str, headers: Mapping[str, str], binary: bool) -> Sent:
    """Return all images as one BYTES input of the Open Inference Protocol."""
    one: dict[str, object] = {"name": "image", "shape": [len(images)], "datatype": "BYTES"}
    data = b"".join(struct.pack("<I", len(body)) + body for _, body in images)
    if binary:
        one["parameters"] = {"binary_data_size": len(data)}
    else:
        one["data"] = [base64.b64encode(body).decode() for _, body in images]
    text = json.dumps({"inputs": [one]}).encode()
    length = {"inference-header-content-length": str(len(text))} if binary else {}
    return Sent(
        "infer, binary" if binary else "infer, JSON",
        f"/v2/models/{model}/infer",
        text + data if binary else text,
        {**headers, **length},
        tuple(name for name, _ in images),
    )
