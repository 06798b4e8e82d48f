"""Test the review: a page without scripts, a picture of each slot or the reason, and an editable file."""

from __future__ import annotations

import hashlib
import json
import uuid
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import boto3
import cv2
import numpy as np
import pytest

from batch.filters.review import Candidate, ReviewedSlot, accepted_in, read_text, write_review
from batch.publishing.impact.pictures import COLOURS_RGB
from batch.publishing.impact.samples import Sample, ShownBox
from model_store.errors import BadRequest, StorageUnreachable
from model_store.storage import Folder
from tests.fixtures_local import encoded, jpeg, write_files

HOSTILE = '<script>alert("x")</script><img src=x onerror=alert(1)>&amp;"\'\u202e'
LAYER = "f" * 64
GREY = encoded(np.full((400, 600, 3), 90, np.uint8), "PNG")


class Page(HTMLParser):
    """Collect the tags with their attributes, and the text, of an HTML page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        assert self.open == [], "every tag is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def pictures(self) -> list[str]:
        return [str(attributes["src"]) for tag, attributes in self.tags if tag == "img"]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    files = {"north/1.png": GREY, "north/2.jpg": jpeg({0x0112: 6})}
    return write_files(tmp_path / "archive", files)


def slot_id(number: int) -> str:
    return f"{number:032x}"


def candidate(archive: Path, number: int = 1, **more: Any) -> Candidate:
    """Return a slot of a picture; `more` are fields of the slot, its period or its sample."""
    slot = ReviewedSlot(id=slot_id(number), camera="north", label="deer", images=34, days=5, accepted=False)
    box = ShownBox(rank=0, label="deer", score=0.5, box_px=(100.0, 100.0, 500.0, 300.0), outcome="shown")
    place = str(more.pop("source_root", archive)), more.pop("path", "north/1.png")
    sample = Sample(
        kind="slot",
        media_sha256=more.pop("media_sha256", hashlib.sha256(GREY).hexdigest()),
        camera_id="north",
        captured_at_local=None,
        places=(place,),
        old=(box,),
    )
    first = more.pop("first_local", datetime(2026, 5, 1, 6, 30))
    last = more.pop("last_local", datetime(2026, 5, 9, 20, 15, 30))
    return Candidate(slot.model_copy(update=more), first, last, sample)


def written(out: Path, *candidates: Candidate) -> Page:
    write_review(LAYER, candidates, str(out))
    return Page((out / "index.html").read_text())


def read_accepted(file: str) -> tuple[str, ...]:
    return accepted_in(file, read_text(file))


def edit(out: Path, **accepted: Any) -> Path:
    """Set `accepted` of slots, given as s1=True."""
    file = out / "review.json"
    review = json.loads(file.read_text())
    for slot in review["slots"]:
        slot["accepted"] = accepted.get(f"s{int(slot['id'], 16)}", slot["accepted"])
    file.write_text(json.dumps(review))
    return file


def test_a_slot_is_on_the_page_with_its_facts_and_its_box(archive: Path, tmp_path: Path) -> None:
    page = written(tmp_path / "out", candidate(archive))
    for words in ("deer: 34 images, 5 days, 2026-05-01 06:30:00 to 2026-05-09 20:15:30", slot_id(1)):
        assert words in page.text
    (picture,) = page.pictures()
    data = np.fromfile(tmp_path / "out" / picture, np.uint8)
    drawn = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))[:, :, ::-1]
    assert drawn.shape == (400, 600, 3)
    for line in (drawn[300, 120:480], drawn[120:280, 500]):
        assert np.abs(line.astype(int) - COLOURS_RGB["shown"]).mean() < 60, "the box is drawn"
    assert np.abs(drawn[200, 200:400].astype(int) - 90).mean() < 10, "and what is in it can be seen"


def test_the_file_matches_the_page_and_accepts_nothing(archive: Path, tmp_path: Path) -> None:
    written(tmp_path / "out", candidate(archive, camera=None))
    file = tmp_path / "out" / "review.json"
    assert json.loads(file.read_text()) == {
        "layer_id": LAYER,
        "slots": [{"id": slot_id(1), "camera": None, "label": "deer", "images": 34, "days": 5, "accepted": False}],
    }
    assert read_accepted(str(file)) == ()


def test_slots_come_by_camera_and_the_most_frequent_first(archive: Path, tmp_path: Path) -> None:
    given = [
        candidate(archive, 1, camera=None, images=99),
        candidate(archive, 2, camera="south", images=20),
        candidate(archive, 3, camera="north", images=20),
        candidate(archive, 4, camera="north", images=50),
        candidate(archive, 5, camera=None, images=99),
    ]
    page = written(tmp_path / "out", *given)
    review = json.loads((tmp_path / "out" / "review.json").read_text())
    assert [int(slot["id"], 16) for slot in review["slots"]] == [4, 3, 2, 1, 5]
    places = [page.text.index(words) for words in ("Camera north", "Camera south", "Unknown camera")]
    assert places == sorted(places)
    assert page.text.count("Camera north") == 1
    written(tmp_path / "again", *reversed(given))
    for name in ("review.json", "index.html"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"path": "north/away.png"}, "the file is missing"),
        ({"media_sha256": "0" * 64}, "the file has changed since it was ingested"),
        ({"source_root": "nowhere://x"}, "the image cannot be shown"),
        ({"path": "north/broken.png"}, "the image cannot be shown"),
    ],
    ids=["away", "changed", "no such storage", "damaged"],
)
def test_an_unreadable_image_is_replaced_by_the_reason(
    archive: Path, tmp_path: Path, more: dict[str, Any], words: str
) -> None:
    write_files(archive, {"north/broken.png": b"no image"})
    if more.get("path") == "north/broken.png":
        more = more | {"media_sha256": hashlib.sha256(b"no image").hexdigest()}
    page = written(tmp_path / "out", candidate(archive, 1, **more), candidate(archive, 2))
    assert words in page.text
    assert str(archive) not in page.text, "a review is passed on: no place of this machine"
    assert len(page.pictures()) == 1, "the other slot has its picture"
    assert read_accepted(str(edit(tmp_path / "out", s1=True))) == (slot_id(1),)


def test_no_text_becomes_markup_and_nothing_comes_from_elsewhere(archive: Path, tmp_path: Path) -> None:
    write_files(archive, {"north/<b>.png": GREY})
    given = candidate(archive, camera=HOSTILE, label=HOSTILE, path="north/<b>.png")
    page = written(tmp_path / "out", given, candidate(archive, 2, camera=HOSTILE, label=HOSTILE, path=HOSTILE))
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "link", "iframe", "b", "object", "base", "form"}
    assert page.pictures() == ["samples/00001.jpg"]
    assert not {name for _, given in page.tags for name in given if name.startswith("on")}
    assert page.text.count(HOSTILE) == 4, "the camera once, the label twice, the path once"
    assert "http" not in (tmp_path / "out" / "index.html").read_text().replace("http-equiv", "")


def test_missing_dates_and_singular_nouns(archive: Path, tmp_path: Path) -> None:
    moment = datetime(2026, 5, 1, 6, 30)
    undated = candidate(archive, 1, first_local=None, last_local=None, days=0)
    once = candidate(archive, 2, first_local=moment, last_local=moment, days=1, images=1)
    text = written(tmp_path / "out", undated, once).text
    assert "deer: 34 images, 0 days, undated" in text
    assert "deer: 1 image, 1 day, 2026-05-01 06:30:00\n" in text


def test_a_review_never_takes_the_place_of_another(archive: Path, tmp_path: Path) -> None:
    """A review can contain a day of work."""
    out = tmp_path / "out"
    written(out, candidate(archive))
    file = edit(out, s1=True)
    with pytest.raises(BadRequest, match="not empty"):
        write_review(LAYER, [candidate(archive)], str(out))
    assert read_accepted(str(file)) == (slot_id(1),)


def slot(**more: Any) -> dict[str, Any]:
    plain = {"id": slot_id(1), "camera": None, "label": "deer", "images": 34, "days": 5}
    return plain | {"accepted": True} | more


@pytest.mark.parametrize(
    ("review", "words"),
    [
        ({"layer_id": LAYER, "slots": [slot(accepted="yes")]}, "slots.0.accepted"),
        ({"layer_id": LAYER, "slots": [slot(note="a branch")]}, "slots.0.note"),
        ({"layer_id": LAYER, "slots": [slot(id="1")]}, "slots.0.id"),
        ({"layer_id": LAYER, "slots": [slot(), slot(accepted=False)]}, "more than once"),
        ([], "object"),
    ],
)
def test_a_damaged_file_is_rejected_with_the_location(tmp_path: Path, review: Any, words: str) -> None:
    file = tmp_path / "review.json"
    file.write_text(json.dumps(review))
    with pytest.raises(BadRequest, match=words) as refused:
        read_accepted(str(file))
    assert str(file) in str(refused.value)


def test_invalid_json_and_missing_files_are_rejected(tmp_path: Path) -> None:
    file = tmp_path / "review.json"
    with pytest.raises(BadRequest, match=r"cannot read .*review\.json"):
        read_accepted(str(file))
    file.write_bytes(b'{"layer_id": "\xff')
    with pytest.raises(BadRequest, match="review.json"):
        read_accepted(str(file))
    with pytest.raises(StorageUnreachable, match="cannot read"):
        read_accepted(str(tmp_path))


def test_a_review_can_be_in_a_bucket(archive: Path, s3_endpoint: str) -> None:
    name = f"b{uuid.uuid4().hex}"
    boto3.client("s3", endpoint_url=s3_endpoint).create_bucket(Bucket=name)
    out = f"s3://{name}/review"
    write_review(LAYER, [candidate(archive)], out)
    review = Folder(out).read("review.json")
    assert read_accepted(f"{out}/review.json") == ()
    Folder(out).write("review.json", review.replace(b'"accepted": false', b'"accepted": true'))
    assert len(read_accepted(f"{out}/review.json")) == 1
