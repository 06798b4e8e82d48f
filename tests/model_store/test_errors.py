"""The tree in the docstring is the tree of classes, and every error crosses a process border."""

import pickle
import re

import pytest

from model_store import errors
from model_store.errors import ImageError, Overloaded, ResightError, said


def tree(base: type[ResightError]) -> dict[str, str]:
    """Return the name of the base of each class below `base` in errors.py."""
    found: dict[str, str] = {}
    for child in base.__subclasses__():
        if child.__module__ == errors.__name__:
            found[child.__name__] = base.__name__
            found |= tree(child)
    return found


def drawn() -> dict[str, str]:
    """Return the tree in the docstring in the same form."""
    found: dict[str, str] = {}
    path = ["ResightError"]
    for line in (errors.__doc__ or "").splitlines():
        if match := re.match(r"((?:\|   |    )*)(?:\|--|`--) (\w+)", line):
            depth = len(match[1]) // 4 + 1
            path = [*path[:depth], match[2]]
            found[match[2]] = path[depth - 1]
    return found


ALL = [ResightError, *(found for name in tree(ResightError) for found in [vars(errors)[name]])]


def test_the_tree_drawn_is_the_tree_there_is() -> None:
    assert len(drawn()) > 15
    assert drawn() == tree(ResightError)


@pytest.mark.parametrize("kind", ALL)
def test_every_error_pickles_with_its_message(kind: type[ResightError]) -> None:
    again = pickle.loads(pickle.dumps(kind("what, where, way out")))
    assert type(again) is kind
    assert str(again) == "what, where, way out"


def test_overloaded_keeps_when_to_come_back() -> None:
    again = pickle.loads(pickle.dumps(Overloaded("the queue is full", retry_after_s=2.5)))
    assert (str(again), again.retry_after_s) == ("the queue is full", 2.5)
    assert Overloaded("full").retry_after_s == 1.0


def test_every_image_error_has_its_code_for_the_results_table() -> None:
    codes = {kind.__name__: kind.code for kind in ALL if issubclass(kind, ImageError)}
    assert codes == {
        "ImageError": "decode",
        "ImageUnsupported": "unsupported",
        "ImageUnreadable": "decode",
        "ImageTooLarge": "too_large",
    }


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("bad\n  file"), "bad file"),
        (ValueError("cannot read <_io.BytesIO object at 0x7f3a2b1c>"), "cannot read <_io.BytesIO>"),
        (ValueError("<Graph at 0x7F3A> has no end"), "<Graph> has no end"),
        (RuntimeError(), "RuntimeError"),
    ],
)
def test_addresses_and_lines_go(error: Exception, words: str) -> None:
    assert said(error) == words


def test_a_long_message_is_cut_at_a_word() -> None:
    assert said(ValueError("word " * 200)).endswith("word …")
    assert len(said(ValueError("word " * 200))) <= 400
    assert said(ValueError("one two three"), 9) == "one two …"
