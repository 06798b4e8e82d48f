"""Errors of a run, through the wrappings of Ray."""

from __future__ import annotations

import pytest
from ray.exceptions import RayTaskError, UserCodeException

from batch.run import ours
from model_store.errors import LineageMismatch, StorageUnreachable


def wrapped(kind: str, cause: Exception) -> BaseException:
    if kind == "bare":
        return cause
    if kind == "task":
        return RayTaskError("f", "trace", cause).as_instanceof_cause()
    user = UserCodeException()
    user.__cause__ = cause
    return RayTaskError("f", "trace", user) if kind == "data in a task" else user


@pytest.mark.parametrize("kind", ["bare", "task", "data", "data in a task"])
@pytest.mark.parametrize("error", [LineageMismatch("other model"), StorageUnreachable("away")])
def test_a_deliberate_error_is_found_in_its_wrappings(kind: str, error: Exception) -> None:
    assert ours(wrapped(kind, error)) is error
    assert ours(wrapped(kind, ValueError("a bug"))) is None
