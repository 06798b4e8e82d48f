"""Worker of Antenna's job queue: take tasks, send their images to a Resight that runs, post the results.

Antenna: jobs of the pipelines -> tasks, a few at a time -> POST /antenna/process of Resight -> one result for each task

Antenna delivers a task again if no result arrives within 30 s, and records a repeated result once. So a worker may end
at any moment: nothing is lost, and nothing is kept here.
"""

from __future__ import annotations

import socket
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from threading import Event
from typing import Any, TypeVar

import httpx2
from pydantic import BaseModel, ConfigDict, ValidationError

from model_store.errors import BadRequest, ClusterError, ModelError
from model_store.frozen import wrong_fields
from serve.antenna.schemas import ImageFailure, Task
from serve.client import Client, wait_s

ATTEMPTS, FIRST_WAIT_S, TIMEOUT_S = 6, 1.0, 60.0
"""Attempts of a request to Antenna, and the wait before the second one, which doubles."""
LATER = (408, 429, 500, 502, 503, 504)
"""Statuses after which the same request may succeed."""


M = TypeVar("M", bound=BaseModel)


class _Job(BaseModel):
    model_config = ConfigDict(extra="ignore")

    id: int
    pipeline_slug: str


class _Jobs(BaseModel):
    results: list[_Job]


class _Tasks(BaseModel):
    tasks: list[Task]


@dataclass
class Tally:
    """Tasks by their end; `unposted` results were computed, but Antenna did not accept them."""

    images: int = 0
    failed: int = 0
    unposted: int = 0


class AntennaQueue:
    """Client of Antenna's REST API. Waits between attempts end as soon as `stop` is set."""

    def __init__(
        self, url: str, token: str, stop: Event, transport: httpx2.BaseTransport | None = None
    ) -> None:
        """`url` ends with the version of the API: https://antenna.example.org/api/v2."""
        self._http = httpx2.Client(
            base_url=url.rstrip("/"),
            headers={"Authorization": f"Token {token}"},
            timeout=TIMEOUT_S,
            transport=transport,
        )
        self._stop = stop
        self._about = {"hostname": socket.gethostname(), "software": "resight"}

    def register(self, project: int, service: str, pipelines: Sequence[Any]) -> None:
        """Offer pipelines to a project, as the service of that name."""
        body = {"processing_service_name": service, "pipelines": pipelines}
        self._request("POST", f"/projects/{project}/pipelines/", json=body)

    def jobs(self, slugs: Sequence[str]) -> list[tuple[int, str]]:
        """Return id and pipeline of unfinished jobs; Antenna may return one of several."""
        query = {
            "pipeline__slug__in": ",".join(slugs),
            "ids_only": "1",
            "incomplete_only": "1",
            "dispatch_mode": "async_api",
        }
        found = _parsed(_Jobs, self._request("GET", "/jobs/", params=query)).results
        return [(job.id, job.pipeline_slug) for job in found if job.pipeline_slug in slugs]

    def tasks(self, job: int, count: int) -> list[Task]:
        body = {"batch_size": count, "client_info": self._about}
        return _parsed(_Tasks, self._request("POST", f"/jobs/{job}/tasks/", json=body)).tasks

    def post(self, job: int, results: Sequence[Any]) -> None:
        body = {"results": results, "client_info": self._about}
        self._request("POST", f"/jobs/{job}/result/", json=body)

    def _request(self, method: str, path: str, **request: Any) -> Any:
        """Return the JSON of an answer.

        Raises ClusterError, with `retry_after_s` unless Antenna refuses the request for a reason that stays.
        """
        pause_s, reason = FIRST_WAIT_S, ""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                answer = self._http.request(method, path, **request)
            except httpx2.HTTPError as error:
                reason = str(error) or type(error).__name__
            else:
                if answer.is_success:
                    return _json(answer)
                reason = f"{answer.status_code} {answer.text[:300]}"
                if answer.status_code not in LATER:
                    removed = answer.status_code == 404  # a job that has ended since it was listed
                    raise ClusterError(
                        f"Antenna refused {method} {answer.url.path}: {reason}",
                        pause_s if removed else None,
                    )
                if "retry-after" in answer.headers:
                    pause_s = max(pause_s, wait_s(answer))
            if attempt == ATTEMPTS or self._stop.wait(pause_s):
                break
            pause_s *= 2
        raise ClusterError(f"Antenna does not answer {method} {path}: {reason}", pause_s)


def work(
    queue: AntennaQueue,
    resight: Client,
    slugs: Sequence[str],
    stop: Event,
    batch: int,
    poll_s: float,
    once: bool,
    report: Callable[[str], None],
) -> Tally:
    """Process the tasks of the pipelines until `stop` is set, or with `once` until no job has a task.

    A batch that was taken is completed. Raises ClusterError if Antenna refuses the token, with `once` also if
    it does not answer, and the errors of Resight that a retry does not end.
    """
    tally = Tally()
    while not stop.is_set():
        done = 0
        try:
            for job, slug in queue.jobs(slugs):
                done += sum(_batches(queue, resight, job, slug, batch, stop, tally, report))
        except ClusterError as error:
            if once or error.retry_after_s is None:
                raise
            report(str(error))
        if not done:
            if once:
                break
            stop.wait(poll_s)
    return tally


def _batches(
    queue: AntennaQueue,
    resight: Client,
    job: int,
    slug: str,
    batch: int,
    stop: Event,
    tally: Tally,
    report: Callable[[str], None],
) -> Iterator[int]:
    """Process a job, and yield the number of tasks of each batch."""
    while not stop.is_set() and (tasks := queue.tasks(job, batch)):
        results = processed(resight, slug, tasks)
        errors = [entry["result"]["error"] for entry in results if "error" in entry["result"]]
        tally.images += len(tasks)
        tally.failed += len(errors)
        try:
            queue.post(job, results)
        except ClusterError as error:
            tally.unposted += len(results)
            report(f"job {job}: {len(results)} results were not posted: {error}")
            if error.retry_after_s is None:
                raise
        report(
            f"job {job}: {len(tasks)} images, {len(errors)} failed{'; ' if errors else ''}{'; '.join(errors[:3])}"
        )
        yield len(tasks)


def processed(resight: Client, slug: str, tasks: Sequence[Task]) -> list[dict[str, Any]]:
    """Return the result of each task that can be answered, for Antenna.

    If Resight refuses the whole request, for example after a version was removed, that is the error of each task.
    """
    images = {task.image_id: {"id": task.image_id, "url": task.image_url} for task in tasks}
    answer: dict[str, Any]
    try:
        answer = resight.process(slug, list(images.values()))
    except (BadRequest, ModelError) as error:
        if error.retry_after_s is not None:
            raise
        failures = [ImageFailure(image_id=image, error=str(error)) for image in images]
        answer = {"errors": [failure.model_dump() for failure in failures]}
    errors = {entry["image_id"]: entry for entry in answer.get("errors") or ()}
    found: dict[str, list[Any]] = defaultdict(list)
    for detection in answer.get("detections", ()):
        found[detection["source_image_id"]].append(detection)
    return [
        {
            "reply_subject": task.reply_subject,
            "result": errors.get(task.image_id)
            or {
                "pipeline": slug,
                "total_time": round(answer["total_time"] / len(images), 3),
                "source_images": [images[task.image_id]],
                "detections": found[task.image_id],
            },
        }
        for task in tasks
        if task.reply_subject is not None
    ]


def _json(answer: httpx2.Response) -> Any:
    try:
        return answer.json()
    except ValueError as error:
        raise ClusterError(
            f"{answer.url} did not answer with JSON: is it the API's URL?"
        ) from error


def _parsed(kind: type[M], data: Any) -> M:
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise ClusterError(f"Antenna's answer has other fields: {wrong_fields(error)}") from error
