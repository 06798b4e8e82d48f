"""Compare small size with loops over fractions, and at the exact limits."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from math import inf, nan
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from batch.filters.contract import FilterAction, Rows
from batch.filters.kinds.small_size import FILTER, NOT_IDENTIFIABLE, SmallSizeConfig
from tests.batch.filters.make import detection, image, invalid, rows

SIDES = ("x1_px", "y1_px", "x2_px", "y2_px")


def boxed(number: int, *sides: float, **more: Any) -> dict[str, Any]:
    given = dict(zip(SIDES, sides, strict=True)) | more
    return detection(media_sha256=image(number), path=f"{number:04}.jpg", **given)


def said(table: Rows, **config: Any) -> dict[str, str]:
    """Return the reasons by digest."""
    found: list[FilterAction] = list(FILTER.apply(SmallSizeConfig(**config), table))
    out = {one.media_sha256: one.reason for one in found}
    assert len(out) == len(found)
    return out


def flagged(row: dict[str, Any], **config: Any) -> bool:
    return bool(said(rows(row), **config))


def is_valid(row: dict[str, Any]) -> bool:
    if row["rank"] is None:
        return False
    x1, y1, x2, y2 = (row[side] for side in SIDES)
    size = (row["width_px"], row["height_px"])
    if any(side is None or not 0 < side < inf for side in size):
        return False
    return all(-inf < side < inf for side in (x1, y1, x2, y2)) and x1 < x2 and y1 < y2


def is_flagged(row: dict[str, Any], config: dict[str, Any]) -> bool:
    own = config.get("per_camera", {}).get(row["camera_id"], {})
    limits: dict[str, Any] = {
        name: config.get(name) if own.get(name) is None else own[name]
        for name in ("min_area_frac", "min_side_px", "max_area_frac")
    }
    width, height = exactly(row["width_px"]), exactly(row["height_px"])
    x1, x2 = (min(max(exactly(row[side]), 0), width) for side in ("x1_px", "x2_px"))
    y1, y2 = (min(max(exactly(row[side]), 0), height) for side in ("y1_px", "y2_px"))
    frac, side = (x2 - x1) * (y2 - y1) / (width * height), min(x2 - x1, y2 - y1)
    least_px, most = limits["min_side_px"], limits["max_area_frac"]
    return (
        frac < exactly(limits["min_area_frac"])
        or (least_px is not None and side < exactly(least_px))
        or (most is not None and frac > exactly(most))
    )


def exactly(value: float) -> Fraction:
    return Fraction(Decimal(repr(float(value))))


side = st.one_of(st.integers(-20, 120).map(float), st.sampled_from([nan, inf, 0.5, 100.0]))
size = st.sampled_from([100.0, 100.0, 50.0, nan, 0.0, -5.0, None])
detections = st.lists(
    st.fixed_dictionaries(
        dict.fromkeys(SIDES, side)
        | {
            "width_px": size,
            "height_px": size,
            "camera_id": st.sampled_from(["north", "south", None]),
            "human": st.booleans(),
        }
    ),
    max_size=8,
)
own = st.fixed_dictionaries(
    {},
    optional={
        "min_area_frac": st.sampled_from([0.0, 0.01, 0.5, None]),
        "min_side_px": st.sampled_from([0, 5, 30.0, None]),
        "max_area_frac": st.sampled_from([0.1, 0.4, 1.0, None]),
    },
)
configs = st.fixed_dictionaries(
    {"min_area_frac": st.sampled_from([0.0008, 0.01, 0.05, 0.3])},
    optional={
        "min_side_px": st.sampled_from([1, 10.0, 10.5, None]),
        "max_area_frac": st.sampled_from([0.2, 0.5, 1.0, None]),
        "per_camera": st.dictionaries(st.sampled_from(["north", "south"]), own),
    },
)


@settings(deadline=None, max_examples=60)
@given(given_rows=detections, config=configs, action=st.sampled_from(["suppress", "relabel"]))
def test_it_matches_loops_over_fractions(given_rows: list[dict[str, Any]], config: dict[str, Any], action: str) -> None:
    listed = [
        detection(media_sha256=image(number), path=f"{number:04}.jpg", **row) for number, row in enumerate(given_rows)
    ]
    table = rows(*listed)
    by_digest = {row["media_sha256"]: row for row in listed}
    wanted = {digest for digest, row in by_digest.items() if is_valid(row) and is_flagged(row, config)}
    assert set(said(table, action=action, **config)) == wanted
    assert invalid(FILTER, SmallSizeConfig(**config), table) == [
        not is_valid(by_digest[digest]) for digest in table.media_sha256
    ]


def test_exactly_the_share_is_large_enough() -> None:
    assert not flagged(boxed(1, 0, 0, 40, 20))
    assert flagged(boxed(1, 0, 0, 40, 19.999))
    wide = {"width_px": 4000.0, "height_px": 2500.0}
    assert not flagged(boxed(1, 7, 9, 107, 89, **wide))
    assert flagged(boxed(1, 7, 9, 107, 88, **wide))


def test_only_what_lies_in_the_image_counts() -> None:
    assert flagged(boxed(1, -1000, 0, 1, 1000), min_area_frac=0.0011)
    assert not flagged(boxed(1, -1000, 0, 1, 1000), min_area_frac=0.001)
    assert said(rows(boxed(1, 1100, 0, 1300, 500))) == {image(1): "area_frac 0 < 0.0008"}


def test_a_camera_has_its_own_limits_and_the_general_ones_for_the_rest() -> None:
    config = {"min_side_px": 50, "per_camera": {"north": {"min_area_frac": 0, "max_area_frac": 0.5}}}
    small = {"x1_px": 0, "y1_px": 0, "x2_px": 60, "y2_px": 13}
    table = rows(
        detection(media_sha256=image(1), path="1", camera_id="north", **small),
        detection(media_sha256=image(2), path="2", camera_id="south", **small),
        detection(media_sha256=image(3), path="3", camera_id=None, **small),
        boxed(4, 0, 0, 1000, 501, camera_id="north"),
        boxed(5, 0, 0, 1000, 501, camera_id="south"),
    )
    assert said(table, **config) == {
        image(1): "side 13 px < 50 px",
        image(2): "area_frac 0.00078 < 0.0008; side 13 px < 50 px",
        image(3): "area_frac 0.00078 < 0.0008; side 13 px < 50 px",
        image(4): "area_frac 0.501 > 0.5",
    }
    config["per_camera"]["north"]["min_side_px"] = 0  # type: ignore[index]
    assert image(1) not in said(table, **config)


def test_suppressed_or_called_not_identifiable() -> None:
    table = rows(boxed(1, 0, 0, 10, 10, rank=7, human=True))
    (hidden,) = FILTER.apply(SmallSizeConfig(), table)
    (called,) = FILTER.apply(SmallSizeConfig(action="relabel"), table)
    assert hidden == FilterAction(image(1), 7, "suppress", "area_frac 0.0001 < 0.0008")
    assert called == FilterAction(image(1), 7, "relabel", "area_frac 0.0001 < 0.0008", label=NOT_IDENTIFIABLE)


def test_the_order_of_cameras_makes_no_other_config() -> None:
    one = SmallSizeConfig.model_validate({"per_camera": {"a": {"min_side_px": 1}, "b": {}}})
    two = SmallSizeConfig.model_validate({"per_camera": {"b": {}, "a": {"min_side_px": 1}}})
    assert one.model_dump_json() == two.model_dump_json()


@pytest.mark.parametrize(
    "wrong", [{"min_area_frac": 0}, {"per_camera": {"north": {"min_side": 3}}}, {"action": "group"}]
)
def test_wrong_fields_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SmallSizeConfig(**wrong)
