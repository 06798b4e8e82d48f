"""The images of a view in page order, and what a page, a count and a histogram have, from the relations alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np

from archive.annotations.assertions import human_assertions
from archive.delta.tables import Tables
from archive.views.query import connect
from archive.views.views import View

Image = dict[str, Any]
COLUMNS = ("media_sha256", "captured_at_local", "captured_at_corrected", "camera_id")
COLUMNS += ("source_root", "path", "width_px")


def of_relations(tables: Tables, view: View) -> list[Image]:
    """Return the images of a view in page order, each with its shown `labels`, from the relations alone."""
    with connect(tables, view, statement="images results detections events") as sql:
        images, results, detections, events = (
            sql.sql(f"from {name}").to_arrow_table().to_pylist()
            for name in ("images", "results", "detections", "events")
        )
        groups = dict(sql.sql("select media_sha256, event_id from image_groups").fetchall())
    assert {one["event_id"] for one in events} == {
        groups[i["media_sha256"]] for i in images if i["media_sha256"] in groups
    }
    status = {row["media_sha256"]: row["status"] for row in results}
    stated = set(human_assertions(tables)["media_sha256"].to_pylist())
    for image in images:
        sha = image["media_sha256"]
        image["labels"] = [(row["label"], row["score"]) for row in detections if row["media_sha256"] == sha]
        said = [row["said_by"] for row in detections if row["media_sha256"] == sha]
        image["stated"] = said.count("human")
        image["status"] = status.get(sha, "missing")
        image["reviewed"] = sha in stated
        image["event_id"] = groups.get(sha)
    images.sort(key=lambda image: (image["source_root"], image["path"]))
    return sorted(images, key=lambda i: i["captured_at_local"] or datetime.min, reverse=True)


def fits(image: Image, wanted: dict[str, Any]) -> bool:
    moment = image["captured_at_local"]
    label, least = wanted["label"], wanted["min_score"]
    return (
        all(wanted[n] in (None, image[f"{n}_id"]) for n in ("camera",))
        and all(wanted[n] in (None, image[n]) for n in ("status", "reviewed"))
        and (wanted["since"] is None or bool(moment and moment >= wanted["since"]))
        and (wanted["until"] is None or bool(moment and moment < wanted["until"]))
        and image["path"].startswith(wanted["path"] or "")
        and (
            (label is None and least is None)
            or any(
                label in (None, one) and (least is None or (score is not None and score >= np.float32(least)))
                for one, score in image["labels"]
            )
        )
    )


def details(image: Image, label: str | None = None) -> Image:
    """Return the columns of a page from an image of the relations, for a filter by `label`."""
    scores = [score for _, score in image["labels"] if score is not None]
    wanted = (one for one in image["labels"] if label in (None, one[0]))
    best = max(wanted, key=lambda one: (one[1] or -1.0, one[0]), default=(None, None))
    return {name: image[name] for name in (*COLUMNS, "status", "reviewed", "event_id")} | {
        "n_boxes": len(image["labels"]),
        "top_label": best[0],
        "top_score": best[1],
        "distance": min((abs(score - 0.5) for score in scores), default=None),
    }


def bars(images: Sequence[Image], by: str) -> Counter[str]:
    values: dict[str, Any] = {
        "day": lambda i: [i["captured_at_local"] and f"{i['captured_at_local']:%Y-%m-%d}"],
        "hour": lambda i: [i["captured_at_local"] and f"{i['captured_at_local']:%H}"],
        "camera": lambda i: [i["camera_id"]],
        "status": lambda i: [i["status"]],
        "label": lambda i: {label for label, _ in i["labels"]},
    }
    return Counter(value or "" for image in images for value in values[by](image))
