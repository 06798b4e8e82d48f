"""Reasons to keep results, case by case; the others are pruned."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from archive.delta.tables import Tables
from archive.retention import of_view, plan_prune, prune
from archive.views.views import View, Views
from tests.archive.prunable import KEYS, NOW, days_ago, event, kept, keys_of, publish, shown
from tests.fixtures_local import put_results, put_rows, result_rows


def setup_published(tables: Tables) -> None:
    publish(tables, "a")


def setup_before_the_current(tables: Tables) -> None:
    publish(tables, "a", "b")


def setup_rolled_back(tables: Tables) -> None:
    publish(tables, "a", "b", "c")
    Views(tables.url).rollback(Views(tables.url).history())


def setup_other_view(tables: Tables) -> None:
    publish(tables, "a", name="trial")
    publish(tables, "b")


def setup_exported(tables: Tables) -> None:
    common = {"exported_at": days_ago(400), "rows": 3}
    put_rows(tables, "exports", common | {"inference_keys": ["a", "c"], "file": "/x/1.csv"})
    put_rows(tables, "exports", common | {"inference_keys": [], "file": "/x/2.csv"})
    later = {"exported_at": days_ago(1), "inference_keys": ["c"], "file": "/x/3.csv"}
    put_rows(tables, "exports", common | later)


def setup_asserted(tables: Tables) -> None:
    put_rows(
        tables,
        "assertions",
        {"method": "human", "inference_key": "a", "media_sha256": "a1"},
        {"method": "human", "inference_key": "a", "media_sha256": "a2"},
        {"method": "human", "inference_key": None, "media_sha256": "b1"},
        {"method": "machine", "inference_key": "c", "media_sha256": "c1"},
    )


def setup_runs(tables: Tables) -> None:
    events = [event("a", 0.9), event("b", 1.1), event("c", 1.1, "running")]
    crops = {"kind": "classify", "metrics": '{"inference_key": "b"}'}
    events += [event("x", 1.1, run_id="crops") | crops, event("x", 0.5, run_id="crops") | {"kind": "classify"}]
    put_rows(tables, "runs", *events, event("c", 0, "running", run_id="other"), event("d", 300))


@pytest.mark.parametrize(
    ("setup", "want"),
    [
        (lambda _: None, {}),
        (setup_published, {"a": ["view production shows it"]}),
        (
            setup_before_the_current,
            {"a": ["view production can be rolled back to it (number 1)"], "b": ["view production shows it"]},
        ),
        (
            setup_rolled_back,
            {
                "a": ["view production can be rolled back to it (number 1)"],
                "b": ["view production shows it"],
                "c": ["view production can be rolled back to it (number 3)"],
            },
        ),
        (setup_other_view, {"a": ["view trial shows it"], "b": ["view production shows it"]}),
        (
            setup_exported,
            {
                "a": [f"it was exported to /x/1.csv on {days_ago(400):%Y-%m-%d}"],
                "c": [f"it was exported to /x/3.csv on {days_ago(1):%Y-%m-%d} (and 1 more)"],
            },
        ),
        (setup_asserted, {"a": ["2 human assertions refer to it"]}),
        (
            setup_runs,
            {
                "a": [f"run r-a was active on {days_ago(0.9):%Y-%m-%d %H:%M} UTC"],
                "b": [f"run crops-x was active on {days_ago(0.5):%Y-%m-%d %H:%M} UTC"],
                "c": [f"run other-c was active on {NOW:%Y-%m-%d %H:%M} UTC"],
            },
        ),
    ],
)
def test_a_key_is_kept_for_each_of_these_reasons_and_the_others_go(
    four: Tables, setup: Callable[[Tables], None], want: dict[str, list[str]]
) -> None:
    setup(four)
    assert kept(four, keep_days=0) == {key: tuple(words) for key, words in want.items()}
    before = {use.inference_key: use for use in plan_prune(four, [], 0)}
    gone = set(KEYS) - set(want)
    assert prune(four, [], 0) == [use for key, use in before.items() if key in gone]
    assert keys_of(four) == set(want)
    assert keys_of(four, "snips") == {"a"} & set(want)
    assert keys_of(four, "classifications") == {"a", "b"} & set(want)
    assert prune(four, [], 0) == []


@pytest.mark.parametrize(
    ("days", "state", "keep_days", "words"),
    [
        (80, "sealed", 90, "sealed"),
        (100, "sealed", 90, None),
        (80, "cancelled", 90, "cancelled"),
        (80, "failed", 90, "failed"),
        (80, "running", 90, "interrupted"),
        (80, "sealed", 70, None),
    ],
)
def test_what_a_run_did_is_kept_for_as_long_as_what_was_shown(
    four: Tables, days: float, state: str, keep_days: float, words: str | None
) -> None:
    started = event("a", days + 1, "running", run_id="x")
    put_rows(four, "runs", started, event("a", days, state, run_id="x") | {"event": 1})
    want = {"a": (f"run x-a was {words} on {days_ago(days):%Y-%m-%d}",)} if words else {}
    assert kept(four, keep_days=keep_days) == want


@pytest.mark.parametrize(("state", "kept_too"), [("sealed", set()), ("cancelled", {"a"})])
def test_of_a_sealed_run_that_was_published_its_views_decide(
    four: Tables, monkeypatch: pytest.MonkeyPatch, state: str, kept_too: set[str]
) -> None:
    put_rows(four, "runs", event("a", 2, state))
    monkeypatch.setattr(Views, "history", lambda *_: shown(500, 400, 300))
    publish(four, "d")
    assert set(kept(four)) == {"b", "c"} | kept_too


@pytest.mark.parametrize(
    ("history", "keep_days", "want"),
    [
        ([], 90, set()),
        (shown(500), 90, {"a"}),
        (shown(500, 400), 90, {"a", "b"}),
        (shown(500, 400, 300), 90, {"b", "c"}),
        (shown(500, 80, 70), 90, {"a", "b", "c"}),
        (shown(500, 80, 70), 79, {"b", "c"}),
        (shown(500, 80, 70), 0, {"b", "c"}),
        (shown(500, 400, 91, 89, 1), 90, {"c", "d", "e"}),
    ],
)
def test_what_a_view_showed_is_kept_for_so_many_days_after(
    history: Sequence[View], keep_days: float, want: set[str]
) -> None:
    assert {key for key, _ in of_view(history, keep_days, NOW)} == want


def test_what_was_written_lately_is_kept(tables: Tables) -> None:
    put_results(tables, result_rows(["x"], key="a"))
    assert kept(tables) == {"a": ("it was written to in the last day",)}
    assert prune(tables, [], 0) == []
