"""Boxes of hidden labels are found, by whoever they have it; only another label by a person uncovers one."""

from __future__ import annotations

from typing import Any

import pytest

from archive.delta.tables import Tables
from archive.views.views import Views
from batch.schedule.policy import Privacy, policy_of
from model_store.errors import InvalidPolicy, StorageUnreachable
from pages.pictures import hidden_boxes
from serve.settings import Settings
from tests.archive.resolve_oracle import File, Row, Seen, World
from tests.archive.resolve_worlds import KEY, OTHER, layer_says, person, sha, view_of, write
from tests.fixtures_local import put_results, result_rows

PRIVACY = Privacy(hide_labels=["Person", "car"], min_score=0.2)
LAYER = "a" * 64
BOX, ELSEWHERE = (1.0, 2.0, 11.0, 22.0), (40.0, 40.0, 60.0, 60.0)
PERSON, DEER = Seen("person", 0.3, BOX), Seen("deer", 0.9, BOX)
Case = tuple[list[Seen], list[Row], list[Row]]
"""The detections of an image, the statements of people about it, and those of a layer."""


def found(tables: Tables, *cases: Case) -> list[tuple[tuple[float, ...], ...] | None]:
    """Return the hidden boxes of an image for each case, in a view with a threshold of 0.8."""
    images = [sha(n) for n in range(len(cases))]
    other = sha(len(cases))
    world = World(
        key=KEY,
        files={image: [File(f"{n}.jpg", None, None)] for n, image in enumerate([*images, other])},
        results={
            KEY: {image: seen for image, (seen, _, _) in zip(images, cases, strict=True)},
            OTHER: {other: [PERSON]},
        },
        layers={LAYER: None},
        in_view=(LAYER,),
        human=[row for _, human, _ in cases for row in human],
        machine=[row for _, _, layer in cases for row in layer],
        threshold=0.8,
    )
    write(world, tables)
    Views(tables.url).publish(view_of(world), after=0)
    hidden = hidden_boxes(tables, PRIVACY, [*images, other])
    assert other not in hidden, "it has no result of the view"
    return [hidden.get(image) for image in images]


def test_detections_above_a_low_score_are_hidden(tables: Tables) -> None:
    cases: list[tuple[list[Seen], object]] = [
        ([], ()),
        ([DEER], ()),
        ([PERSON], (BOX,)),  # below the threshold of the view
        ([Seen("PERSON", 0.2, BOX)], (BOX,)),  # 0.2 as a 32-bit number
        ([Seen("person", 0.19, BOX)], ()),
        ([DEER, Seen("person", 0.9, ELSEWHERE), Seen("car", 0.9, BOX)], (BOX, ELSEWHERE)),
    ]
    assert found(tables, *((seen, [], []) for seen, _ in cases)) == [hidden for _, hidden in cases]


def test_people_hide_and_uncover(tables: Tables) -> None:
    cases: list[tuple[str, Any, dict[str, Any], Seen, bool]] = [
        ("relabel", BOX, {"label": "deer"}, PERSON, False),
        ("keep", BOX, {"label": "person"}, Seen("person", 0.01, BOX), True),
        ("relabel", BOX, {"label": "person"}, DEER, True),
        ("suppress", BOX, {"label": "person"}, PERSON, True),
        ("suppress", None, {}, PERSON, True),  # empty: no animal
        ("suppress", BOX, {"label": "person"}, Seen("person", 0.1, BOX), False),
        ("add", BOX, {"label": "Car"}, Seen("deer", 0.9, ELSEWHERE), True),
        ("relabel", BOX, {"label": "person"}, Seen("deer", 0.9, ELSEWHERE), True),
        ("withdraw", BOX, {}, PERSON, True),
    ]
    said = [([seen], [person(action, sha(n), box, **more)], []) for n, (action, box, more, seen, _) in enumerate(cases)]
    assert found(tables, *said) == [(BOX,) if is_hidden else () for *_, is_hidden in cases]


def test_layers_hide_and_never_uncover(tables: Tables) -> None:
    cases: list[tuple[str, dict[str, Any], Seen, bool]] = [
        ("suppress", {}, PERSON, True),
        ("relabel", {"label": "deer"}, PERSON, True),
        ("relabel", {"label": "person"}, DEER, True),
        ("rescore", {"score": 0.01}, PERSON, True),
        ("rescore", {"score": 0.9}, Seen("person", 0.01, BOX), True),
        ("rescore", {"score": 0.99}, DEER, False),
    ]
    said = [
        ([seen], [], [layer_says(LAYER, action, sha(n), 0, **more)]) for n, (action, more, seen, _) in enumerate(cases)
    ]
    assert found(tables, *said) == [(BOX,) if is_hidden else () for *_, is_hidden in cases]


def test_images_without_a_result_of_the_view_are_missing(tables: Tables) -> None:
    assert found(tables, ([DEER], [], [])) == [()]
    put_results(tables, result_rows([sha(2)], KEY, status="failed"))
    assert dict(hidden_boxes(tables, PRIVACY, [sha(0), sha(1), sha(2), sha(3)])) == {sha(0): ()}


def test_nothing_is_checked_before_a_publication(tables: Tables) -> None:
    with pytest.raises(StorageUnreachable, match="no tables"):
        hidden_boxes(tables, PRIVACY, [sha(0)])
    put_results(tables, result_rows([sha(0)], KEY))
    assert dict(hidden_boxes(tables, PRIVACY, [sha(0)])) == {}


def test_a_file_that_was_missing_is_hidden_when_it_is_back(tables: Tables) -> None:
    world = World(key=KEY, files={sha(0): [File("0.jpg", None, None, missing=True)]}, results={KEY: {sha(0): [PERSON]}})
    write(world, tables)
    Views(tables.url).publish(view_of(world), after=0)
    assert dict(hidden_boxes(tables, PRIVACY, [sha(0)])) == {sha(0): (BOX,)}


def test_the_policy_is_read_again_after_a_change(settings: Settings) -> None:
    assert policy_of(settings).privacy == Privacy()
    policy = settings.policy_path
    policy.parent.mkdir(parents=True, exist_ok=True)
    policy.write_text('[privacy]\nhide_labels = ["person"]\nmode = "hide"\n')
    assert policy_of(settings).privacy == Privacy(hide_labels=["person"], mode="hide")
    policy.write_text('[privacy]\nhide_labels = ["person"]\nmode = "mask"\n')
    with pytest.raises(InvalidPolicy, match=r"privacy\.mode"):  # nothing is shown until it is corrected
        policy_of(settings)
    policy.unlink()
    assert policy_of(settings).privacy == Privacy()
