"""`resight antenna work` over a stub of Antenna."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from threading import Event
from typing import Any

import httpx2
import pytest

import cli.antenna
from serve.antenna.worker import AntennaQueue
from tests.cli.conftest import Resight as Command
from tests.serve.antenna.stub import StubAntenna, tasks_of
from tests.serve.antenna.test_worker import SLUG, Resight

WORK = ("antenna", "work", "--url", "http://antenna.test/api/v2", "--once")


@pytest.fixture
def antenna(monkeypatch: pytest.MonkeyPatch) -> StubAntenna:
    """Two tasks, of which one fails, and a Resight that answers."""
    stub = StubAntenna({1: tasks_of("a", "bad")}, SLUG)

    class Served(Resight):
        def antenna_info(self) -> dict[str, Any]:
            return {"pipelines": [{"slug": SLUG}]}

    @contextlib.contextmanager
    def resight(settings: object) -> Iterator[Served]:
        yield Served()

    transport = httpx2.MockTransport(stub.answer)
    monkeypatch.setattr(cli.antenna, "AntennaQueue", partial(AntennaQueue, transport=transport))
    monkeypatch.setattr(cli.antenna, "_resight", resight)
    monkeypatch.setenv("ANTENNA_TOKEN", "theirs")
    return stub


def test_pipelines_are_offered_and_tasks_are_answered(resight: Command, antenna: StubAntenna) -> None:
    done = resight(*WORK, "--project", "7", "--service", "north")
    assert done.code == 0
    assert antenna.registered["7"]["processing_service_name"] == "north"
    assert set(antenna.results) == {"reply.a", "reply.bad"}
    assert "job 1: 2 images, 1 failed; not an image" in done.err
    assert "2 images, 1 failed\n" in done.err


def test_the_token_is_not_printed_when_it_is_refused(resight: Command, antenna: StubAntenna) -> None:
    error = resight(*WORK, "--token", "wrong-one")
    assert error.code == 2
    assert "401" in error.err
    assert "wrong-one" not in error.err


def test_without_a_running_resight_it_is_an_error(resight: Command) -> None:
    error = resight(*WORK, "--token", "t").refused(8)
    assert "no Resight is running" in error


@pytest.mark.parametrize(
    ("served", "wanted", "words"), [([], [], "no pipeline is served"), (["a"], ["a,b"], "invalid pipeline 'a,b'")]
)
def test_slugs_that_cannot_be_worked_for(served: list[str], wanted: list[str], words: str) -> None:
    with pytest.raises(Exception, match=words):
        cli.antenna._slugs(served, wanted)


def test_the_second_interrupt_ends_at_once() -> None:
    stop = Event()
    cli.antenna._end(stop)
    assert stop.is_set()
    with pytest.raises(KeyboardInterrupt):
        cli.antenna._end(stop)
