"""Resolved detections, compared with an oracle without SQL; then layers, undo and people, case by case."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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
FAR: Corners = (200.0, 200.0, 224.0, 224.0)
DEER, FOX = Seen("deer", 0.9, BOX), Seen("fox", 0.5, FAR)


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


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(world=worlds())
def test_every_relation_is_what_the_rules_say(world: World) -> None:
    with pytest.MonkeyPatch.context() as patch, connected(world, patch) as sql:
        for name, (_, expected) in RELATIONS.items():
            wanted = expected(world)
            event(f"{name}: {'some' if wanted else 'none'}")
            assert relation(sql, name) == wanted, name


def world_of(*images: list[Seen]) -> World:
    """Return images 1 and so on; layers A and B, and OFF, which is not in the view."""
    files = {sha(n): [File(f"north/{n}.jpg", "north", None)] for n in range(1, len(images) + 1)}
    results = {KEY: {sha(n): list(seen) for n, seen in enumerate(images, 1)}, OTHER: {}}
    return World(KEY, files, results, dict.fromkeys((A, B, OFF)), (A, B))


def selected(sql: duckdb.DuckDBPyConnection, statement: str) -> list[tuple[Any, ...]]:
    rows = sql.sql(f"{statement} order by all").fetchall()
    return [tuple(round(one, 4) if isinstance(one, float) else one for one in row) for row in rows]


@pytest.fixture
def world() -> World:
    return world_of([DEER, FOX])


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
    for serial, layers in enumerate([(), (A, B), ()]):
        views.publish(view_of(world, layers=layers), after=serial)
        rows = all_rows()
        assert seen.setdefault(layers, rows) == rows
    assert len({str(rows) for rows in seen.values()}) == 2
    views.rollback(views.history())
    assert all_rows() == seen[A, B]
    assert len(rows_of(tables, "assertions")) == 3, "nothing was taken from the table"


@dataclass
class Case:
    """Rows about an image with DEER, FOX and `more`; what its view then has, where it is given.

    shown: label, score, said_by; hidden: rank, label, said_by, reason; orphaned: label, actor, other_boxes.
    """

    rows: Callable[[str], list[Row]]
    shown: list[tuple[Any, ...]]
    hidden: list[tuple[Any, ...]] | None = None
    orphaned: list[tuple[Any, ...]] | None = None
    more: tuple[Seen, ...] = ()


D, F = ("deer", 0.9, None), ("fox", 0.5, None)
HUMAN = "human"
NAMED = {"inference_key": KEY, "rank": 0}
BESIDE, LEFT = (102.0, 100.0, 114.0, 112.0), (96.0, 100.0, 108.0, 112.0)
MIRRORED, RIGHT = (97.0, 100.0, 109.0, 112.0), (103.0, 100.0, 115.0, 112.0)
"""Boxes that overlap DEER; LEFT and RIGHT not each other."""
MISSED: Corners = (300.0, 100.0, 312.0, 112.0)
DOG = Seen("dog", 0.8, (100.0, 100.0, 130.0, 130.0))
"""Covers a box that is drawn for DEER better than DEER does."""
WEAK, ASIDE = Seen("roe deer", 0.2, (100.0, 100.0, 112.0, 113.0)), Seen("pig", 0.95, (105.0, 100.0, 117.0, 112.0))
"""WEAK is about the same animal as DEER, ASIDE about another animal."""
BETWEEN: Corners = (100.0, 100.0, 112.0, 112.5)
"""Has an IoU of 0.96 with DEER, and a little more with WEAK."""


def of_layers(*said: tuple[Any, ...]) -> Callable[[str], list[Row]]:
    """Return rows of (layer, action, rank, hour, fields)."""
    return lambda image: [layer_says(layer, action, image, rank, hour, **m) for layer, action, rank, hour, m in said]


def of_people(*said: tuple[Any, ...]) -> Callable[[str], list[Row]]:
    """Return statements of (action, box, hour, fields)."""
    return lambda image: [person(action, image, box, hour, **fields) for action, box, hour, fields in said]


def relabel(box: Corners, hour: int, label: str, **more: Any) -> tuple[Any, ...]:
    return "relabel", box, hour, {"label": label, **more}


def drawn(box: Corners, applies: bool) -> Case:
    shown = [("dog", 0.9, HUMAN) if applies else D, F]
    return Case(of_people(relabel(box, 0, "dog")), shown, orphaned=[] if applies else [("dog", "kim", True)])


REPLACED = (relabel(BOX, 0, "dog", **NAMED), relabel(BESIDE, 9, "cat", actor="lee"))
EMPTY, STONE = ("suppress", None, 0, {}), ("suppress", BOX, 1, {"reason": "a stone"})
WITHDRAWN = (relabel(BOX, 0, "cow"), relabel(BOX, 1, "horse"), relabel(FAR, 1, "dog"))
OF_TWINS = (
    ("keep", BOX, 0, {"label": "deer", "inference_key": OTHER, "rank": 0}),
    ("suppress", BOX, 1, {"label": "cow", "inference_key": OTHER, "rank": 1}),
)
"""Statements about two detections of another model in one place."""
CASES = {
    "the later layer in the view applies, to each of label and score by itself": Case(
        of_layers(
            (A, "relabel", 0, 9, {"label": "cervid", "score": 0.75}),
            (B, "relabel", 0, 0, {"label": "moose"}),
            (B, "rescore", 1, 0, {"score": 0.25}),
            (OFF, "suppress", 0, 99, {}),
        ),
        [("fox", 0.25, B), ("moose", 0.75, B)],
        [],
    ),
    "rows about another key do not apply": Case(
        of_layers(
            (A, "suppress", 0, 0, {"inference_key": OTHER}),
            (A, "relabel", 1, 0, {"label": "hare"}),
            (A, "withdraw", 1, 1, {"inference_key": OTHER}),
        ),
        [D, ("hare", 0.5, A)],
    ),
    "a withdrawn row does not apply": Case(of_layers((A, "withdraw", 0, 1, {}), (A, "suppress", 0, 0, {})), [D, F], []),
    "a row applies again after a withdrawal": Case(
        of_layers((A, "suppress", 0, 2, {}), (A, "withdraw", 0, 1, {}), (A, "suppress", 0, 0, {})),
        [F],
        [(0, "deer", A, "suppress at 2")],
    ),
    "hidden names the layer that hides; one above it may set the label": Case(
        of_layers((A, "suppress", 0, 0, {}), (B, "relabel", 0, 0, {"label": "moose"})),
        [F],
        [(0, "moose", A, "suppress at 0")],
    ),
    "hidden names the last layer that hides": Case(
        of_layers((A, "suppress", 0, 0, {}), (B, "suppress", 0, 2, {})), [F], [(0, "deer", B, "suppress at 2")]
    ),
    "people override layers": Case(
        lambda image: [
            *of_layers((B, "suppress", 0, 99, {}), (B, "rescore", 1, 99, {"score": 0.01}))(image),
            *of_people(("keep", BOX, 0, {"label": "roe deer"}), ("suppress", FAR, 1, {"label": "dog"}))(image),
        ],
        [("roe deer", 0.9, HUMAN)],
        [(1, "fox", HUMAN, "seen")],
    ),
    "IoU 0.5, wider": drawn((100.0, 100.0, 124.0, 112.0), applies=True),
    "IoU 0.5, moved": drawn((104.0, 100.0, 116.0, 112.0), applies=True),
    "IoU 0.5, smaller": drawn((100.0, 100.0, 106.0, 112.0), applies=True),
    "IoU below 0.5, wider": drawn((100.0, 100.0, 124.001, 112.0), applies=False),
    "IoU below 0.5, moved": drawn((104.001, 100.0, 116.0, 112.0), applies=False),
    "the newest statement about a detection applies, also if it is drawn less well": Case(
        of_people(*REPLACED), [("cat", 0.9, HUMAN), F], orphaned=[]
    ),
    "an earlier one does not": Case(
        of_people(*REPLACED, relabel(BOX, 1, "pig", **NAMED)), [("cat", 0.9, HUMAN), F], orphaned=[]
    ),
    "a newer one does": Case(of_people(*REPLACED, ("suppress", BOX, 10, NAMED)), [F]),
    "of two things on one detection, the better covered applies": Case(
        of_people(relabel(LEFT, 9, "dog"), relabel(RIGHT, 0, "cat", actor="lee")),
        [("cat", 0.9, HUMAN), F],
        orphaned=[("dog", "kim", True)],
    ),
    "of two that cover it equally, the newer": Case(
        of_people(relabel(MIRRORED, 9, "pig"), relabel(RIGHT, 0, "cat", actor="lee")), [F, ("pig", 0.9, HUMAN)]
    ),
    "of a keep and a newer suppression that cover it equally, the keep": Case(
        of_people(*OF_TWINS), [("deer", 0.9, HUMAN), F]
    ),
    "of equal boxes, each finds the one with its label": Case(
        of_people(*OF_TWINS), [("deer", 0.9, HUMAN), F], more=(Seen("cow", 0.6, BOX),)
    ),
    "of two claims about one animal, the stronger": Case(
        of_people(relabel(BETWEEN, 0, "boar")), [("boar", 0.9, HUMAN), F, ("roe deer", 0.2, None)], more=(WEAK,)
    ),
    "the very box of a statement before a stronger claim": Case(
        of_people(relabel(WEAK.box, 0, "boar")), [D, F, ("boar", 0.2, HUMAN)], more=(WEAK,)
    ),
    "a stronger claim is another thing below an IoU of 0.75": Case(
        of_people(relabel(BESIDE, 0, "cat")), [("cat", 0.9, HUMAN), F, ("pig", 0.95, None)], more=(ASIDE,)
    ),
    "a keep too": Case(
        of_people(("keep", BETWEEN, 0, {"label": "roe deer"})),
        [("roe deer", 0.9, HUMAN), F, ("roe deer", 0.2, None)],
        more=(WEAK,),
    ),
    "of equal boxes that are moved, each finds the one with its label": Case(
        of_people(*((*said[:1], BETWEEN, *said[2:]) for said in OF_TWINS)),
        [("deer", 0.9, HUMAN), F],
        more=(Seen("cow", 0.6, BOX),),
    ),
    "of two animals that overlap, each finds its own": Case(
        of_people(
            relabel((99.75, 100.0, 111.75, 112.0), 0, "boar", inference_key=OTHER, rank=0),
            ("suppress", (101.0, 100.0, 113.0, 112.0), 1, {"inference_key": OTHER, "rank": 1}),
        ),
        [("boar", 0.9, HUMAN), F],
        [(2, "deer", HUMAN, "seen")],
        orphaned=[],
        more=(Seen("deer", 0.5, (101.25, 100.0, 113.25, 112.0)),),
    ),
    "a named detection comes before the one that is covered": Case(
        of_people(relabel(DOG.box, 0, "boar", **NAMED)), [("boar", 0.9, HUMAN), ("dog", 0.8, None), F], more=(DOG,)
    ),
    "a named detection needs no overlap": Case(
        of_people(relabel(MISSED, 0, "boar", **NAMED)), [("boar", 0.9, HUMAN), F], orphaned=[]
    ),
    "a detection of another model applies to the one that it covers": Case(
        of_people(relabel(BOX, 0, "boar", inference_key=OTHER, rank=1)), [("boar", 0.9, HUMAN), F]
    ),
    "an empty image": Case(of_people(EMPTY), [], [(0, "deer", HUMAN, "seen"), (1, "fox", HUMAN, "seen")]),
    "an empty image with a box that is nothing, each once": Case(
        of_people(EMPTY, STONE), [], [(0, "deer", HUMAN, "a stone"), (1, "fox", HUMAN, "seen")]
    ),
    "a box after an empty image": Case(
        of_people(EMPTY, ("keep", BOX, 1, {"label": "deer"})), [("deer", 0.9, HUMAN), F]
    ),
    "an empty image after a box": Case(of_people(("keep", BOX, 0, {"label": "deer"}), ("suppress", None, 1, {})), []),
    "an added animal has no score": Case(
        of_people(("add", MISSED, 0, {"label": "hare"})), [D, F, ("hare", None, HUMAN)], orphaned=[]
    ),
    "an added animal that a model detects is that detection": Case(
        of_people(("add", MISSED, 0, {"label": "hare"})),
        [D, F, ("hare", 0.1, HUMAN)],
        more=(Seen("deer", 0.1, (302.0, 100.0, 312.0, 112.0)),),
    ),
    "an added animal is withdrawn": Case(
        of_people(("add", MISSED, 0, {"label": "hare"}), ("withdraw", MISSED, 1, {})), [D, F]
    ),
    "a withdrawn box: earlier statements stay replaced": Case(
        of_people(*WITHDRAWN, ("withdraw", BOX, 2, {})), [D, ("dog", 0.5, HUMAN)]
    ),
    "a withdrawn image": Case(of_people(*WITHDRAWN, ("withdraw", None, 2, {})), [D, F]),
    "a withdrawn empty image": Case(
        of_people(*WITHDRAWN, ("suppress", None, 2, {}), ("withdraw", None, 3, {})), [D, F]
    ),
}


def test_each_rule_applies_to_its_image(monkeypatch: pytest.MonkeyPatch) -> None:
    world = world_of(*([DEER, FOX, *case.more] for case in CASES.values()))
    for number, case in enumerate(CASES.values(), 1):
        for row in case.rows(sha(number)):
            (world.human if row["method"] == "human" else world.machine).append(row)
    with connected(world, monkeypatch) as sql:
        shown = selected(sql, "select media_sha256, label, score, said_by from detections")
        hidden = selected(sql, "select media_sha256, rank, label, said_by, reason from hidden")
        orphaned = selected(sql, "select media_sha256, label, actor, other_boxes from orphaned")
    with connected(world, monkeypatch, threshold=1.0) as sql:
        told = selected(sql, "select media_sha256, label, score, said_by from detections")
        assert told == [row for row in shown if row[-1] == HUMAN], "a threshold does not apply to people"
    for number, (name, case) in enumerate(CASES.items(), 1):
        for found, expected in ((shown, case.shown), (hidden, case.hidden), (orphaned, case.orphaned)):
            if expected is not None:
                assert sorted(r[1:] for r in found if r[0] == sha(number)) == sorted(expected), name


def test_an_image_without_a_result_shows_what_people_added(monkeypatch: pytest.MonkeyPatch) -> None:
    world = world_of([], [DEER])
    del world.results[KEY][sha(1)]
    world.human = [person("add", sha(1), MISSED, label="hare")]
    with connected(world, monkeypatch, label_thresholds={"hare": 0.9}) as sql:
        added = selected(sql, "select rank, label, score, x1_px, inference_key from detections where label = 'hare'")
    assert added == [(None, "hare", None, 300.0, None)]


def test_thresholds_are_of_the_resolved_label_and_score_in_32_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    world = world_of([DEER, FOX], [DEER, FOX])
    for number, score in ((1, 0.7), (2, 0.6999999)):
        world.machine.append(layer_says(A, "relabel", sha(number), 0, label="hare", score=score))
    views = ({"label_thresholds": {"deer": 0.99, "hare": 0.7}}, {"threshold": 0.7, "label_thresholds": {"fox": 0.5}})
    for view in views:
        with connected(world, monkeypatch, **view) as sql:
            found = selected(sql, "select media_sha256, label from detections")
            assert found == [(sha(1), "fox"), (sha(1), "hare"), (sha(2), "fox")]
            assert selected(sql, "from hidden") == [], "not shown is not hidden"


def test_max_n_is_the_most_of_one_image_and_a_person_determines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Events of two images; the second has two deer and two foxes, which form one occurrence."""
    boxes = [(30.0 * n, 0.0, 30.0 * n + 12, 12.0) for n in range(4)]
    four = [Seen(label, 0.5, box) for label, box in zip(("deer", "deer", "fox", "fox"), boxes, strict=True)]
    world = world_of(*[[DEER, FOX], four] * 4)
    world.layers |= {A: "event", B: "occurrence"}
    for n in range(1, 9):
        world.machine.append(layer_says(A, "group", sha(n), None, group_id=f"e{(n + 1) // 2}"))
    for n in (2, 4, 6, 8):
        world.machine += [layer_says(B, "group", sha(n), rank, group_id=f"o{n // 2}") for rank in range(4)]
        if n > 2:
            world.machine.append(layer_says(B, "rescore", sha(n), 2, hour=1, score=0.75, group_id=f"o{n // 2}"))
    world.human = [person("keep", sha(6), boxes[0], label="deer")]
    world.human += [person("suppress", sha(8), box, label="fox") for box in boxes[2:]]
    with connected(world, monkeypatch) as sql:
        most = dict(selected(sql, "select event_id, max_n from events"))
        columns = "occurrence_id, n_detections, label, score, event_id"
        assert selected(sql, f"select {columns} from occurrences") == [
            ("o1", 4, "deer", 0.5, "e1"),  # equal: by name
            ("o2", 4, "fox", 0.75, "e2"),
            ("o3", 4, "deer", 0.5, "e3"),  # a person's, whatever the sums are
            ("o4", 2, "deer", 0.5, "e4"),
        ]
    assert most["e1"] == {"deer": 2, "fox": 2}
    assert most["e4"] == {"deer": 2, "fox": 1}, "a fox is in the first"


def test_a_class_id_is_that_of_the_label_that_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    world = world_of([DEER, FOX], [DEER], [DEER])
    world.machine = [layer_says(A, "relabel", sha(n), 0, label="fox") for n in (1, 2, 3)]
    world.human = [
        person("relabel", sha(2), BOX, label="cow"),
        person("add", sha(2), (0.0, 0.0, 9.0, 9.0), label="fox"),
        person("relabel", sha(3), BOX, label="deer"),
    ]
    with connected(world, monkeypatch) as sql:
        assert selected(sql, "select right(media_sha256, 1), label, class_id, model_label from detections") == [
            *(("1", "fox", 1, "deer"), ("1", "fox", 1, "fox")),
            *(("2", "cow", None, "deer"), ("2", "fox", 1, None)),
            ("3", "deer", 0, "deer"),
        ]
