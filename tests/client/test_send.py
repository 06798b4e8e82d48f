"""Sending a folder: each content once, whatever happens in between."""

from __future__ import annotations

import contextlib
import os
import time
import tracemalloc
from pathlib import Path
from typing import Any

import httpx2
import pytest

import resight_client.send
from resight_client import ClientError, Progress, Summary
from resight_client.queue import Queue, default_path
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


def test_a_file_that_changed_is_sent_again_and_a_new_camera_is_another_target(
    station: Station,
) -> None:
    station.send()
    station.put("a.jpg", b"another picture", OLD_S + 5)
    assert station.send() == Summary(before=2, sent=1)
    assert station.send(camera="south") == Summary(sent=3)


def test_other_files_are_left_alone(station: Station, tmp_path: Path) -> None:
    for name in ("._a.jpg", ".Trashes/x.jpg", "notes.txt", "clip.mp4"):
        station.put(name)
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (station.card / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (station.card / "folder.jpg").mkdir()
    Path(os.fsdecode(os.fsencode(station.card) + b"/\xe9.jpg")).write_bytes(b"latin-1")
    assert station.send(settle_s=0) == Summary(sent=4)


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
    assert station.send(again=True).sent == 1


@pytest.mark.parametrize(
    "answer",
    [
        problem(401, "unauthorized"),
        problem(403, "forbidden"),
        problem(404, "model-not-found"),
        problem(400, "bad-request"),
        httpx2.Response(302, headers={"location": "https://resight"}),
        httpx2.Response(200, text="<html>"),
    ],
)
def test_a_request_that_is_wrong_for_all_ends_the_call(
    station: Station, answer: httpx2.Response
) -> None:
    station.shelf.answers.append(answer)
    with pytest.raises(ClientError):
        station.send()
    assert len(station.shelf.asked) == 1
    assert station.send() == Summary(sent=3)


def test_without_the_server_all_waits_for_the_next_call(station: Station) -> None:
    station.shelf.answers.extend([httpx2.ConnectError("no route")] * 99)
    summary = station.send()
    assert (summary.waiting, summary.ok) == (3, False)
    assert summary.stopped == "http://resight does not answer: no route"
    assert station.clock.now_s <= 600
    station.shelf.answers.clear()
    assert station.send() == Summary(sent=3)


def test_the_only_detector_of_the_server_is_the_default_model(station: Station) -> None:
    assert station.send(model="").sent == 3
    assert station.shelf.asked[0] == "GET /v1/models"
    assert "model=deer" in station.shelf.asked[1]


def test_an_unreadable_file_is_reported_and_stays_in_the_queue(
    station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_a_file_that_is_removed_is_forgotten(station: Station) -> None:
    station.shelf.answers.extend([httpx2.ConnectError("")] * 99)
    station.send()
    station.shelf.answers.clear()
    (station.card / "a.jpg").unlink()
    assert station.send() == Summary(sent=2)
    assert station.send() == Summary(before=2)


class Killed(BaseException):
    """The process ends here."""


def test_a_call_that_is_killed_at_any_step_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step is before or after a request, or before or after a transaction of the queue."""
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

    monkeypatch.setattr(Queue, "_run", stepped(Queue._run))
    monkeypatch.setattr(Queue, "_offer", stepped(Queue._offer))
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
    assert killed == 14  # 2 around the scan, and 4 around each of 3 images


def test_progress_counts_files_and_bytes(station: Station) -> None:
    states: list[Progress] = []
    station.send(progress=states.append)
    assert [(state.done, state.total) for state in states] == [(1, 3), (2, 3), (3, 3)]
    assert states[-1].done_bytes == states[-1].total_bytes == len("a.jpgb.JPGDCIM/100/c.jpeg")


def test_a_large_file_is_never_in_memory(station: Station) -> None:
    path = station.put("large.jpg")
    with path.open("r+b") as file:
        file.truncate(64 * 2**20)
    os.utime(path, (OLD_S, OLD_S))
    station.send()  # imports
    os.utime(path, (OLD_S + 9, OLD_S + 9))
    station.shelf.kept.clear()
    station.queue.unlink()
    tracemalloc.start()
    assert station.send().sent == 4
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 2**20


def test_many_files_are_read_from_the_queue_in_pages(station: Station) -> None:
    for number in range(1200):
        station.put(f"many/{number:04}.jpg")
    station.shelf.answers.extend([httpx2.ConnectError("")] * 99)
    assert station.send().waiting == 1203
    queue = Queue(station.queue, "http://resight north", os.fsencode(station.card.resolve()))
    paths = [file.path for file in queue.files("waiting")]
    queue.close()
    assert len(paths) == 1203
    assert paths == sorted(paths)


def test_a_damaged_queue_and_a_missing_folder_are_errors(station: Station) -> None:
    station.queue.parent.mkdir(parents=True)
    station.queue.write_bytes(b"no database" * 100)
    with pytest.raises(ClientError, match="if it is damaged, remove it"):
        station.send()
    with pytest.raises(ClientError, match="is not a folder"):
        resight_client.send_folder(station.card / "missing", "http://resight")


def test_the_queue_lies_in_the_state_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert default_path() == Path("/state/resight-client/queue.sqlite")
