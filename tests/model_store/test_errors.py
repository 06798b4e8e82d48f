"""Every error crosses a process border, and texts of libraries become one short line."""

import pickle

import pytest

from model_store import errors
from model_store.errors import ImageError, Overloaded, ResightError, error_text

ALL = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ResightError)]


def test_every_error_pickles_with_its_message() -> None:
    assert len(ALL) > 30
    for kind in ALL:
        again = pickle.loads(pickle.dumps(kind("what, where, way out")))
        assert (type(again), str(again)) == (kind, "what, where, way out")


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
def test_addresses_and_lines_go_and_long_messages_are_cut_at_a_word(error: Exception, words: str) -> None:
    assert error_text(error) == words
    assert error_text(ValueError("one two three"), 9) == "one two …"
