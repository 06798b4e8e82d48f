"""Published views: atomic publication, conflicts and rollbacks, and their effect on queries."""

from __future__ import annotations

import contextlib
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from archive.views.views import View, Views, not_rolled_back, rollback_target, was_rolled_back
from model_store.errors import BadRequest, Conflict, StorageUnreachable
from model_store.storage import Folder
from tests.support.s3_server import new_bucket


def view(key: str = "a", **more: Any) -> View:
    fields = {"inference_key": key, "model_name": f"m-{key}", "model_version": "1"}
    return View.model_validate({**fields, "weights_sha256": "w", **more})


@pytest.fixture(params=["local", "s3"])
def views(request: pytest.FixtureRequest, tmp_path: Path) -> Views:
    if request.param == "local":
        return Views(str(tmp_path))
    return Views(new_bucket(request.getfixturevalue("s3_endpoint"), "tables"))


@pytest.fixture
def here(tmp_path: Path) -> Views:
    return Views(str(tmp_path))


def test_the_last_publication_is_current_and_the_others_are_its_history(views: Views) -> None:
    asked = datetime.now(UTC)
    first = views.publish(view("a", threshold=0.2, label_thresholds={"it's": 0.7}), after=0)
    second = views.publish(view("b", run_id="r", reason="better"), after=first.serial)
    assert (first.serial, second.serial) == (1, 2)
    assert views.current() == second
    assert views.history() == [first, second]
    assert first.published_at
    assert second.published_at
    assert asked <= first.published_at <= second.published_at <= datetime.now(UTC)
    assert second.model_dump() == view("b", run_id="r", reason="better").model_dump() | {
        "serial": 2,
        "published_at": second.published_at,
    }


@pytest.mark.parametrize("name", ["", "../results", "A", "x" * 65, "a\n"])
def test_a_name_that_is_no_folder_of_its_own_is_refused(here: Views, name: str) -> None:
    with pytest.raises(BadRequest, match="invalid name of a view"):
        here.current(name)
    with pytest.raises(ValueError, match="pattern"):
        view(name=name)


@pytest.mark.parametrize("after", [0, 1])
def test_whoever_looked_before_another_published_is_refused(views: Views, after: int) -> None:
    views.publish(view("a"), after=0)
    now = views.publish(view("b"), after=1)
    with pytest.raises(Conflict, match="published concurrently"):
        views.publish(view("c"), after=after)
    assert views.current() == now


def test_of_many_that_publish_at_once_one_succeeds(views: Views) -> None:
    writers, rounds = 4, 3
    together = Barrier(writers)

    def publish(key: str) -> list[int]:
        won: list[int] = []
        for after in range(rounds):
            together.wait(60)
            with contextlib.suppress(Conflict):
                won.append(views.publish(view(key), after).serial)
        return won

    with ThreadPoolExecutor(writers) as pool:
        won = list(pool.map(publish, "abcd"))
    assert sorted(serial for serials in won for serial in serials) == [1, 2, 3]
    by_serial = {serial: "abcd"[i] for i, serials in enumerate(won) for serial in serials}
    assert {v.serial: v.inference_key for v in views.history()} == by_serial


def test_a_publication_whose_acknowledgement_was_lost_is_not_refused(
    here: Views, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = Folder.create

    def deaf(folder: Folder, relative: str, data: bytes) -> None:
        create(folder, relative, data)
        create(folder, relative, data)  # as a client retries without a response

    monkeypatch.setattr(Folder, "create", deaf)
    assert here.publish(view("a"), after=0) == here.current()


def test_a_rollback_shows_what_was_shown_before_and_twice_what_was_before_that(views: Views) -> None:
    for i, key in enumerate("abc"):
        views.publish(view(key, label_thresholds={"x": i / 10}), after=i)
    back = views.rollback(views.history(), "too many stones")
    assert (back.serial, back.inference_key, back.rolled_back_to) == (4, "b", 2)
    assert (back.label_thresholds, back.reason) == ({"x": 0.1}, "too many stones")
    again = views.rollback(views.history())
    assert (again.serial, again.inference_key, again.rolled_back_to) == (5, "a", 1)
    assert again.reason == "back from 4"
    with pytest.raises(BadRequest, match="nothing was published as production before m-a@1"):
        views.rollback(views.history())
    assert [v.inference_key for v in views.history()] == ["a", "b", "c", "b", "a"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(steps=st.lists(st.sampled_from(["publish", "publish", "rollback"]), max_size=12))
def test_publications_and_rollbacks_are_a_stack(steps: list[str]) -> None:
    stack: list[int] = []
    history: list[View] = []
    for serial, step in enumerate(steps, 1):
        if step == "publish":
            stack.append(serial)
            history.append(view(str(serial), serial=serial))
        elif len(stack) > 1:
            stack.pop()
            back = rollback_target(history).model_copy(update={"rolled_back_to": rollback_target(history).serial})
            history.append(back.model_copy(update={"serial": serial}))
        assert [v.serial for v in not_rolled_back(history)] == stack
        if history:
            assert history[-1].inference_key == str(stack[-1])


STORIES: dict[str, tuple[str, dict[str, bool]]] = {
    "another model": ("old new back", {"new": True, "new 0.8": True, "old": False}),
    "layers switched on, and off": ("old new back old+l old", {"new": True, "old": False}),
    "a threshold of the model that is shown": ("old new back old 0.8", {"new": True, "old 0.8": False}),
    "with thresholds between": ("old new new 0.8 back back", {"new": True, "new 0.8": True}),
    "over what came later": ("old new back third back", {"new": True, "third": True}),
    "published again by hand": ("old new back new", {"new": False, "new 0.8": False}),
    "published again with other thresholds": ("old new back new 0.8 third", {"new": False}),
    "shown again by a roll-back": ("new old new back back", {"new": False, "old": True}),
    "thresholds alone": ("old old 0.8 back", {"old 0.8": True, "old 0.9": False, "old": False}),
    "thresholds, then another model": ("old old 0.8 back new", {"old 0.8": True, "old": False}),
    "layers over the bad model": ("old new new+l back", {"new": False}),
    "layers and the bad model": ("old new new+l back back", {"new": True}),
    "nothing published": ("", {"old": False}),
}


def shown(words: str) -> View:
    """Build a view from `old`, `old 0.8` (with a threshold) or `old+l` (with a layer)."""
    key, _, threshold = words.partition(" ")
    key, _, layer = key.partition("+")
    return view(key, threshold=float(threshold or 0.5), layers=(layer,) if layer else ())


def is_rejected(history: list[View], one: View) -> bool:
    return was_rolled_back(history, one.inference_key, one.threshold, one.label_thresholds)


@pytest.mark.parametrize(("steps", "wanted"), STORIES.values(), ids=STORIES)
def test_what_was_rolled_back_stays_so_until_it_is_published_again(
    here: Views, steps: str, wanted: dict[str, bool]
) -> None:
    for serial, step in enumerate(re.findall(r"back|[a-z+]+(?: 0\.\d)?", steps)):
        if step == "back":
            here.rollback(here.history(), reason=f"the results of number {serial} were pruned")
        else:
            here.publish(shown(step), after=serial)
    found = {words: is_rejected(here.history(), shown(words)) for words in wanted}
    assert found == wanted


def test_a_publication_that_repeats_the_fields_of_a_rollback_is_none(here: Views) -> None:
    here.publish(view("a"), after=0)
    here.publish(view("b"), after=1)
    back = here.rollback(here.history())
    switched = here.publish(back.model_copy(update={"layers": ("l",)}), after=3)
    assert switched.rolled_back_to is None
    assert [one.serial for one in not_rolled_back(here.history())] == [1, 4]


@pytest.mark.parametrize("text", ["", '{"serial": "x"}'])
def test_a_damaged_pointer_is_an_error_of_the_storage(here: Views, tmp_path: Path, text: str) -> None:
    here.publish(view("a"), after=0)
    Folder(str(tmp_path)).write("views/production/00000001.json", text.encode())
    for read in (here.current, here.history):
        words = r"cannot read .*production/00000001\.json: .*; restore it from the backup, .* 'resight doctor'"
        with pytest.raises(StorageUnreachable, match=words) as raised:
            read()
        assert "pydantic" not in str(raised.value)


NO_POINTERS = ("00000008.json.bak", "00000008.json~", "8.json", "00000008", "00000008.tmp.json")


def test_other_files_beside_the_pointers_do_not_matter(here: Views, tmp_path: Path) -> None:
    published = here.publish(view("a"), after=0)
    for name in (".writing-x1", "README", "notes.json", "x0000002.json", *NO_POINTERS):
        Folder(str(tmp_path)).write(f"views/production/{name}", b"?")
    Folder(str(tmp_path)).write("views/.tmp/00000001.json", b"?")
    assert here.current() == published
    assert here.names() == ["production"]


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ({"model_version": "2", "run_id": "x", "reason": "y", "serial": 9}, True),
        ({"inference_key": "b"}, False),
        ({"threshold": 0.1}, False),
        ({"label_thresholds": {"x": 0.1}}, False),
        ({"layers": ("l",)}, False),
    ],
)
def test_what_people_see_decides_whether_two_views_show_the_same(other: dict[str, Any], same: bool) -> None:
    assert view("a").shows_the_same_as(view("a").model_copy(update=other)) is same
