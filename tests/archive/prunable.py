"""Helpers for keys that may be pruned: reasons to keep them, and their remaining rows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from archive.delta.tables import Tables
from archive.retention import plan_prune
from archive.views.views import View, Views
from tests.fixtures_local import rows_of

NOW = datetime.now(UTC)
KEYS = ("a", "b", "c", "d")


def days_ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


def view(key: str, **more: Any) -> View:
    fields = {"inference_key": key, "model_name": f"m-{key}", "model_version": "1"}
    return View.model_validate({**fields, "weights_sha256": "w", **more})


def event(key: str, days: float, state: str = "sealed", run_id: str = "r") -> dict[str, Any]:
    model = {"model_name": f"m-{key}", "model_version": "2"}
    at = {"event": 0, "event_at": days_ago(days)}
    return {"run_id": f"{run_id}-{key}", "state": state, "inference_key": key, **model, **at}


def kept(tables: Tables, **options: Any) -> dict[str, tuple[str, ...]]:
    return {use.inference_key: use.kept for use in plan_prune(tables, [], **options) if use.kept}


def keys_of(tables: Tables, name: str = "results") -> set[str]:
    return {row["inference_key"] for row in rows_of(tables, name)}


def publish(tables: Tables, *keys: str, name: str = "production") -> None:
    views = Views(tables.url)
    for key in keys:
        now = views.current(name)
        views.publish(view(key, name=name), after=now.serial if now else 0)


def shown(*days: float) -> list[View]:
    """Return publications of keys a, b, c, …, one for each of these ages in days."""
    return [view(chr(ord("a") + i), serial=i + 1, published_at=days_ago(ago)) for i, ago in enumerate(days)]
