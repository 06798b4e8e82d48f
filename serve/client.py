"""Client of the HTTP API: detections, and the controls of the rollout.

Client(url).detect(image bytes, model) -> DetectResponse

If a replica dies while it answers a request, the proxy answers 503 or the connection breaks. Detections change
nothing, so `detect` repeats them once, after the time in `Retry-After`. Controls are never repeated.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import httpx2

from model_store import errors
from model_store.errors import SOON_S, ClusterError, Overloaded, ResightError, error_text
from serve.api.schemas import DetectResponse
from serve.rollout.operations import Operation, Outcome, RolloutEvent

MAX_WAIT_S = 10.0
GONE = (httpx2.ConnectError, httpx2.ReadError, httpx2.RemoteProtocolError, httpx2.WriteError)


class Client(AbstractContextManager["Client"]):
    """A synchronous client with one connection pool. Methods raise the errors of `model_store.errors`."""

    def __init__(self, url: str, token: str = "", timeout_s: float = 120.0) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx2.Client(base_url=url, headers=headers, timeout=timeout_s)

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def detect(self, image: bytes, model: str) -> DetectResponse:
        answer = self._post("/v1/detect", content=image, params={"model": model})
        return DetectResponse.model_validate_json(answer.content)

    def antenna_info(self) -> dict[str, Any]:
        """Return the pipelines of Antenna's processing-service API."""
        return self._request("GET", "/antenna/info").json()

    def process(self, pipeline: str, images: Sequence[Mapping[str, str]]) -> dict[str, Any]:
        """Run a pipeline of `antenna_info` over images, each with `id` and `url`; return Antenna's results."""
        body = {"pipeline": pipeline, "source_images": images}
        return self._request("POST", "/antenna/process", json=body).json()

    def apply(self, operation: Operation) -> Outcome:
        """Start an operation and wait for its end. Raises BadRequest, ModelNotFound or Conflict if it is rejected."""
        fields = operation.model_dump(exclude={"kind", "name"}, exclude_none=True)
        if operation.kind not in ("canary", "shadow"):
            fields.pop("percent")
        if operation.kind == "release":
            fields.pop("alias")
        path = f"/v1/models/{operation.name}/{operation.kind}"
        outcome = Outcome.model_validate_json(self._request("POST", path, json=fields).content)
        while outcome.state in ("waiting", "running"):
            time.sleep(0.5)
            path = f"/v1/operations/{outcome.id}"
            outcome = Outcome.model_validate_json(self._request("GET", path).content)
        outcome.raise_if_refused()
        return outcome

    def events(self, name: str, most: int) -> list[RolloutEvent]:
        """Return the newest events of a model, up to `most`."""
        events = self._request("GET", f"/v1/models/{name}/events", params={"most": most}).json()
        return [RolloutEvent.model_validate(event) for event in events]

    def reload(self) -> None:
        """Make every replica read the alias files now."""
        self._request("POST", "/v1/models/reload")

    def _post(self, path: str, **request: Any) -> httpx2.Response:
        """Send a request that may be repeated once."""
        try:
            answer = self._http.post(path, **request)
            if answer.status_code not in (429, 502, 503):
                return _checked(answer)
            time.sleep(wait_s(answer))
        except GONE:
            pass
        except httpx2.HTTPError as error:
            raise self._no_answer(error) from error
        return self._request("POST", path, **request)

    def _request(self, method: str, path: str, **request: Any) -> httpx2.Response:
        try:
            return _checked(self._http.request(method, path, **request))
        except httpx2.HTTPError as error:
            raise self._no_answer(error) from error

    def _no_answer(self, error: Exception) -> ClusterError:
        return ClusterError(f"{self._http.base_url} does not answer: {error_text(error)}", SOON_S)


def wait_s(answer: httpx2.Response) -> float:
    """Return the seconds of Retry-After, at most MAX_WAIT_S; 0.2 without it."""
    text = answer.headers.get("retry-after", "0.2")
    return min(MAX_WAIT_S, float(text)) if text.replace(".", "", 1).isdecimal() else 0.2


def _checked(answer: httpx2.Response) -> httpx2.Response:
    """Return a successful response, or raise the error of its problem JSON in the class of its `type`."""
    if answer.is_success:
        return answer
    try:
        problem = answer.json()
        kind, detail = str(problem["type"]), str(problem["detail"])
    except (ValueError, KeyError, TypeError):
        raise ClusterError(f"HTTP {answer.status_code}: {answer.text[:300]}") from None
    if answer.status_code == 429:
        raise Overloaded(detail, wait_s(answer))
    name = "".join(word.capitalize() for word in kind.rpartition(":")[2].split("-"))  # urn:resight:model-not-found
    known: Any = getattr(errors, name, None)
    is_error = isinstance(known, type) and issubclass(known, ResightError)
    error = known if is_error else ClusterError
    raise error(detail, wait_s(answer) if "retry-after" in answer.headers else None)
