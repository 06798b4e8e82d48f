"""Pictures over HTTP: what browsers keep, what strangers must not see, and what a damaged archive answers."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import httpx2
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from starlette.datastructures import Headers
from starlette.testclient import TestClient

import pages.routes.pictures
import tests.fixtures_local
from archive.annotations.assertions import append
from archive.delta.tables import Tables
from archive.schemas import ASSERTIONS
from archive.views.views import View, Views
from pages.context import Context
from pages.http_app import build_pages_app
from serve.auth.guard import Access
from serve.auth.scopes import Identity, TokenScope
from serve.settings import Limits, Settings
from tests.archive.resolve_worlds import person
from tests.fixtures_local import encoded, put_results, result_rows, write_files
from tests.pages.test_pictures import media_row, put
from tests.serve.hostile import listening, rest, unread

BOX = (200.0, 100.0, 360.0, 300.0)
KEY = "k" * 64
LOOK, REVIEW = TokenScope.detect, TokenScope.review


def board() -> np.ndarray:
    """Return grey 640 x 480 with a chessboard of 6 px in BOX, the person, which must not survive."""
    pixels = np.full((480, 640, 3), 110, np.uint8)
    y, x = np.mgrid[100:300, 200:360]
    pixels[100:300, 200:360] = np.where(((x // 6 + y // 6) % 2)[..., None], 255, 0)
    return pixels


def jpeg(pixels: np.ndarray) -> bytes:
    """Encode with a preview and a serial number in EXIF, as cameras do."""
    exif = Image.Exif()
    exif[0x013B] = "somebody"
    return encoded(pixels, "JPEG", quality=95, exif=exif)


DATA = jpeg(board())
SHA = hashlib.sha256(DATA).hexdigest()
THUMBNAIL = f"/ui/v1/images/{SHA}/thumbnail?w=640"
CROP = f"/ui/v1/images/{SHA}/crop?x1=200&y1=100&x2=360&y2=300&w=448"
ORIGINAL = f"/ui/v1/images/{SHA}/original"
ROUTES = [THUMBNAIL, CROP, ORIGINAL]
SIZES = [THUMBNAIL[:-3] + "160"]


@pytest.fixture
def root(tmp_path: Path, tables: Tables) -> Path:
    """The archive with one image, in which the published model finds a person."""
    root = write_files(tmp_path / "archive", {"north/1.jpg": DATA, "note.txt": b""})
    put(tables, media_row(root, "north/1.jpg", DATA))
    publish(tables, [("person", 0.3, BOX)])
    return root


def publish(tables: Tables, found: list[tuple[str, float, tuple[float, ...]]]) -> None:
    boxes = [
        {"rank": rank, "label": label, "class_id": 0, "score": score}
        | dict(zip(("x1_px", "y1_px", "x2_px", "y2_px"), box, strict=True))
        for rank, (label, score, box) in enumerate(found)
    ]
    put_results(tables, result_rows([SHA], KEY, detections=boxes, width_px=640, height_px=480))
    names = {"model_name": "m", "model_version": "1", "weights_sha256": "w", "threshold": 0.8}
    Views(tables.url).publish(View(inference_key=KEY, **names), after=0)


def policy(settings: Settings, **fields: str) -> None:
    lines = ["[privacy]", *(f"{name} = {value}" for name, value in fields.items())]
    write_files(settings.policy_path.parent, {"policy.toml": "\n".join(lines).encode()})


SCOPES = {"stranger": (LOOK,), "reviewer": (LOOK, REVIEW), "admin": (LOOK, TokenScope.admin)}


class ByName(Access):
    """Has senders named in a header, without a token file, which a busy machine reads too late."""

    async def check(self, headers: Headers, scope: TokenScope) -> Identity:
        name = headers.get("x-name", "stranger")
        return Identity(name, frozenset(SCOPES[name]))


def sent_by(name: str, tag: str = "") -> dict[str, str]:
    return {"x-name": name} | ({"if-none-match": tag} if tag else {})


@pytest.fixture
def guarded(context: Context) -> Iterator[TestClient]:
    """The page, for senders with different scopes."""
    app = build_pages_app(context, ByName())
    with TestClient(app, base_url="http://127.0.0.1:8000", root_path="/ui") as client:
        yield client


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def contrast(data: bytes) -> float:
    """Return the largest standard deviation of any 8 x 8 px: up to 127 where the chessboard is."""
    grey = np.asarray(opened(data).convert("L"), float)
    parts = grey[: grey.shape[0] // 8 * 8, : grey.shape[1] // 8 * 8]
    blocks = parts.reshape(parts.shape[0] // 8, 8, parts.shape[1] // 8, 8).swapaxes(1, 2)
    return float(blocks.std(axis=(2, 3)).max())


# pictures and how long browsers keep them


@pytest.mark.usefixtures("root")
def test_pictures_have_the_sizes_that_were_requested(client: TestClient) -> None:
    sizes = {
        f"{THUMBNAIL[:-6]}": (320, 240),
        THUMBNAIL: (640, 480),
        THUMBNAIL[:-3] + "160": (160, 120),
        THUMBNAIL[:-3] + "1600": (640, 480),
        CROP: (280, 320),
        CROP[:-3] + "224": (224, 256),
    }
    for path, size in sizes.items():
        got = client.get(path)
        assert (got.status_code, got.headers["content-type"]) == (200, "image/jpeg"), path
        assert opened(got.content).size == size
        assert not opened(got.content).getexif()


@pytest.mark.usefixtures("root")
def test_browsers_keep_a_picture_and_pass_it_to_no_other_site(client: TestClient) -> None:
    for path in ROUTES:
        got = client.get(path)
        assert got.headers["cache-control"] == "private, max-age=31536000, immutable"
        assert got.headers["cross-origin-resource-policy"] == "same-origin"
        assert got.headers["x-content-type-options"] == "nosniff"
        assert got.headers["etag"].startswith(f'"{SHA}-')


def test_a_known_picture_is_confirmed_without_its_file(
    client: TestClient, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tags = {path: client.get(path).headers["etag"] for path in [*ROUTES, *SIZES]}
    assert len(set(tags.values())) == len(tags)
    (root / "north/1.jpg").unlink()
    monkeypatch.setattr(pages.routes.pictures, "picture_rows", None)
    for path, tag in tags.items():
        for sent in (tag, f'"x", W/{tag}'):
            got = client.get(path, headers={"if-none-match": sent})
            assert (got.status_code, got.content) == (304, b""), path
            assert got.headers["etag"] == tag
            assert "immutable" in got.headers["cache-control"]
    assert client.get(ORIGINAL, headers={"if-none-match": tags[THUMBNAIL]}).status_code == 404


def test_a_kept_picture_needs_no_file(client: TestClient, root: Path, settings: Settings) -> None:
    first = client.get(THUMBNAIL).content
    assert list((settings.home_path / "thumbnails" / SHA[:2] / SHA[2:4]).iterdir())
    (root / "north/1.jpg").unlink()
    assert client.get(THUMBNAIL).content == first


# wrong requests, and an archive that is not as catalogued


WRONG = [
    (THUMBNAIL.replace(SHA, "0" * 64), 404),
    (ORIGINAL.replace(SHA, "0" * 64), 404),
    (THUMBNAIL.replace(SHA, "0" * 63), 400),
    (THUMBNAIL.replace(SHA, SHA.upper()), 400),
    (THUMBNAIL.replace(SHA, "..%2f..%2fpolicy"), 404),
    (THUMBNAIL[:-3] + "321", 400),
    (THUMBNAIL + "&width=5", 400),
    (CROP.replace("x2=360", "x2=100"), 400),
    (CROP.replace("x2=360", "x2=nan"), 400),
    (CROP.replace("x1=200", "x1=-1"), 400),
    (CROP.replace("x1=200", "x1=900").replace("x2=360", "x2=950"), 400),
    (CROP.replace("&y2=300", ""), 400),
]


@pytest.mark.usefixtures("root")
def test_wrong_requests_are_problems(client: TestClient) -> None:
    for path, status in WRONG:
        got = client.get(path)
        assert got.status_code == status, (path, got.text)
        assert got.headers["content-type"] == "application/problem+json"


def test_other_bytes_than_the_catalogued_are_never_shown(client: TestClient, root: Path) -> None:
    file = root / "north/1.jpg"
    for data, status, words in ((DATA[:-3] + b"abc", 409, "has changed since"), (None, 404, "No such file")):
        if data is None:
            file.unlink()
        else:
            file.write_bytes(data)
        for path in ROUTES:
            got = client.get(path)
            assert got.status_code == status
            assert "north/1.jpg" in got.json()["detail"]
            assert words in got.json()["detail"]


def test_an_image_that_cannot_be_decoded_is_a_problem_with_its_name(
    client: TestClient, root: Path, tables: Tables
) -> None:
    for data in (b"<html><script>alert(1)</script>", DATA[:30], b""):
        write_files(root, {"x/page.jpg": data})
        digest = hashlib.sha256(data).hexdigest()
        put(tables, media_row(root, "x/page.jpg", data))
        for route in ("thumbnail", "original", "crop?x1=0&y1=0&x2=9&y2=9"):
            got = client.get(f"/ui/v1/images/{digest}/{route}")
            assert got.status_code == 409
            assert "x/page.jpg cannot be shown" in got.json()["detail"]


@pytest.mark.usefixtures("root")
def test_too_many_pictures_at_once_are_refused_for_a_moment(
    client: TestClient, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context.thumbnails, "_max_pictures", 0)
    for path in ROUTES:
        got = client.get(path)
        assert (got.status_code, got.headers["retry-after"]) == (429, "1")


# originals


def test_originals_have_the_type_of_their_bytes_and_a_harmless_name(
    client: TestClient, root: Path, tables: Tables
) -> None:
    for name, kind, media_type, shown in (
        ("1.JPEG", "JPEG", "image/jpeg", "1.JPEG"),
        ("evil.html", "PNG", "image/png", "evil.html.png"),
        ("1.jpg", "WEBP", "image/webp", "1.jpg.webp"),
        ("1.tiff", "TIFF", "image/tiff", "1.tiff"),
        (odd := 'Füchse ☃ %41"; x=y\r\nSet-Cookie: a=b.bmp', "BMP", "image/bmp", odd),
    ):
        data = encoded(board(), kind)
        write_files(root, {f"south/{name}": data})
        put(tables, media_row(root, f"south/{name}", data, media_type="text/html"))
        got = client.get(f"/ui/v1/images/{hashlib.sha256(data).hexdigest()}/original")
        assert (got.status_code, got.content) == (200, data)
        assert got.headers["content-type"] == media_type
        assert got.headers["content-security-policy"].startswith("sandbox;")
        assert "set-cookie" not in got.headers
        words, _, encoded_name = got.headers["content-disposition"].partition("''")
        assert words == "inline; filename*=UTF-8"
        assert not set(encoded_name) & set("\"; =\r\n'")
        assert unquote(encoded_name) == shown


def test_an_original_has_no_metadata_without_the_scope_review(guarded: TestClient, root: Path, tables: Tables) -> None:
    """EXIF data may contain exact coordinates, which the page rounds for these tokens."""
    data = tests.fixtures_local.jpeg(root={0x010F: "Reconyx"}, gps={1: "N", 2: (47.0, 22.0, 12.0)})
    write_files(root, {"south/gps.jpg": data})
    put(tables, media_row(root, "south/gps.jpg", data))
    path = f"/ui/v1/images/{hashlib.sha256(data).hexdigest()}/original"
    bare = guarded.get(path, headers=sent_by("stranger"))
    assert (bare.status_code, dict(opened(bare.content).getexif())) == (200, {})
    assert opened(bare.content).size == opened(data).size
    assert guarded.get(path, headers=sent_by("reviewer")).content == data


# people


@pytest.mark.usefixtures("root")
def test_details_of_people_cannot_be_had_by_any_route(guarded: TestClient, settings: Settings) -> None:
    paths, name = [*ROUTES, *SIZES], "admin"  # without the scope review
    before = {path: guarded.get(path, headers=sent_by(name)) for path in paths}
    assert [path for path in ROUTES if contrast(before[path].content) < 40] == []
    policy(settings, hide_labels='["Person"]')
    for path in paths:
        for tag in ("", before[path].headers["etag"]):
            got = guarded.get(path, headers=sent_by(name, tag))
            assert (got.status_code, got.headers["content-type"]) == (200, "image/jpeg")
            assert got.headers["cache-control"] == "no-store"
            assert "etag" not in got.headers
            assert opened(got.content).size == opened(before[path].content).size
            assert contrast(got.content) < 25
            assert b"Exif" not in got.content


@pytest.mark.usefixtures("root")
def test_hidden_pictures_are_not_found(guarded: TestClient, settings: Settings) -> None:
    paths = [*ROUTES, *SIZES]
    tags = {path: guarded.get(path, headers=sent_by("stranger")).headers["etag"] for path in paths}
    policy(settings, hide_labels='["person"]', mode='"hide"')
    for path, tag in tags.items():
        for sent in ("", tag):
            got = guarded.get(path, headers=sent_by("stranger", sent))
            assert got.status_code == 404
            assert "may show person" in got.json()["detail"]


@pytest.mark.usefixtures("root")
def test_reviewers_see_people_and_their_browser_asks_each_time(guarded: TestClient, settings: Settings) -> None:
    for mode in ('"blur"', '"hide"'):
        policy(settings, hide_labels='["person"]', mode=mode)
        for path in ROUTES:
            got = guarded.get(path, headers=sent_by("reviewer"))
            assert contrast(got.content) > 40
            assert got.headers["cache-control"] == "private, no-cache"
            tag = got.headers["etag"]
            assert guarded.get(path, headers=sent_by("reviewer", tag)).status_code == 304
            stranger = guarded.get(path, headers=sent_by("stranger", tag))  # at the same computer
            assert stranger.status_code != 304
    assert guarded.get(ORIGINAL, headers=sent_by("reviewer")).content == DATA


@pytest.mark.usefixtures("root")
def test_other_pictures_are_shown_as_they_are(guarded: TestClient, settings: Settings) -> None:
    for mode, paths in (('"blur"', ROUTES), ('"hide"', [THUMBNAIL])):
        policy(settings, hide_labels='["car"]', mode=mode)
        for path in paths:
            got = guarded.get(path, headers=sent_by("stranger"))
            assert contrast(got.content) > 40
            assert got.headers["cache-control"] == "private, no-cache"
            sent = sent_by("stranger", got.headers["etag"])
            assert guarded.get(path, headers=sent).status_code == 304


@pytest.mark.usefixtures("root")
def test_a_statement_hides_and_uncovers_at_once(guarded: TestClient, settings: Settings, tables: Tables) -> None:
    policy(settings, hide_labels='["person"]')
    tag = guarded.get(THUMBNAIL, headers=sent_by("reviewer")).headers["etag"]
    states = [("relabel", "deer", True), ("relabel", "person", False), ("relabel", "deer", True)]
    for hour, (action, label, is_shown) in enumerate(states):
        row = person(action, SHA, BOX, hour, label=label)
        append(tables, pa.Table.from_pylist([row], schema=ASSERTIONS))
        sent = sent_by("stranger", tag)
        assert guarded.get(THUMBNAIL, headers=sent).status_code == (304 if is_shown else 200)
        got = guarded.get(THUMBNAIL, headers=sent_by("stranger"))
        assert (contrast(got.content) > 40) == is_shown


def test_a_picture_is_hidden_until_it_is_checked(
    guarded: TestClient, settings: Settings, root: Path, tables: Tables
) -> None:
    data = jpeg(board()[::-1].copy())
    write_files(root, {"new.jpg": data})
    put(tables, media_row(root, "new.jpg", data))
    policy(settings, hide_labels='["person"]')
    for path in ROUTES:
        path = path.replace(SHA, hashlib.sha256(data).hexdigest())
        got = guarded.get(path, headers=sent_by("stranger"))
        assert got.status_code == 404
        assert "run 'resight reprocess'" in got.json()["detail"]
        assert guarded.get(path, headers=sent_by("reviewer")).status_code == 200
        unknown = path.replace(hashlib.sha256(data).hexdigest(), "0" * 64)
        assert "no image" in guarded.get(unknown, headers=sent_by("stranger")).json()["detail"]


@pytest.mark.usefixtures("root")
def test_an_invalid_policy_shows_nothing(guarded: TestClient, settings: Settings) -> None:
    policy(settings, hide_labels='"person"')
    for path in ROUTES:
        got = guarded.get(path, headers=sent_by("reviewer"))
        assert (got.status_code, got.json()["type"]) == (503, "urn:resight:invalid-policy")
        assert f"correct {settings.policy_path}: privacy.hide_labels" in got.json()["detail"]


@pytest.mark.usefixtures("root")
def test_while_no_token_is_needed_everyone_may_review(client: TestClient, settings: Settings) -> None:
    policy(settings, hide_labels='["person"]', mode='"hide"')
    assert client.get(THUMBNAIL).status_code == 200


def test_originals_that_nobody_reads_are_bounded(context: Context, tables: Tables, tmp_path: Path) -> None:
    """On a real server, which by itself would keep any number of them in memory until they are read."""
    data = DATA + bytes(4 << 20)
    put(tables, media_row(write_files(tmp_path / "archive", {"1.jpg": data}), "1.jpg", data))
    path = f"/v1/images/{hashlib.sha256(data).hexdigest()}/original"
    api = build_pages_app(context, ByName(), limits=Limits(answers_mib=1, answer_s=2))
    request = f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nx-name: reviewer\r\n\r\n".encode()
    with listening(api, "/ui") as port:
        url = f"http://127.0.0.1:{port}{path}"
        with unread(port, request) as connection:
            assert httpx2.get(url, headers=sent_by("reviewer")).status_code == 429
            while httpx2.get(url, headers=sent_by("reviewer")).status_code == 429:
                time.sleep(0.05)  # until the first one is cut off
            assert rest(connection) < len(data)
        assert httpx2.get(url, headers=sent_by("reviewer")).content == data
