"""Boxes of hidden labels are found, by whoever they have it; only another label by a person uncovers one."""

from __future__ import annotations

import pytest

from archive.delta.tables import Tables
from archive.views.views import Views
from batch.schedule.policy import Privacy
from model_store.errors import BadRequest, StorageUnreachable
from pages.people import current_privacy, hidden_boxes
from serve.settings import Settings
from tests.archive.resolve_oracle import File, Row, Seen, World
from tests.archive.resolve_worlds import KEY, OTHER, layer_says, person, sha, view_of, write
from tests.fixtures_local import put_results, result_rows

PRIVACY = Privacy(hide_labels=["Person", "car"], min_score=0.2)
IMAGE, LAYER = sha(0), "a" * 64
BOX, ELSEWHERE = (1.0, 2.0, 11.0, 22.0), (40.0, 40.0, 60.0, 60.0)
PERSON, DEER = Seen("person", 0.3, BOX), Seen("deer", 0.9, BOX)


def found(
    tables: Tables, *seen: Seen, human: tuple[Row, ...] = (), layer: tuple[Row, ...] = ()
) -> tuple[tuple[float, ...], ...] | None:
    """Return the hidden boxes of an image with these detections, in a view with a threshold of 0.8."""
    world = World(
        key=KEY,
        files={IMAGE: [File("0.jpg", None, None)], sha(1): [File("1.jpg", None, None)]},
        results={KEY: {IMAGE: list(seen)}, OTHER: {sha(1): [PERSON]}},
        layers={LAYER: None},
        in_view=(LAYER,),
        human=list(human),
        machine=list(layer),
        threshold=0.8,
    )
    write(world, tables)
    Views(tables.url).publish(view_of(world), after=0)
    return hidden_boxes(tables, PRIVACY, [IMAGE]).get(IMAGE)


@pytest.mark.parametrize(
    ("seen", "hidden"),
    [
        ([], ()),
        ([DEER], ()),
        ([PERSON], (BOX,)),  # below the threshold of the view
        ([Seen("PERSON", 0.2, BOX)], (BOX,)),  # 0.2 as a 32-bit number
        ([Seen("person", 0.19, BOX)], ()),
        ([DEER, Seen("person", 0.9, ELSEWHERE), Seen("car", 0.9, BOX)], (BOX, ELSEWHERE)),
    ],
)
def test_detections_above_a_low_score_are_hidden(tables: Tables, seen: list[Seen], hidden: tuple[object, ...]) -> None:
    assert found(tables, *seen) == hidden


@pytest.mark.parametrize(
    ("statement", "seen", "is_hidden"),
    [
        (person("relabel", IMAGE, BOX, label="deer"), PERSON, False),
        (person("keep", IMAGE, BOX, label="person"), Seen("person", 0.01, BOX), True),
        (person("relabel", IMAGE, BOX, label="person"), DEER, True),
        (person("suppress", IMAGE, BOX, label="person"), PERSON, True),
        (person("suppress", IMAGE), PERSON, True),  # empty: no animal
        (person("suppress", IMAGE, BOX, label="person"), Seen("person", 0.1, BOX), False),
        (person("add", IMAGE, BOX, label="Car"), Seen("deer", 0.9, ELSEWHERE), True),
        (person("relabel", IMAGE, BOX, label="person"), Seen("deer", 0.9, ELSEWHERE), True),
        (person("withdraw", IMAGE, BOX), PERSON, True),
    ],
)
def test_people_hide_and_uncover(tables: Tables, statement: Row, seen: Seen, is_hidden: bool) -> None:
    assert found(tables, seen, human=(statement,)) == ((BOX,) if is_hidden else ())


@pytest.mark.parametrize(
    ("row", "seen", "is_hidden"),
    [
        (layer_says(LAYER, "suppress", IMAGE, 0), PERSON, True),
        (layer_says(LAYER, "relabel", IMAGE, 0, label="deer"), PERSON, True),
        (layer_says(LAYER, "relabel", IMAGE, 0, label="person"), DEER, True),
        (layer_says(LAYER, "rescore", IMAGE, 0, score=0.01), PERSON, True),
        (layer_says(LAYER, "rescore", IMAGE, 0, score=0.9), Seen("person", 0.01, BOX), True),
        (layer_says(LAYER, "rescore", IMAGE, 0, score=0.99), DEER, False),
    ],
)
def test_layers_hide_and_never_uncover(tables: Tables, row: Row, seen: Seen, is_hidden: bool) -> None:
    assert found(tables, seen, layer=(row,)) == ((BOX,) if is_hidden else ())


def test_images_without_a_result_of_the_view_are_missing(tables: Tables) -> None:
    assert found(tables, DEER) == ()
    put_results(tables, result_rows([sha(2)], KEY, status="failed"))
    assert dict(hidden_boxes(tables, PRIVACY, [IMAGE, sha(1), sha(2), sha(3)])) == {IMAGE: ()}


def test_nothing_is_checked_before_a_publication(tables: Tables) -> None:
    with pytest.raises(StorageUnreachable, match="no tables"):
        hidden_boxes(tables, PRIVACY, [IMAGE])
    put_results(tables, result_rows([IMAGE], KEY))
    assert dict(hidden_boxes(tables, PRIVACY, [IMAGE])) == {}


def test_a_file_that_was_missing_is_hidden_when_it_is_back(tables: Tables) -> None:
    world = World(key=KEY, files={IMAGE: [File("0.jpg", None, None, missing=True)]}, results={KEY: {IMAGE: [PERSON]}})
    write(world, tables)
    Views(tables.url).publish(view_of(world), after=0)
    assert dict(hidden_boxes(tables, PRIVACY, [IMAGE])) == {IMAGE: (BOX,)}


def test_the_policy_is_read_again_after_a_change(settings: Settings) -> None:
    assert current_privacy(settings) == Privacy()
    policy = settings.policy_path
    policy.parent.mkdir(parents=True, exist_ok=True)
    policy.write_text('[privacy]\nhide_labels = ["person"]\nmode = "hide"\n')
    assert current_privacy(settings) == Privacy(hide_labels=["person"], mode="hide")
    policy.write_text('[privacy]\nhide_labels = ["person"]\nmode = "mask"\n')
    with pytest.raises(BadRequest, match=r"privacy\.mode"):  # nothing is shown until it is corrected
        current_privacy(settings)
    policy.unlink()
    assert current_privacy(settings) == Privacy()
