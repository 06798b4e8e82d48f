"""Resolved detections, compared with an oracle without SQL; then layers, undo and people, case by case."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, event, given, settings

import archive.annotations.layers
import archive.views.query
from archive.delta.tables import Tables
from archive.views.query import connect
from archive.views.views import Views
from tests.archive import resolve_oracle as oracle
from tests.archive.resolve_oracle import Corners, File, Row, Seen, World
from tests.archive.resolve_worlds import KEY, OTHER, Memory, as_tables, layer_says, person, sha, view_of, worlds, write
from tests.fixtures_local import rows_of

ONE = (
    f"media_sha256, path, coalesce(rank, {oracle.NO_RANK}), label, coalesce(score, {oracle.NO_SCORE}), "
    "coalesce(said_by, ''), coalesce(reason, '')"
)
RELATIONS: dict[str, tuple[str, Callable[[World], list[Any]]]] = {
    "detections": (ONE, lambda world: oracle.rows_of_view(world, hidden=False)),
    "hidden": (ONE, lambda world: oracle.rows_of_view(world, hidden=True)),
    "orphaned": ("assertion_id, other_boxes", oracle.orphaned),
    "results": ("media_sha256, status", oracle.statuses),
    "events": ("event_id, n_images, max_n, camera_id, start_local, end_local", oracle.events),
    "occurrences": ("occurrence_id, n_detections, label, score, camera_id, start_local, end_local", oracle.occurrences),
}
A, B, OFF = "a" * 64, "b" * 64, "c" * 64
BOX: Corners = (100.0, 100.0, 112.0, 112.0)


def relation(sql: duckdb.DuckDBPyConnection, name: str) -> list[tuple[Any, ...]]:
    rows = sql.sql(f"select {RELATIONS[name][0]} from {name} order by all").fetchall()
    if name != "events":
        return rows
    return [(event_id, n, most or {}, *more) for event_id, n, most, *more in rows]


def connected(world: World, patch: pytest.MonkeyPatch, statement: str = "", **view: Any) -> duckdb.DuckDBPyConnection:
    for module in (archive.views.query, archive.annotations.layers):
        patch.setattr(module, "dataset", Memory.of)
    tables: Any = Memory("/nowhere/tables", as_tables(world))
    return connect(tables, view_of(world, **view), statement=statement)


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(world=worlds())
def test_every_relation_is_what_the_rules_say(world: World) -> None:
    with pytest.MonkeyPatch.context() as patch, connected(world, patch) as sql:
        for name, (_, expected) in RELATIONS.items():
            wanted = expected(world)
            event(f"{name}: {'some' if wanted else 'none'}")
            assert relation(sql, name) == wanted, name


@pytest.fixture
def world() -> World:
    """World of one image with a deer at BOX and a distant fox; layers A and B, and C, which is not in the view."""
    found = [Seen("deer", 0.9, BOX), Seen("fox", 0.5, (200.0, 200.0, 224.0, 224.0))]
    files = {sha(1): [File("north/1.jpg", "north", None)]}
    made = dict.fromkeys((A, B, OFF))
    return World(KEY, files, {KEY: {sha(1): found}, OTHER: {}}, made, (A, B))


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[Any, ...]]]:
    """Return columns of a relation, from a world in memory."""

    def run(
        world: World, columns: str = "rank, label, score", of: str = "detections", **view: Any
    ) -> list[tuple[Any, ...]]:
        statement = f"select {columns} from {of} order by all"
        with connected(world, monkeypatch, statement, **view) as sql:
            rows = sql.sql(statement).fetchall()
        return [tuple(round(one, 4) if isinstance(one, float) else one for one in row) for row in rows]

    return run


Ask = Callable[..., list[tuple[Any, ...]]]


def test_a_view_without_layers_and_people_is_the_models_word_exactly(world: World, tmp_path: Path) -> None:
    """Compare scores, corners and labels with the Delta table; disabled layers have no effect."""
    world.machine = [layer_says(A, "suppress", sha(1), 0)]
    world.results[OTHER] = {sha(1): [Seen("cow", 0.3, (0.1, 0.2, 7.7, 9.9))]}
    world.results[KEY][sha(2)] = []
    tables = write(world, Tables(str(tmp_path / "tables")))
    names = ("rank", "label", "class_id", "score", "x1_px", "y1_px", "x2_px", "y2_px")
    for key in (KEY, OTHER):
        stored = sorted(
            (row["media_sha256"], *(one[name] for name in names))
            for row in rows_of(tables, "results")
            if row["inference_key"] == key
            for one in row["detections"]
        )
        with connect(tables, view_of(world, inference_key=key, layers=())) as sql:
            told = f"select media_sha256, {', '.join(names)} from detections order by all"
            assert sql.sql(told).fetchall() == stored
            plain = "select distinct said_by, label = model_label, score = model_score from detections"
            assert sql.sql(plain).fetchall() == [(None, True, True)]
            assert relation(sql, "hidden") == []


def test_a_layer_that_is_switched_off_and_on_gives_every_row_back(world: World, tmp_path: Path) -> None:
    """Compare all columns in tables on disk, through publications and a rollback."""
    world.machine = [
        layer_says(A, "suppress", sha(1), 1),
        layer_says(B, "relabel", sha(1), 0, label="hare", score=0.2, score_semantics="softmax"),
    ]
    world.human = [person("keep", sha(1), (100.0, 100.0, 112.0, 113.0), label="roe deer")]
    tables = write(world, Tables(str(tmp_path / "tables")))
    views = Views(tables.url)

    def all_rows() -> list[Any]:
        with connect(tables) as sql:
            found = [sql.sql(f"from {name} order by all") for name in RELATIONS]
            return [rows.to_arrow_table().to_pylist() for rows in found]

    seen: dict[tuple[str, ...], list[Any]] = {}
    for serial, layers in enumerate([(), (A,), (A, B), ()]):
        views.publish(view_of(world, layers=layers), after=serial)
        rows = all_rows()
        assert seen.setdefault(layers, rows) == rows
    assert len({str(rows) for rows in seen.values()}) == 3
    views.rollback(views.history())
    assert all_rows() == seen[A, B]
    assert len(rows_of(tables, "assertions")) == 3, "nothing was taken from the table"


def test_the_later_layer_holds_and_each_of_label_and_score_by_itself(world: World, ask: Ask) -> None:
    world.machine = [
        layer_says(A, "relabel", sha(1), 0, label="cervid", score=0.75, hour=9),
        layer_says(B, "relabel", sha(1), 0, label="moose"),
        layer_says(B, "rescore", sha(1), 1, score=0.25),
        layer_says(OFF, "suppress", sha(1), 0, hour=99),
    ]
    columns = "rank, label, score, said_by"
    assert ask(world, columns) == [(0, "moose", 0.75, B), (1, "fox", 0.25, B)]
    assert ask(world, columns, layers=(B, A)) == [(0, "cervid", 0.75, A), (1, "fox", 0.25, B)]
    assert ask(world, columns, layers=(A,)) == [(0, "cervid", 0.75, A), (1, "fox", 0.5, None)]


def test_a_layer_says_of_another_key_nothing(world: World, ask: Ask) -> None:
    world.machine = [
        layer_says(A, "suppress", sha(1), 0) | {"inference_key": OTHER},
        layer_says(A, "relabel", sha(1), 1, label="hare"),
        layer_says(A, "withdraw", sha(1), 1, hour=1) | {"inference_key": OTHER},
    ]
    assert ask(world) == [(0, "deer", 0.9), (1, "hare", 0.5)]
    world.results[OTHER] = world.results[KEY]
    assert ask(world, inference_key=OTHER) == [(1, "fox", 0.5)]


def test_what_was_withdrawn_shows_again_until_it_is_said_again(world: World, ask: Ask) -> None:
    world.in_view = (A,)
    for hour, action in enumerate(("suppress", "withdraw", "suppress", "withdraw")):
        world.machine.append(layer_says(A, action, sha(1), 0, hour=hour))
        assert (len(ask(world)), len(ask(world, of="hidden"))) == ((2, 0) if hour % 2 else (1, 1))
    world.machine.reverse()
    assert len(ask(world)) == 2, "it is the hour that counts"


def test_hidden_names_the_layer_that_hides(world: World, ask: Ask) -> None:
    """Layers above it, made while it was off, may also set the label."""
    world.machine = [layer_says(A, "suppress", sha(1), 0), layer_says(B, "relabel", sha(1), 0, label="moose")]
    told = "said_by, reason, label"
    assert ask(world, told, "hidden") == [(A, "suppress at 0", "moose")]
    world.machine.append(layer_says(B, "suppress", sha(1), 0, hour=2))
    assert ask(world, told, "hidden") == [(B, "suppress at 2", "deer")]


@pytest.mark.parametrize(("score", "shown"), [(0.7, 2), (0.6999999, 1)])
def test_thresholds_are_of_the_resolved_label_and_score_in_32_bits(
    world: World, ask: Ask, score: float, shown: int
) -> None:
    world.machine = [layer_says(A, "relabel", sha(1), 0, label="hare", score=score)]
    labels = {"deer": 0.99, "hare": 0.7, "fox": 0.5}
    assert len(ask(world, label_thresholds=labels)) == shown
    assert len(ask(world, threshold=0.7, label_thresholds={"fox": 0.5})) == shown
    assert ask(world, of="hidden", threshold=0.99) == [], "not shown is not hidden"


def test_what_people_keep_or_relabel_is_shown_whatever_its_score(world: World, ask: Ask) -> None:
    world.machine = [
        layer_says(B, "suppress", sha(1), 0, hour=99),
        layer_says(B, "rescore", sha(1), 1, hour=99, score=0.01),
    ]
    far = world.results[KEY][sha(1)][1].box
    world.human = [person("keep", sha(1), BOX, label="roe deer"), person("relabel", sha(1), far, label="dog")]
    columns = "rank, label, score, said_by"
    told = [(0, "roe deer", 0.9, "human"), (1, "dog", 0.01, "human")]
    assert ask(world, columns, threshold=1.0) == told
    world.human.append(person("suppress", sha(1), far, hour=1, label="dog"))
    assert ask(world, columns, "hidden") == [(1, "fox", 0.01, "human")]


@pytest.mark.parametrize(
    ("box", "holds"),
    [
        ((100.0, 100.0, 124.0, 112.0), True),
        ((104.0, 100.0, 116.0, 112.0), True),
        ((100.0, 100.0, 106.0, 112.0), True),
        ((100.0, 100.0, 124.001, 112.0), False),
        ((104.001, 100.0, 116.0, 112.0), False),
    ],
)
def test_a_statement_belongs_to_a_box_from_half_on(world: World, ask: Ask, box: Corners, holds: bool) -> None:
    world.human = [person("relabel", sha(1), box, label="dog")]
    assert ask(world, "label") == [("dog" if holds else "deer",), ("fox",)]
    assert ask(world, "label, other_boxes", "orphaned") == ([] if holds else [("dog", True)])


def test_the_newest_of_statements_about_one_thing_holds_however_well_it_is_drawn(world: World, ask: Ask) -> None:
    """Named detections have an IoU of 1, so a later drawn correction must win by its time."""
    beside = (102.0, 100.0, 114.0, 112.0)
    named = {"inference_key": KEY, "rank": 0}
    world.human = [
        person("relabel", sha(1), BOX, label="dog", **named),
        person("relabel", sha(1), beside, hour=9, label="cat", actor="lee"),
    ]
    assert ask(world, "label") == [("cat",), ("fox",)]
    assert ask(world, "label", "orphaned") == [], "what is replaced is in no doubt"
    world.human.append(person("relabel", sha(1), BOX, hour=1, label="pig", **named))
    assert ask(world, "label") == [("cat",), ("fox",)]
    world.human.append(person("suppress", sha(1), BOX, hour=10, **named))
    assert ask(world, "label") == [("fox",)]


def test_of_two_things_on_one_detection_the_better_covered_holds(world: World, ask: Ask) -> None:
    """Boxes that overlap the detection but not each other; the other one is orphaned."""
    left, right = (96.0, 100.0, 108.0, 112.0), (103.0, 100.0, 115.0, 112.0)
    world.human = [
        person("relabel", sha(1), left, hour=9, label="dog"),
        person("relabel", sha(1), right, label="cat", actor="lee"),
    ]
    assert ask(world, "label") == [("cat",), ("fox",)]
    assert ask(world, "label, actor", "orphaned") == [("dog", "kim")]
    mirrored = (97.0, 100.0, 109.0, 112.0)
    world.human[0] = person("relabel", sha(1), mirrored, hour=9, label="pig")
    assert ask(world, "label") == [("fox",), ("pig",)], "as well, and newer"


def test_a_statement_holds_for_the_detection_it_names(world: World, ask: Ask) -> None:
    """Redrawn boxes still apply to it; with another model, to the detection that they cover."""
    nearer = Seen("dog", 0.8, (100.0, 100.0, 130.0, 130.0))
    world.results[KEY][sha(1)].append(nearer)
    named = {"inference_key": KEY, "rank": 0, "label": "boar"}
    world.human = [person("relabel", sha(1), (100.0, 100.0, 131.0, 130.0), **named)]
    assert ask(world, "label") == [("boar",), ("dog",), ("fox",)]
    world.human = [person("relabel", sha(1), (300.0, 300.0, 310.0, 310.0), **named)]
    assert ask(world, "label") == [("boar",), ("dog",), ("fox",)]
    world.results[OTHER] = {sha(1): [Seen("cow", 0.4, BOX), nearer]}
    world.human = [person("relabel", sha(1), nearer.box, **named)]
    assert ask(world, "label", inference_key=OTHER) == [("boar",), ("cow",)]


def test_max_n_is_the_most_of_one_image_and_a_person_determines(world: World, ask: Ask) -> None:
    """Two images of an event; the second has two deer and two foxes, which form one occurrence."""
    boxes = [(30.0 * n, 0.0, 30.0 * n + 12, 12.0) for n in range(4)]
    found = [Seen(label, 0.5, box) for label, box in zip(("deer", "deer", "fox", "fox"), boxes, strict=True)]
    world.results[KEY][sha(2)] = found
    world.files[sha(2)] = [File("north/2.jpg", "north", None)]
    world.layers |= {A: "event", B: "occurrence"}
    world.machine = [layer_says(A, "group", sha(n), None, group_id="e") for n in (1, 2)]
    world.machine += [layer_says(B, "group", sha(2), rank, group_id="o") for rank in range(4)]
    most = "n_images, max_n"
    whole = "n_detections, label, score, event_id"

    def told() -> tuple[Any, ...]:
        return *ask(world, most, "events")[0], *ask(world, whole, "occurrences")[0]

    assert told() == (2, {"deer": 2, "fox": 2}, 4, "deer", 0.5, "e"), "equal: by name"
    world.machine.append(layer_says(B, "rescore", sha(2), 2, hour=1, score=0.75, group_id="o"))
    assert told()[2:] == (4, "fox", 0.75, "e")
    world.human = [person("keep", sha(2), boxes[0], label="deer")]
    assert told()[2:] == (4, "deer", 0.5, "e"), "a person's, whatever the sums are"
    world.human = [person("suppress", sha(2), box, label="fox") for box in boxes[2:]]
    assert told() == (2, {"deer": 2, "fox": 1}, 2, "deer", 0.5, "e"), "a fox is in the first"


def test_nothing_is_in_an_image_until_a_person_sees_something(world: World, ask: Ask) -> None:
    world.machine = [layer_says(B, "suppress", sha(1), 1)]

    def told(*said: Row) -> list[tuple[Any, ...]]:
        world.human = list(said)
        return ask(world, "label, said_by")

    empty, keep = person("suppress", sha(1)), person("keep", sha(1), BOX, label="deer")
    assert told(empty) == []
    assert {row[0] for row in ask(world, "said_by", "hidden")} == {"human"}
    assert told(empty, person("suppress", sha(1), BOX, 1, reason="a stone")) == []
    assert ask(world, "rank, reason", "hidden") == [(0, "a stone"), (1, "seen")], "each once"
    assert told(empty, person("keep", sha(1), BOX, 1, label="deer")) == [("deer", "human")]
    assert told(keep, person("suppress", sha(1), hour=1)) == []
    assert told(empty, person("keep", sha(2), BOX, 1, label="deer")) == []


def test_an_animal_that_a_person_added_is_shown_once_whichever_model_finds_it(world: World, ask: Ask) -> None:
    """Added animals have no score until a model detects the box; then it is that detection, with the person's label."""
    columns = "media_sha256, rank, label, score, said_by, x1_px, inference_key is null"
    missed: Corners = (300.0, 100.0, 312.0, 112.0)
    world.files[sha(2)] = [File("north/2.jpg", "north", None)]  # without a result
    world.human = [person("add", sha(n), missed, label="hare") for n in (1, 2)]
    hares = [(sha(n), None, "hare", None, "human", 300.0, True) for n in (1, 2)]
    found = ask(world, columns, "detections where label = 'hare'", label_thresholds={"hare": 0.9})
    assert found == hares
    assert ask(world, "assertion_id", "orphaned") == []
    world.results[KEY][sha(1)].append(Seen("deer", 0.1, (302.0, 100.0, 312.0, 112.0)))
    now = (sha(1), 2, "hare", 0.1, "human", 302.0, False)
    assert ask(world, columns, "detections where label = 'hare'", threshold=0.5) == [now, hares[1]]
    world.human += [person("withdraw", sha(n), missed, hour=1) for n in (1, 2)]
    assert ask(world, "count(*)", "detections where label = 'hare'") == [(0,)]
    assert ask(world, "label, said_by", "detections where rank = 2") == [("deer", None)]


def test_what_is_withdrawn_is_the_models_word_again(world: World, ask: Ask) -> None:
    """Earlier statements stay replaced. Without a box, a withdraw applies to the whole image."""
    first = person("relabel", sha(1), BOX, label="cow")
    second = person("relabel", sha(1), BOX, hour=1, label="horse")
    fox = person("relabel", sha(1), (200.0, 200.0, 224.0, 224.0), hour=1, label="dog")
    plain = [(0, "deer", None), (1, "fox", None)]

    def told(*said: Row) -> list[tuple[Any, ...]]:
        world.human = [first, second, fox, *said]
        return ask(world, "rank, label, said_by")

    assert told() == [(0, "horse", "human"), (1, "dog", "human")]
    assert told(person("withdraw", sha(1), BOX, hour=2)) == [plain[0], (1, "dog", "human")]
    assert told(person("withdraw", sha(1), hour=2)) == plain
    assert told(person("suppress", sha(1), hour=2), person("withdraw", sha(1), hour=3)) == plain


def test_a_class_id_is_that_of_the_label_that_is_shown(world: World, ask: Ask) -> None:
    columns = "label, class_id, model_label"
    assert ask(world, columns) == [("deer", 0, "deer"), ("fox", 1, "fox")]
    world.machine = [layer_says(A, "relabel", sha(1), 0, label="fox")]
    assert ask(world, columns) == [("fox", 1, "deer"), ("fox", 1, "fox")]
    world.human = [
        person("relabel", sha(1), BOX, label="cow"),
        person("add", sha(1), (0.0, 0.0, 9.0, 9.0), label="fox"),
    ]
    assert ask(world, columns) == [("cow", None, "deer"), ("fox", 1, "fox"), ("fox", 1, None)]
    world.human = [person("relabel", sha(1), BOX, label="deer")]
    assert ask(world, columns)[0] == ("deer", 0, "deer")
