"""A stub of Antenna's job queue, made from the schema that its server publishes."""

from __future__ import annotations

import json
from collections import deque
from datetime import datetime
from typing import Any

import httpx2
from pydantic import BaseModel, ConfigDict


class Theirs(BaseModel):
    model_config = ConfigDict(extra="ignore")


class Reference(Theirs):
    name: str
    key: str


class Classification(Theirs):
    classification: str
    scores: list[float]
    algorithm: Reference
    terminal: bool
    timestamp: datetime


class Box(Theirs):
    x1: float
    y1: float
    x2: float
    y2: float


class Detection(Theirs):
    source_image_id: str
    bbox: Box | None
    algorithm: Reference
    timestamp: datetime
    classifications: list[Classification]


class Image(Theirs):
    id: str
    url: str


class Results(Theirs):
    pipeline: str
    total_time: float
    source_images: list[Image]
    detections: list[Detection]
    errors: list[Any] | str | None = None


class Failure(Theirs):
    error: str
    image_id: str | None = None


class TaskResult(Theirs):
    reply_subject: str
    result: Results | Failure


class Posted(Theirs):
    results: list[TaskResult]


class StubAntenna:
    """Jobs with tasks; a task that is not answered is delivered again. `broken` statuses are answered first."""

    def __init__(self, tasks: dict[int, list[dict[str, str]]], slug: str) -> None:
        self.waiting = {job: deque(found) for job, found in tasks.items()}
        self.slug, self.token = slug, "theirs"
        self.broken = deque[int]()
        self.results: dict[str, TaskResult] = {}
        self.registered: dict[str, Any] = {}
        self.asked, self.removed = list[str](), set[int]()

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        path = request.url.path.removeprefix("/api/v2")
        self.asked.append(f"{request.method} {path}")
        if self.broken:
            return httpx2.Response(self.broken.popleft(), headers={"Retry-After": "0"}, text="later")
        if request.headers["authorization"] != f"Token {self.token}":
            return httpx2.Response(401, json={"detail": "Invalid token."})
        body = json.loads(request.content or b"{}")
        match path.strip("/").split("/"):
            case ["jobs"]:
                assert request.url.params["dispatch_mode"] == "async_api"
                open_ = [job for job, tasks in self.waiting.items() if tasks]
                found = [{"id": job, "pipeline_slug": self.slug, "more": 1} for job in open_]
                return httpx2.Response(200, json={"count": len(found), "results": found})
            case ["jobs", job, _] if int(job) in self.removed:
                return httpx2.Response(404, json={"detail": "Not found."})
            case ["jobs", job, "tasks"]:
                tasks = self.waiting[int(job)]
                taken = [tasks.popleft() for _ in range(min(body["batch_size"], len(tasks)))]
                return httpx2.Response(200, json={"tasks": taken})
            case ["jobs", job, "result"]:
                posted = Posted.model_validate(body).results
                self.results |= {one.reply_subject: one for one in posted}
                answer = {"status": "accepted", "job_id": int(job), "results_queued": len(posted)}
                return httpx2.Response(200, json=answer)
            case ["projects", project, "pipelines"]:
                self.registered[project] = body
                return httpx2.Response(200, json={"pipelines_created": []})
            case _:
                return httpx2.Response(404, text="Not Found")


def tasks_of(*images: str) -> list[dict[str, str]]:
    return [
        {
            "id": f"task-{image}",
            "image_id": image,
            "image_url": f"http://pictures.test/{image}.jpg",
            "reply_subject": f"reply.{image}",
        }
        for image in images
    ]
