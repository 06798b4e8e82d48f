"""Words of other libraries: short, on one line, the same in every process."""

import pytest

from model_store.said import said


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
