"""The worker of Antenna's queue: every task is answered, whatever fails first."""

from __future__ import annotations

from threading import Event
from typing import Any, cast

import httpx2
import pytest

from model_store.errors import (
    BadRequest,
    ClusterError,
    Forbidden,
    ModelNotFound,
    Overloaded,
    ResightError,
    TooSlow,
    Unauthorized,
)
from serve.antenna.worker import AntennaQueue, JobCounts, work
from serve.client import Client
from tests.serve.antenna.stub import Failure, Results, StubAntenna, tasks_of

SLUG = "blobs-1-00000000"


class Waits(Event):
    """An event on which a wait takes no time."""

    def __init__(self) -> None:
        super().__init__()
        self.waited_s = list[float]()

    def wait(self, timeout: float | None = None) -> bool:
        self.waited_s.append(timeout or 0)
        return self.is_set()


class Resight:
    """Answers like /antenna/process: an image named bad fails."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.batches = error, list[list[str]]()

    def process(self, pipeline: str, images: list[dict[str, str]]) -> dict[str, Any]:
        if self.error:
            raise self.error
        names = [image["id"] for image in images]
        self.batches.append(names)
        good = [name for name in names if name != "bad"]
        of = {"name": "n", "key": "k"}
        found = {"algorithm": of, "timestamp": "2026-01-01T00:00:00", "classifications": []}
        box = {"x1": 0, "y1": 0, "x2": 1, "y2": 1}
        return {
            "total_time": 1.0,
            "source_images": [image for image in images if image["id"] != "bad"],
            "detections": [{"source_image_id": name, "bbox": box, **found} for name in good],
            "errors": [{"image_id": "bad", "error": "not an image"}] if "bad" in names else None,
        }


def worked(antenna: StubAntenna, resight: Resight, stop: Event | None = None, **more: Any) -> JobCounts:
    stop = stop or Waits()
    transport = httpx2.MockTransport(antenna.answer)
    queue = AntennaQueue("http://antenna.test/api/v2/", "theirs", stop, transport)
    args: dict[str, Any] = {"batch": 2, "poll_s": 1, "once": True, "report": lambda text: None} | more
    return work(queue, cast(Client, resight), [SLUG], stop, **args)


def test_every_task_of_every_job_is_answered_once() -> None:
    antenna = StubAntenna({1: tasks_of("a", "b", "c"), 2: tasks_of("d", "bad")}, SLUG)
    resight = Resight()
    tally = worked(antenna, resight)
    assert tally == JobCounts(images=5, failed=1)
    assert resight.batches == [["a", "b"], ["c"], ["d", "bad"]]
    for image in "abcd":
        result = antenna.results[f"reply.{image}"].result
        assert isinstance(result, Results)
        assert [found.source_image_id for found in result.detections] == [image]
        assert [found.id for found in result.source_images] == [image]
    failure = antenna.results["reply.bad"].result
    assert failure == Failure(error="not an image", image_id="bad")


def test_what_antenna_refuses_for_a_while_is_sent_again() -> None:
    antenna, stop = StubAntenna({1: tasks_of("a")}, SLUG), Waits()
    antenna.broken.extend([503, 429, 502])
    assert worked(antenna, Resight(), stop) == JobCounts(images=1)
    assert stop.waited_s[:3] == [1, 2, 4]
    assert set(antenna.results) == {"reply.a"}


@pytest.mark.parametrize("status", [413])
def test_results_that_antenna_refuses_do_not_end_the_worker(status: int) -> None:
    antenna, stop = StubAntenna({1: tasks_of("a"), 2: tasks_of("b")}, SLUG), Waits()
    lines: list[str] = []

    class Breaking(Resight):
        def process(self, pipeline: str, images: list[dict[str, str]]) -> dict[str, Any]:
            if images[0]["id"] == "a":
                antenna.broken.append(status)
            return super().process(pipeline, images)

    def report(text: str) -> None:
        lines.append(text)
        if text.startswith("job 2"):
            stop.set()

    assert worked(antenna, Breaking(), stop, once=False, report=report) == JobCounts(images=1)
    assert f"job 1: some images are left to Antenna: Antenna refused POST /api/v2/jobs/1/result/: {status}" in lines[0]
    assert set(antenna.results) == {"reply.b"}


def test_an_antenna_that_is_away_ends_the_command_only_with_once() -> None:
    antenna, stop = StubAntenna({1: tasks_of("a")}, SLUG), Waits()
    antenna.broken.extend([503] * 6)
    with pytest.raises(ClusterError, match="Antenna does not answer GET /jobs/: 503 later"):
        worked(antenna, Resight())
    antenna.broken.extend([503] * 6)

    def report(text: str) -> None:
        if text.startswith("job 1"):
            stop.set()

    assert worked(antenna, Resight(), stop, once=False, report=report) == JobCounts(images=1)


def test_a_stop_completes_the_batch_that_was_taken() -> None:
    antenna, stop = StubAntenna({1: tasks_of("a", "b", "c", "d")}, SLUG), Waits()

    class Stopping(Resight):
        def process(self, pipeline: str, images: list[dict[str, str]]) -> dict[str, Any]:
            stop.set()
            return super().process(pipeline, images)

    assert worked(antenna, Stopping(), stop, once=False) == JobCounts(images=2)
    assert set(antenna.results) == {"reply.a", "reply.b"}
    assert len(antenna.waiting[1]) == 2


def test_a_pipeline_that_is_gone_is_the_error_of_each_task() -> None:
    antenna = StubAntenna({1: tasks_of("a", "b")}, SLUG)
    tally = worked(antenna, Resight(ModelNotFound("unknown pipeline")))
    assert tally == JobCounts(images=2, failed=2)
    assert antenna.results["reply.b"].result == Failure(error="unknown pipeline", image_id="b")


LATER = [ClusterError("gone", 1.0), Overloaded("full")]


@pytest.mark.parametrize("error", LATER)
def test_a_resight_that_cannot_answer_now_leaves_the_tasks_to_antenna(error: ResightError) -> None:
    antenna, stop = StubAntenna({1: tasks_of("a", "b", "c", "d")}, SLUG), Waits()
    lines: list[str] = []

    def report(text: str) -> None:
        lines.append(text)
        stop.set()

    assert worked(antenna, Resight(error), stop, once=False, report=report) == JobCounts()
    assert stop.waited_s[:-1] == [1, 2, 4, 8, 16]
    assert f"job 1: some images are left to Antenna: {error}" in lines
    assert antenna.results == {}
    assert len(antenna.waiting[1]) == 2  # no more were taken
    with pytest.raises(type(error)):
        worked(antenna, Resight(error))


@pytest.mark.parametrize("error", [Unauthorized("unknown token"), Forbidden("not this scope")])
def test_a_token_that_resight_refuses_is_an_error_at_once(error: ResightError) -> None:
    antenna = StubAntenna({1: tasks_of("a")}, SLUG)
    with pytest.raises(type(error)):
        worked(antenna, Resight(error), once=False)
    assert antenna.results == {}


@pytest.mark.parametrize(
    ("error", "answered"), [(TooSlow("slow", 1.0), {"a", "c"}), (BadRequest("bad"), {"a", "b", "c"})]
)
def test_one_image_does_not_fail_those_taken_with_it(error: ResightError, answered: set[str]) -> None:
    antenna, stop = StubAntenna({1: tasks_of("a", "b", "c")}, SLUG), Waits()

    class Failing(Resight):
        def process(self, pipeline: str, images: list[dict[str, str]]) -> dict[str, Any]:
            self.error = error if "b" in [image["id"] for image in images] else None
            return super().process(pipeline, images)

    worked(antenna, Failing(), stop, batch=3, once=False, report=lambda text: stop.set())
    assert set(antenna.results) == {f"reply.{image}" for image in answered}
    good = [one for one, done in antenna.results.items() if isinstance(done.result, Results)]
    assert good == ["reply.a", "reply.c"]
    assert stop.waited_s == []


def test_an_image_without_a_result_is_an_error_and_not_empty() -> None:
    antenna = StubAntenna({1: tasks_of("a", "b")}, SLUG)

    class Forgetful(Resight):
        def process(self, pipeline: str, images: list[dict[str, str]]) -> dict[str, Any]:
            answer = super().process(pipeline, images)
            return answer | {"source_images": images[:1], "detections": []}

    assert worked(antenna, Forgetful()) == JobCounts(images=2, failed=1)
    assert isinstance(antenna.results["reply.a"].result, Results)
    assert isinstance(antenna.results["reply.b"].result, Failure)


def test_a_token_that_antenna_refuses_is_an_error_at_once() -> None:
    antenna, stop = StubAntenna({}, SLUG), Waits()
    antenna.token = "another"
    with pytest.raises(Unauthorized, match=r"refused GET /api/v2/jobs/: 401 .*Invalid token"):
        worked(antenna, Resight(), stop, once=False)
    assert stop.waited_s == []


@pytest.mark.parametrize("text", ["<html>", "[]", '{"results": [{"id": "x"}]}'])
def test_another_server_is_an_error(text: str) -> None:
    stop = Waits()
    transport = httpx2.MockTransport(lambda request: httpx2.Response(200, text=text))
    with pytest.raises(ClusterError, match=r"JSON|other fields"):
        AntennaQueue("http://antenna.test", "t", stop, transport).jobs([SLUG])


@pytest.mark.parametrize("once", [True, False])
def test_a_job_that_was_removed_has_no_tasks(once: bool) -> None:
    antenna, stop = StubAntenna({1: tasks_of("a"), 2: tasks_of("b")}, SLUG), Waits()
    antenna.removed.add(1)
    tally = worked(antenna, Resight(), stop, once=once, report=lambda text: stop.set())
    assert tally == JobCounts(images=1)
    assert set(antenna.results) == {"reply.b"}


def test_pipelines_are_offered_under_a_name() -> None:
    antenna = StubAntenna({}, SLUG)
    transport = httpx2.MockTransport(antenna.answer)
    queue = AntennaQueue("http://antenna.test/api/v2", "theirs", Waits(), transport)
    queue.register(7, "resight (a)", [{"slug": SLUG}])
    body = {"processing_service_name": "resight (a)", "pipelines": [{"slug": SLUG}]}
    assert antenna.registered == {"7": body}


def test_a_task_without_an_address_for_its_result_is_left_out() -> None:
    tasks = tasks_of("a", "b")
    del tasks[0]["reply_subject"]
    antenna, resight = StubAntenna({1: tasks}, SLUG), Resight()
    worked(antenna, resight)
    assert set(antenna.results) == {"reply.b"}
    assert resight.batches == [["b"]]
