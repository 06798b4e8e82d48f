"""Compare events with loops over lists: at the exact gap, at changes of summer time, and on a real archive."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from batch.filters.contract import FilterAction, Rows
from batch.filters.kinds.events import FILTER, EventsConfig
from tests.batch.filters.make import NOTHING, detection, image, rows
from tests.shared_data import shared

START = datetime(2024, 10, 27, 2, 0, 0)


def taken(number: int, seconds: float | None, offset_min: int | None = None, **more: Any) -> Any:
    """An image without detections, `seconds` after START by the camera's clock."""
    local = None if seconds is None else START + timedelta(seconds=seconds)
    utc = None if local is None or offset_min is None else local - timedelta(minutes=offset_min)
    given = {"media_sha256": image(number), "path": f"north/{number:04}.jpg", "taken_local": local, "taken_utc": utc}
    return detection(**(NOTHING | given | more))


def said(table: Rows, **config: Any) -> dict[str, FilterAction]:
    found = list(FILTER.apply(EventsConfig(**config), table))
    assert all(one.rank is None and one.action == "group" for one in found)
    assert len({one.media_sha256 for one in found}) == len(found)
    return {one.media_sha256: one for one in found}


def groups(table: Rows, **config: Any) -> list[list[int]]:
    """Return the image numbers of each event."""
    events = defaultdict(list)
    for digest, one in said(table, **config).items():
        events[one.group_id].append(int(digest, 16))
    return sorted(sorted(event) for event in events.values())


def reasons(table: Rows, **config: Any) -> list[str]:
    return [one.reason for _, one in sorted(said(table, **config).items())]


def test_an_image_with_three_detections_gets_one_action() -> None:
    one = [detection(media_sha256=image(1), rank=rank, taken_local=START) for rank in range(3)]
    assert groups(rows(*one)) == [[1]]


def test_frames_of_a_clip_are_one_event_also_without_a_time() -> None:
    def frame(number: int, clip: str, at_ms: int, seconds: float | None) -> Any:
        return taken(number, seconds, path=f"north/{clip}#{at_ms:08}")

    dated = rows(frame(1, "a.mp4", 0, 0), frame(2, "a.mp4", 90_000, 90), frame(3, "b.mp4", 0, 200), taken(4, 210))
    assert groups(dated) == [[1, 2], [3, 4]], "a gap of more than 60 s splits no clip"
    between = [frame(n, "ab"[n % 2] + ".mp4", 70_000 * n, 70.0 * n + n % 2) for n in range(4)]
    assert groups(rows(*between, taken(4, 139), taken(5, 212), taken(6, 300))) == [[0, 1, 2, 3, 4, 5], [6]]
    of_two_roots = (frame(1, "a.mp4", 0, 0), frame(2, "a.mp4", 0, 200), frame(3, "a.mp4", 90_000, 290))
    assert groups(rows(*of_two_roots)) == [[1], [2, 3]], "clips of one path are two if they begin at other times"
    undated = rows(*(frame(n, "a.mp4" if n < 4 else "b.mp4", 1000 * n, None) for n in range(1, 6)))
    assert groups(undated, max_event_s=60.0) == [[1, 2, 3], [4, 5]]
    assert groups(rows(taken(1, None), taken(2, None))) == [[1], [2]]


def test_a_gap_of_exactly_60_s_splits_nothing_and_a_microsecond_more_does() -> None:
    assert groups(rows(taken(1, 0), taken(2, 60))) == [[1, 2]]
    assert groups(rows(taken(1, 0), taken(2, 60.000001))) == [[1], [2]]


def test_the_gap_is_to_the_image_before_and_not_to_the_first() -> None:
    table = rows(*(taken(number, 60 * number) for number in range(20)))
    assert groups(table) == [list(range(20))]


def test_an_undated_image_is_alone_and_neither_starts_nor_ends_others() -> None:
    table = rows(taken(1, 0), taken(2, None), taken(3, 30), taken(4, None))
    assert groups(table) == [[1, 3], [2], [4]]
    assert reasons(table) == ["", "undated", "", "undated"]


def test_the_end_of_summer_time_does_not_split() -> None:
    table = rows(taken(1, 3590, 120), taken(2, 10, 60))
    assert groups(table) == [[1, 2]]
    assert reasons(table) == ["", ""]


def test_the_end_of_summer_time_does_not_merge() -> None:
    summer, winter = taken(1, 5, 120), taken(2, 10, 60)
    assert groups(rows(summer, winter)) == [[1], [2]]


def test_an_event_is_cut_after_its_longest_time() -> None:
    table = rows(*(taken(number, 30 * number) for number in range(8)))
    assert groups(table, max_event_s=60) == [[0, 1, 2], [3, 4, 5], [6, 7]]
    assert reasons(table, max_event_s=60)[3] == "cut after 60 s"
    assert groups(table, max_event_s=59.9) == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert groups(table, max_event_s=210) == [list(range(8))]


def test_ids_stay_when_later_images_are_added() -> None:
    old = [taken(1, 0), taken(2, 10), taken(3, 500)]
    new = [taken(4, 540), taken(5, 9000)]
    before, after = said(rows(*old)), said(rows(*old, *new))
    assert all(before[digest].group_id == after[digest].group_id for digest in before)
    assert after[image(4)].group_id == after[image(3)].group_id


@pytest.mark.parametrize("wrong", [{"gap_s": -1}, {"max_event_s": 0}, {"max_event_s": 1e10}, {"gap": 60}])
def test_an_invalid_config_is_rejected(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        EventsConfig(**wrong)


def test_events_of_a_real_archive_match_its_sequences() -> None:
    """The example's tables contain the sequences of four deployments, which Agouti cut at two minutes."""
    with shared("burst/media.csv", "test_it_matches_loops_over_images").open() as lines:
        media = list(csv.DictReader(lines))
    with shared("burst/observations.csv", "test_it_matches_loops_over_images").open() as lines:
        theirs = {row["mediaID"]: row["eventID"] for row in csv.DictReader(lines)}
    numbers = [number for number, row in enumerate(media) if row["mediaID"] in theirs]
    table = rows(*(_of_csv(number, media[number]) for number in numbers))
    expected = defaultdict(list)
    for number in numbers:
        expected[theirs[media[number]["mediaID"]]].append(number)
    assert groups(table, gap_s=120) == sorted(expected.values())


def _of_csv(number: int, row: dict[str, str]) -> dict[str, Any]:
    at = datetime.fromisoformat(row["timestamp"])
    offset = at.utcoffset()
    assert offset is not None
    return taken(
        number,
        (at.replace(tzinfo=None) - START).total_seconds(),
        int(offset.total_seconds() / 60),
        path=row["fileName"],
        camera_id=row["deploymentID"],
    )


SEQUENCES = [(None, None), (None, None), (1, 1), (1, 3), (2, 3), (3, 3), (2, 4)]


def numbered(number: int | None, length: int | None) -> dict[str, int | None]:
    return {"sequence_number": number, "sequence_length": length}


@st.composite
def images(draw: st.DrawFn) -> dict[str, Any]:
    number = draw(st.integers(0, 10**6))
    return taken(
        number,
        draw(st.none() | st.integers(0, 400).map(float) | st.integers(3500, 3900).map(float)),
        draw(st.sampled_from([None, 60, 120, 120, 120])),
        camera_id=draw(st.sampled_from([None, "a", "b"])),
        path=f"{draw(st.sampled_from('xy'))}/{number:07}.jpg",
        clock_flags=draw(st.sampled_from(["", "", "before_2001,after_now"])),
        **numbered(*draw(st.sampled_from(SEQUENCES))),
    )


def begins_after(before: dict[str, Any], row: dict[str, Any], gap: float, gap_s: float) -> bool:
    """Return whether an image is not of the event of the one before it."""
    if (row["sequence_length"] or 0) > 1:
        same = before["sequence_length"] == row["sequence_length"]
        return not (same and before["sequence_number"] < row["sequence_number"] and gap <= 600)
    return gap > gap_s


def walked(table: Sequence[dict[str, Any]], gap_s: float, cap_s: float | None, sequences: bool) -> Any:
    """Return the image numbers of each event, and the reasons by image."""
    if not sequences:
        table = [row | numbered(None, None) for row in table]
    places = defaultdict(list)
    for row in table:
        places[row["camera_id"], None if row["camera_id"] else row["path"][0]].append(row)
    events, why = [], {}
    for place in places.values():
        dated = [row for row in place if row["taken_local"]]
        utc = all(row["taken_utc"] for row in dated)
        dated.sort(key=lambda row: (row["taken_local"], row["path"], row["media_sha256"]))
        if utc:
            dated.sort(key=lambda row: row["taken_utc"])
        event, elapsed = [], 0.0
        for before, row in zip([None, *dated], dated, strict=False):
            reason = [f"clock: {row['clock_flags'].replace(',', ', ')}"] if row["clock_flags"] else []
            if before is not None:
                both = before["taken_utc"] and row["taken_utc"]
                clock = "taken_utc" if both else "taken_local"
                gap = (row[clock] - before[clock]).total_seconds()
                elapsed += gap
                begins = gap < 0 or begins_after(before, row, gap, gap_s)
                cut = not begins and cap_s is not None and elapsed > cap_s
                if gap < 0:
                    reason.append(f"clock went back {-gap:.0f} s")
                if cut:
                    reason.append(f"cut after {cap_s:.0f} s")
                if begins or cut:
                    events.append(event)
                    event, elapsed = [], 0.0
            event.append(int(row["media_sha256"], 16))
            why[row["media_sha256"]] = "; ".join(reason)
        events.append(event)
        for row in place:
            if not row["taken_local"]:
                events.append([int(row["media_sha256"], 16)])
                flags = row["clock_flags"].replace(",", ", ")
                why[row["media_sha256"]] = "undated" + (f"; clock: {flags}" if flags else "")
    return sorted(sorted(event) for event in events if event), why


@settings(deadline=None, max_examples=60)
@given(
    st.lists(images(), max_size=14, unique_by=lambda row: row["media_sha256"]),
    st.sampled_from([0.0, 20.0, 60.0]),
    st.sampled_from([None, 25.0, 100.0]),
    st.booleans(),
)
def test_it_matches_loops_over_images(
    table: list[dict[str, Any]], gap_s: float, cap_s: float | None, sequences: bool
) -> None:
    expected, why = walked(table, gap_s, cap_s, sequences)
    given, config = rows(*table), {"gap_s": gap_s, "max_event_s": cap_s, "sequences": sequences}
    assert groups(given, **config) == expected
    found = said(given, **config)
    assert {digest: one.reason for digest, one in found.items()} == why


def test_a_sequence_is_an_event_however_near_the_next_one_is() -> None:
    seconds = (0, 1, 2, 5, 6, 7, 90, 200)
    place = [(1, 3), (2, 3), (3, 3), (1, 3), (2, 3), (3, 3), (None, None), (1, 1)]
    table = rows(*(taken(n, s, **numbered(*place[n])) for n, s in enumerate(seconds)))
    assert groups(table, gap_s=100) == [[0, 1, 2], [3, 4, 5, 6], [7]]
    assert groups(table, gap_s=100, sequences=False) == [[0, 1, 2, 3, 4, 5, 6], [7]]
