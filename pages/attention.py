"""Find cameras that need attention, and sum the effort, for the overview.

attention(activity, failed images by camera, deployments, today) -> silent cameras, wrong clocks, failures, trap nights
A camera is silent if its newest picture is SILENT_DAYS older than the newest of all cameras, unless its last deployment
has ended by then. The server's clock does not matter, as cards are collected months later. Doubtful times are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from pages.trap_nights import deployed_days

SILENT_DAYS = 7
MIN_FAILED = 0.05
"""Minimum share of failed images of a camera that is listed."""
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Attention:
    """Cameras: silent since a day, with a number of doubtful times, with a share of failed images; the worst first."""

    newest: date | None
    silent: tuple[tuple[str, str], ...]
    clocks: tuple[tuple[str, int], ...]
    failing: tuple[tuple[str, float], ...]
    nights: int
    deployments: int


def attention(activity: Sequence[Row], failed: Mapping[str, int], deployments: Sequence[Row], today: date) -> Attention:
    """Return what needs attention. `activity` is of CameraViews, `deployments` are the valid rows of the table."""
    by_camera: dict[str, list[Row]] = {}
    for row in deployments:
        by_camera.setdefault(row["camera_id"], []).append(row)
    last = {row["camera_id"]: row["last_at"] for row in activity}
    newest = max((at for at in last.values() if at), default=None)
    shares = {row["camera_id"]: failed.get(row["camera_id"], 0) / row["images"] for row in activity}
    failing = [(camera, share) for camera, share in shares.items() if share >= MIN_FAILED]
    return Attention(
        newest=newest and newest.date(),
        silent=tuple(sorted(_silent(last, by_camera, newest), key=lambda found: found[1])),
        clocks=_worst((row["camera_id"], row["doubtful"]) for row in activity if row["doubtful"]),
        failing=_worst(failing),
        nights=sum(len(deployed_days(rows, today)) for rows in by_camera.values()),
        deployments=len(deployments),
    )


def _silent(
    last: Mapping[str, datetime | None], deployments: Mapping[str, Sequence[Row]], newest: datetime | None
) -> Iterable[tuple[str, str]]:
    """Yield each silent camera with the day since which it is silent."""
    if newest is None:
        return
    now, limit = newest.isoformat(), (newest - timedelta(days=SILENT_DAYS)).isoformat()
    for camera in {*last, *deployments}:
        rows = deployments.get(camera, ())
        standing = [row for row in rows if row["until_local"] is None or row["until_local"] > now]
        begun = max((row["from_local"] for row in standing), default="")
        if rows and not standing:
            continue
        taken = last.get(camera)
        since = max(taken.isoformat() if taken else "", begun)
        if since and since < limit:
            yield camera, since[:10]


def _worst(found: Iterable[tuple[str, Any]]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(found, key=lambda pair: (-pair[1], pair[0])))
