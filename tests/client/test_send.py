"""Sending a folder: each content once, whatever happens in between."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import time
import tracemalloc
from pathlib import Path
from typing import Any

import httpx2
import pytest

import resight_client.send
from archive.catalogue.listing import EXTENSIONS
from resight_client import Options, Rejected, Summary, Unreachable
from resight_client.command import WAITING, exit_code
from resight_client.record import Record, default_path
from tests.client.shelf import OLD_S, Shelf, Station, problem, sha256_of


def test_every_image_is_sent_once_and_a_second_call_asks_nothing(station: Station) -> None:
    assert station.send() == Summary(sent=3)
    assert len(station.stored) == 3
    asked = len(station.shelf.asked)
    assert station.send() == Summary(before=3)
    assert len(station.shelf.asked) == asked == 3


def test_a_content_that_lies_there_twice_is_sent_once(station: Station) -> None:
    station.put("copy.jpg", b"a.jpg")
    assert station.send() == Summary(sent=3, kept=1)
    assert len(station.shelf.asked) == 3


def test_a_file_that_changed_is_sent_again_and_a_new_camera_or_model_is_another_target(station: Station) -> None:
    station.send()
    station.put("a.jpg", b"another picture", OLD_S + 5)
    assert station.send() == Summary(before=2, sent=1)
    assert station.send(camera="south") == Summary(sent=3)
    assert station.send(model="wolf") == Summary(kept=3)
    assert station.shelf.asked[-1] == "/v1/images?model=wolf&camera=north"
    assert station.send(url="http://me:secret@resight/") == Summary(before=3)
    assert b"secret" not in station.record.read_bytes()


def test_other_files_are_left_alone(station: Station, tmp_path: Path) -> None:
    for name in ("._a.jpg", ".Trashes/x.jpg", "notes.txt", "clip.mp4"):
        station.put(name)
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (station.card / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (station.card / "folder.jpg").mkdir()
    Path(os.fsdecode(os.fsencode(station.card) + b"/\xe9.jpg")).write_bytes(b"latin-1")
    assert station.send(settle_s=0) == Summary(sent=4)
    assert tuple(map(str.encode, EXTENSIONS)) == resight_client.send.IMAGES, "those of an ingest"


def test_a_file_that_is_being_written_is_left_for_later(station: Station) -> None:
    station.put("new.jpg", at_s=time.time())
    station.put("ahead.jpg", at_s=time.time() + 86_400)  # the clock of the camera
    assert station.send(settle_s=60.0) == Summary(sent=4, later=1)
    station.put("new.jpg", at_s=OLD_S)
    assert station.send() == Summary(before=4, sent=1)


@pytest.mark.parametrize("change", ["grown", "cut", "other"])
def test_a_file_that_changes_while_it_is_sent_is_not_stored(
    station: Station, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    path, data = station.put("big.jpg", bytes(600_000)), bytes(600_000)
    digest_of = resight_client.send.digest_of

    def changing(of: bytes) -> tuple[str, int]:
        found = digest_of(of)
        if of.endswith(b"big.jpg"):
            news = {"grown": data + b"1", "cut": data[:-1], "other": data[:-1] + b"1"}[change]
            path.write_bytes(news)
            os.utime(path, (OLD_S, OLD_S))
        return found

    monkeypatch.setattr(resight_client.send, "digest_of", changing)
    summary = station.send()
    assert len(station.stored) == 3
    assert (summary.sent, summary.later) == (3, 1)
    monkeypatch.undo()
    assert station.send().sent == 1
    assert station.stored[-1] == sha256_of(path.read_bytes())


def test_an_image_that_the_server_refuses_is_reported_until_it_is_sent(station: Station) -> None:
    station.shelf.problems[sha256_of(b"a.jpg")] = problem(415, "image-unsupported")
    station.put("empty.jpg").write_bytes(b"")
    os.utime(station.card / "empty.jpg", (OLD_S, OLD_S))
    summary = station.send()
    assert (summary.sent, summary.refused, summary.ok) == (2, 2, False)
    reasons = {Path(path).name: reason for path, reason in summary.reasons.items()}
    assert reasons == {"a.jpg": "415 the image-unsupported", "empty.jpg": "the file is empty"}
    asked = len(station.shelf.asked)
    assert station.send() == Summary(before=2, refused=2, reasons=summary.reasons)
    assert len(station.shelf.asked) == asked
    (station.card / "empty.jpg").unlink()
    assert station.send().refused == 1
    station.shelf.problems.clear()
    station.shelf.kept.clear()  # the archive was restored
    assert station.send(again=True) == Summary(sent=3)


@pytest.mark.parametrize(
    "answer",
    [
        problem(404, "model-not-found"),
        httpx2.Response(302, headers={"location": "https://resight"}),
        httpx2.Response(200, json={"files": []}),
    ],
)
def test_a_request_that_is_wrong_for_all_ends_the_call(station: Station, answer: httpx2.Response) -> None:
    media = {"media_sha256": sha256_of(b"a.jpg"), "is_new": True}
    station.shelf.answers.extend([httpx2.Response(201, json={"media": media}), answer])
    summary = station.send()
    assert (summary.sent, summary.waiting, summary.ok) == (1, 2, False)
    assert isinstance(summary.stopped, Rejected)
    assert len(station.shelf.asked) == 2
    assert station.send() == Summary(before=1, sent=2)


def test_without_the_server_all_waits_for_the_next_call(station: Station) -> None:
    station.shelf.answers.extend([httpx2.ConnectError("no route")] * 99)
    summary = station.send()
    assert (summary.waiting, summary.ok) == (3, False)
    assert isinstance(summary.stopped, Unreachable)
    assert str(summary.stopped) == "http://resight does not answer: no route"
    assert station.clock.now_s <= 600
    station.shelf.answers.clear()
    assert station.send() == Summary(sent=3)


def test_an_image_for_which_the_server_fails_does_not_block_the_others(station: Station) -> None:
    path = str(station.card / "a.jpg")
    station.shelf.problems[sha256_of(b"a.jpg")] = problem(500, "x")
    assert station.send() == Summary(sent=2, waiting=1, reasons={path: "500 the x"})
    assert not Summary(waiting=1).ok
    assert not Summary(later=1).ok
    station.shelf.problems.clear()
    assert station.send() == Summary(before=2, sent=1)


def test_only_failures_in_a_row_end_the_call(station: Station) -> None:
    for number in range(12):
        name = f"{number:02}.jpg"
        station.put(name)
        if number % 2:
            station.shelf.problems[sha256_of(name.encode())] = problem(500, "x")
    summary = station.send()
    assert (summary.sent, summary.waiting, summary.stopped) == (9, 6, None)


def test_a_server_that_fails_for_all_ends_the_call_and_refuses_nothing(station: Station) -> None:
    for number in range(9):
        station.put(f"{number}.jpg")
    station.shelf.answers.extend([problem(503, "x")] * 999)
    summary = station.send()
    assert (summary.waiting, summary.refused, str(summary.stopped)) == (12, 0, "503 the x")
    assert isinstance(summary.stopped, Unreachable)
    assert len(station.shelf.asked) == 15  # five files, three times each
    assert 120 < station.clock.now_s < 600
    station.shelf.answers.clear()
    assert station.send() == Summary(sent=12)


def test_an_unreadable_file_is_reported_and_is_sent_later(station: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    digest_of = resight_client.send.digest_of

    def failing(path: bytes) -> tuple[str, int]:
        if path.endswith(b"a.jpg"):
            raise OSError(5, "Input/output error")
        return digest_of(path)

    monkeypatch.setattr(resight_client.send, "digest_of", failing)
    summary = station.send()
    assert (summary.sent, summary.unreadable, summary.waiting, summary.ok) == (2, 1, 0, False)
    monkeypatch.undo()
    assert station.send() == Summary(before=2, sent=1)


def test_a_folder_that_cannot_be_read_is_reported(station: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def failing(path: bytes) -> Any:
        if path.endswith(b"DCIM"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(resight_client.send.os, "scandir", failing)
    reasons = {str(station.card / "DCIM"): "unreadable: Permission denied"}
    assert station.send() == Summary(sent=2, unreadable=1, reasons=reasons)


def test_a_file_that_is_removed_is_left_out(station: Station) -> None:
    station.shelf.on_store = lambda: (station.card / "b.JPG").unlink(missing_ok=True)
    assert station.send() == Summary(sent=2)
    assert station.send() == Summary(before=2)


def test_a_folder_that_is_removed_is_reported(station: Station) -> None:
    station.put("DCIM/100/d.jpg")

    def remove() -> None:
        if len(station.stored) == 3:
            shutil.rmtree(station.card / "DCIM")

    station.shelf.on_store = remove
    summary = station.send()
    assert (summary.sent, summary.unreadable, summary.stopped) == (3, 1, None)


@pytest.mark.parametrize("empty_mount_point", [False, True])
def test_a_card_that_disappears_ends_the_call(
    station: Station, monkeypatch: pytest.MonkeyPatch, empty_mount_point: bool
) -> None:
    def pull() -> None:
        station.card.rename(station.card.parent / "pulled")
        if empty_mount_point:
            station.card.mkdir()
            device_of = resight_client.send.device_of
            monkeypatch.setattr(resight_client.send, "device_of", lambda folder: device_of(folder) + 1)

    station.shelf.on_store = pull
    summary = station.send()
    assert (summary.sent, summary.ok) == (1, False)
    assert isinstance(summary.stopped, Unreachable)
    assert "is the card still mounted?" in str(summary.stopped)


def test_an_empty_folder_is_not_a_success(station: Station) -> None:
    station.send()
    shutil.rmtree(station.card)
    station.card.mkdir()
    summary = station.send()
    assert (summary.before, summary.ok) == (0, False)
    assert isinstance(summary.stopped, Rejected)


class Killed(BaseException):
    """The process ends here."""


def test_a_call_that_is_killed_at_any_step_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step is before or after a request, or before or after a transaction of the record."""
    steps = 0

    def step() -> None:
        nonlocal steps
        steps -= 1
        if steps == 0:
            raise Killed

    def stepped(function: Any) -> Any:
        def call(*args: Any) -> Any:
            step()
            result = function(*args)
            step()
            return result

        return call

    monkeypatch.setattr(Record, "add", stepped(Record.add))
    monkeypatch.setattr(Shelf, "answer", stepped(Shelf.answer))
    killed = 0
    for number in range(1, 99):
        place = tmp_path / str(number)
        place.mkdir()
        station = Station(place)
        for name in ("a.jpg", "b.jpg", "c.jpg"):
            station.put(name)
        steps = number
        with contextlib.suppress(Killed):
            station.send()
            break
        killed += 1
        steps = 0
        summary = station.send()
        assert summary.ok
        assert summary.sent + summary.kept + summary.before == 3
        assert sorted(station.stored) == sorted(map(sha256_of, (b"a.jpg", b"b.jpg", b"c.jpg")))
        assert station.send() == Summary(before=3)
    assert killed == 12  # 4 for each of 3 images


def test_a_large_file_is_never_in_memory(station: Station) -> None:
    path = station.put("large.jpg")
    with path.open("r+b") as file:
        file.truncate(64 * 2**20)
    os.utime(path, (OLD_S, OLD_S))
    station.send()  # imports
    os.utime(path, (OLD_S + 9, OLD_S + 9))
    station.shelf.kept.clear()
    station.record.unlink()
    tracemalloc.start()
    assert station.send().sent == 4
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 2**20


def test_a_spent_quota_ends_the_call_after_one_request_unless_it_starts_again_soon(station: Station) -> None:
    station.shelf.answers.append(problem(429, "quota-spent", Retry_After="43200"))
    summary = station.send(give_up_s=7200.0)
    assert (summary.sent, summary.waiting, str(summary.stopped)) == (0, 3, "429 the quota-spent")
    assert (exit_code(summary), len(station.shelf.asked), station.clock.waits_s) == (WAITING, 1, [])
    station.shelf.answers.append(problem(429, "quota-spent", Retry_After="300"))
    assert station.send().sent == 3
    assert station.clock.waits_s == [300]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_record_that_fails_ends_the_call_with_its_counts(
    station: Station, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    full = "CREATE TRIGGER full BEFORE INSERT ON outcomes WHEN (SELECT count(*) FROM outcomes) = "
    station.put("d.jpg")
    station.send(model="other")
    with contextlib.closing(sqlite3.connect(station.record)) as db:
        db.execute(f"{full}{number} + 4 BEGIN SELECT raise(ABORT, 'disk is full'); END")
        db.commit()
    summary = station.send()
    assert (summary.sent + summary.kept, summary.waiting) == (number, 4 - number)
    assert isinstance(summary.stopped, Rejected)
    assert "disk is full" in str(summary.stopped)


def test_a_damaged_record_and_a_missing_folder_are_errors(station: Station) -> None:
    station.record.parent.mkdir(parents=True)
    station.record.write_bytes(b"no database" * 100)
    with pytest.raises(Rejected, match="if it is damaged, remove it"):
        station.send()
    with pytest.raises(Rejected, match="is not a folder"):
        resight_client.send_folder(station.card / "missing", Options("http://resight", "deer"))


def test_the_record_lies_in_the_state_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert default_path() == Path("/state/resight-client/record.sqlite")
