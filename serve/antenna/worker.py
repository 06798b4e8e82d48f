"""Worker of Antenna's job queue: take tasks, send their images to a Resight that runs, post the results.

Antenna: jobs of the pipelines -> tasks, a few at a time -> POST /antenna/process of Resight -> one result for each task

Antenna delivers a task again if no result arrives within 30 s, and records a repeated result once. So a worker may end
at any moment: nothing is lost, and nothing is kept here.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Event
from typing import Any, TypeVar

import httpx2

from model_store.errors import (
    BadRequest,
    ClusterError,
    Forbidden,
    ModelError,
    ResightError,
    TooSlow,
    Unauthorized,
    error_text,
)
from serve.client import Client, wait_s

ATTEMPTS, FIRST_WAIT_S, TIMEOUT_S = 6, 1.0, 60.0
"""Attempts of a request, and the wait before the second one, which doubles."""
LATER = (408, 429, 500, 502, 503, 504)
"""Statuses after which the same request may succeed."""

A = TypeVar("A")
Task = dict[str, str]
"""`image_id`, `image_url`, and `reply_subject`, the address of its result."""
Result = dict[str, Any]


@dataclass
class JobCounts:
    """Images with an accepted result, and those of them that failed."""

    images: int = 0
    failed: int = 0


def repeated(call: Callable[[], A], stop: Event) -> A:
    """Return `call()`, repeated up to ATTEMPTS times after errors that end by themselves, until `stop` is set."""
    pause_s = FIRST_WAIT_S
    for _ in range(ATTEMPTS - 1):
        try:
            return call()
        except TooSlow:  # it took its time already
            raise
        except ResightError as error:
            if error.retry_after_s is None or stop.wait(max(pause_s, error.retry_after_s)):
                raise
        pause_s *= 2
    return call()


class AntennaQueue:
    """Client of Antenna's REST API. Waits between attempts end as soon as `stop` is set.

    Methods raise ClusterError, with `retry_after_s` unless Antenna refuses the request for a reason that stays.
    """

    def __init__(self, url: str, token: str, stop: Event, transport: httpx2.BaseTransport | None = None) -> None:
        """`url` ends with the version of the API: https://antenna.example.org/api/v2."""
        headers = {"Authorization": f"Token {token}"}
        self._http = httpx2.Client(base_url=url.rstrip("/"), headers=headers, timeout=TIMEOUT_S, transport=transport)
        self._stop = stop
        self._about = {"hostname": socket.gethostname(), "software": "resight"}

    def register(self, project: int, service: str, pipelines: Sequence[Any]) -> None:
        """Offer pipelines to a project, as the service of that name."""
        body = {"processing_service_name": service, "pipelines": pipelines}
        self._request("POST", f"/projects/{project}/pipelines/", json=body)

    def jobs(self, slugs: Sequence[str]) -> list[tuple[int, str]]:
        """Return id and pipeline of unfinished jobs; Antenna may return one of several."""
        query = {"pipeline__slug__in": ",".join(slugs), "ids_only": "1", "incomplete_only": "1"}
        query["dispatch_mode"] = "async_api"

        def read(answer: Any) -> list[tuple[int, str]]:
            return [(int(job["id"]), job["pipeline_slug"]) for job in answer["results"]]

        return [(job, slug) for job, slug in self._request("GET", "/jobs/", read, params=query) if slug in slugs]

    def tasks(self, job: int, count: int) -> list[Task]:
        """Take tasks that can be answered; none of a job that was removed."""
        body = {"batch_size": count, "client_info": self._about}

        def read(answer: Any) -> list[Task]:
            tasks = [task for task in answer["tasks"] if task.get("reply_subject")]
            return [{name: str(task[name]) for name in ("image_id", "image_url", "reply_subject")} for task in tasks]

        return self._request("POST", f"/jobs/{job}/tasks/", read, json=body) or []

    def post(self, job: int, results: Sequence[Result]) -> None:
        """Post results; those of a job that was removed are dropped."""
        body = {"results": results, "client_info": self._about}
        self._request("POST", f"/jobs/{job}/result/", json=body)

    def _request(self, method: str, path: str, read: Callable[[Any], Any] = lambda _: None, **request: Any) -> Any:
        """Return what `read` returns of the JSON of an answer; None for a job that was removed."""

        def attempt() -> Any:
            try:
                answer = self._http.request(method, path, **request)
            except httpx2.HTTPError as error:
                raise ClusterError(
                    f"Antenna does not answer {method} {path}: {error_text(error)}", FIRST_WAIT_S
                ) from error
            reason = f"{answer.status_code} {answer.text[:300]}"
            if answer.status_code in LATER:
                raise ClusterError(f"Antenna does not answer {method} {path}: {reason}", wait_s(answer))
            if answer.status_code == 404 and path.startswith("/jobs/") and path != "/jobs/":
                return None
            if not answer.is_success:
                kind = Unauthorized if answer.status_code in (401, 403) else ClusterError
                raise kind(f"Antenna refused {method} {answer.url.path}: {reason}")
            try:
                return read(answer.json())
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise ClusterError(
                    f"the answer of {answer.url} is not JSON or has other fields: is it the API's URL? ({error!r})"
                ) from error

        return repeated(attempt, self._stop)


def work(
    queue: AntennaQueue,
    resight: Client,
    slugs: Sequence[str],
    stop: Event,
    batch: int,
    poll_s: float,
    once: bool,
    report: Callable[[str], None],
) -> JobCounts:
    """Process the tasks of the pipelines until `stop` is set, or with `once` until no job has a task.

    A batch that was taken is completed. An error of a job is reported and leaves its tasks to Antenna; with `once`, the
    last one is raised at the end. Raises an error at once if Antenna or Resight refuses the token.
    """
    tally, failure = JobCounts(), None
    while not stop.is_set():
        before = tally.images
        try:
            jobs = queue.jobs(slugs)
        except ClusterError as error:
            if once or error.retry_after_s is None:
                raise
            report(str(error))
            jobs = []
        for job, slug in jobs:
            try:
                while not stop.is_set() and (tasks := queue.tasks(job, batch)):
                    results, late = processed(resight, slug, tasks, stop)
                    if results:
                        queue.post(job, results)
                        errors = [r["result"]["error"] for r in results if "error" in r["result"]]
                        tally.images += len(results)
                        tally.failed += len(errors)
                        words = "; ".join([f"{len(errors)} failed", *errors[:3]])
                        report(f"job {job}: {len(results)} images, {words}")
                    if late:
                        raise late
            except (Unauthorized, Forbidden):  # each request would fail
                raise
            except ResightError as error:
                failure = error
                report(f"job {job}: some images are left to Antenna: {error}")
        if tally.images == before:
            if once:
                break
            stop.wait(poll_s)
    if once and failure:
        raise failure
    return tally


def processed(
    resight: Client, slug: str, tasks: Sequence[Task], stop: Event
) -> tuple[list[Result], ResightError | None]:
    """Return the results of tasks for Antenna, and the error of those that it must deliver again.

    If a request with several images fails, each is sent alone, so that one image does not fail the others. An error
    that stays, for example after a version was removed, is the result of its task. Raises Unauthorized, Forbidden.
    """
    images = [{"id": task["image_id"], "url": task["image_url"]} for task in tasks]
    try:
        answer = repeated(lambda: resight.process(slug, images), stop)
    except (Unauthorized, Forbidden):
        raise
    except ResightError as error:
        stays = error.retry_after_s is None and isinstance(error, BadRequest | ModelError)
        if len(tasks) > 1 and (stays or isinstance(error, TooSlow)):
            parts = [processed(resight, slug, [task], stop) for task in tasks]
            results = [result for part, _ in parts for result in part]
            return results, next((late for _, late in parts if late), None)
        if not stays:
            return [], error
        answer = {"errors": [{"image_id": image["id"], "error": str(error)} for image in images]}
    return [_result(answer, slug, task, len(tasks)) for task in tasks], None


def _result(answer: Result, slug: str, task: Task, count: int) -> Result:
    """Return the part of an answer for one of `count` tasks. An image without a result has failed: it is not empty."""
    image = task["image_id"]
    sources = [one for one in answer.get("source_images", ()) if one["id"] == image]
    errors = [one for one in answer.get("errors") or () if one["image_id"] == image]
    result: Result = {"image_id": image, "error": "Resight returned no result for this image"}
    if errors:
        result = errors[0]
    elif sources:
        result = {
            "pipeline": slug,
            "total_time": round(answer["total_time"] / count, 3),
            "source_images": sources[:1],
            "detections": [d for d in answer["detections"] if d["source_image_id"] == image],
        }
    return {"reply_subject": task["reply_subject"], "result": result}
