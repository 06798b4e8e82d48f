"""Every error has a status, an exit code and a body in problem JSON."""

from __future__ import annotations

import json
import pickle

import pytest

from batch.jobs.exit_codes import exit_code
from model_store import errors
from model_store.errors import Overloaded, ResightError
from serve.api.problems import MEDIA_TYPE, of_error, problem, status_of


def family(kind: type[ResightError]) -> list[type[ResightError]]:
    return [kind, *(below for child in kind.__subclasses__() for below in family(child))]


EVERY_ERROR = [kind for kind in family(ResightError) if not kind.__module__.startswith("tests.")]
STATUS_AND_EXIT_CODE = [
    (errors.ResightError, 500, 1),
    (errors.ImageError, 400, 1),
    (errors.ImageUnsupported, 415, 1),
    (errors.ImageUnreadable, 400, 1),
    (errors.ImageTooLarge, 413, 1),
    (errors.ModelError, 503, 6),
    (errors.ModelNotFound, 404, 6),
    (errors.ModelExists, 409, 6),
    (errors.ModelRefused, 503, 6),
    (errors.DigestMismatch, 503, 6),
    (errors.ProbeFailed, 503, 6),
    (errors.ModelNotReady, 503, 6),
    (errors.RequestError, 400, 2),
    (errors.BadRequest, 400, 2),
    (errors.InvalidPolicy, 503, 2),
    (errors.Unauthorized, 401, 2),
    (errors.Forbidden, 403, 2),
    (errors.Conflict, 409, 2),
    (errors.DeadlinePassed, 504, 2),
    (errors.TooSlow, 408, 2),
    (errors.Overloaded, 429, 2),
    (errors.QuotaSpent, 429, 2),
    (errors.StorageError, 503, 7),
    (errors.StorageFull, 507, 7),
    (errors.StorageUnreachable, 503, 7),
    (errors.IndexNotReady, 503, 7),
    (errors.StorageUnsafe, 503, 7),
    (errors.TableConflict, 503, 7),
    (errors.RunError, 500, 5),
    (errors.AccountingOpen, 500, 3),
    (errors.NothingWorked, 500, 4),
    (errors.TooManyFailed, 500, 5),
    (errors.RunStalled, 500, 5),
    (errors.ProcessKilled, 500, 5),
    (errors.GateClosed, 409, 5),
    (errors.ObjectiveMissed, 500, 5),
    (errors.LineageMismatch, 500, 5),
    (errors.ClusterError, 500, 8),
]


def test_the_table_below_names_every_error() -> None:
    assert {kind for kind, _, _ in STATUS_AND_EXIT_CODE} == set(EVERY_ERROR)


@pytest.mark.parametrize(("kind", "status", "code"), STATUS_AND_EXIT_CODE)
def test_every_error_has_an_http_status_and_an_exit_code(kind: type[ResightError], status: int, code: int) -> None:
    error = kind("why")
    assert (status_of(error), exit_code(error)) == (status, code)


@pytest.mark.parametrize("kind", EVERY_ERROR)
def test_every_error_survives_the_way_to_another_process_and_becomes_a_problem(kind: type[ResightError]) -> None:
    error = pickle.loads(pickle.dumps(kind("why")))
    assert (type(error), str(error)) == (kind, "why")
    answer = of_error(error)
    body = json.loads(bytes(answer.body))
    assert answer.media_type == MEDIA_TYPE == "application/problem+json"
    assert set(body) == {"type", "title", "status", "detail"}
    assert (body["status"], body["detail"]) == (answer.status_code, "why")
    assert json.loads(bytes(of_error(error, "/v2/models/deer").body)) == {"error": "why"}


@pytest.mark.parametrize(
    ("kind", "urn", "title"),
    [
        ("", "urn:resight:", ""),
        ("Overloaded", "urn:resight:overloaded", "Overloaded"),
        ("ModelNotFound", "urn:resight:model-not-found", "Model not found"),
    ],
)
def test_type_and_title_are_the_words_of_the_class_name(kind: str, urn: str, title: str) -> None:
    body = json.loads(bytes(problem(400, kind, "why").body))
    assert (body["type"], body["title"]) == (urn, title)


@pytest.mark.parametrize("kind", EVERY_ERROR)
def test_an_error_that_ends_by_itself_says_when_to_retry(kind: type[ResightError]) -> None:
    assert of_error(kind("why", 1.0)).headers["Retry-After"] == "1"
    assert pickle.loads(pickle.dumps(kind("why", 1.0))).retry_after_s == 1.0
    needs_a_person = not issubclass(kind, Overloaded | errors.IndexNotReady)
    assert ("Retry-After" not in of_error(kind("why")).headers) is needs_a_person


@pytest.mark.parametrize(("wait_s", "header"), [(0.0, "0"), (1.0, "1"), (1.2, "2"), (29.9, "30")])
def test_retry_after_is_whole_seconds_rounded_up(wait_s: float, header: str) -> None:
    assert of_error(Overloaded("full", wait_s)).headers["Retry-After"] == header


def test_messages_about_fields_are_in_the_problem_also_after_a_process_border() -> None:
    error = pickle.loads(pickle.dumps(errors.Conflict("late", fields={"until": "too late"})))
    assert json.loads(bytes(of_error(error).body))["errors"] == {"until": "too late"}
    assert "errors" not in json.loads(bytes(of_error(errors.Conflict("late")).body))
