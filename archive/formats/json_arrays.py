"""Write and read JSON arrays of any size in constant memory: one item at a time.

with json_array(file) as add: add(item), add(item), …
members(file, "images") -> ("info", {…}), ("images", item), ("images", item), …, of an object with an array
A single value other than that array has at most MAX_CHARS characters.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

CHUNK_CHARS = 2**20
MAX_CHARS = 16 * 2**20
"""Maximum length of one value in characters."""
LOOK_AHEAD = 4
"""Characters that must follow a value in the window: those of `1` may be the first ones of `1e+5`."""
_SPACE = " \t\n\r"


@contextmanager
def json_array(file: IO[str]) -> Iterator[Callable[[Any], None]]:
    """Write an array to a file, a line for each item; the function that is returned adds one."""
    separator = "["

    def add(item: Any) -> None:
        nonlocal separator
        file.write(f"{separator}\n{json.dumps(item, ensure_ascii=False, allow_nan=False)}")
        separator = ","

    yield add
    file.write("\n]" if separator == "," else "[]")


def members(file: IO[str], streamed: str) -> Iterator[tuple[str, Any]]:
    """Yield the members of the top-level object by name; those of the array `streamed` one by one.

    Raises ValueError for text that is not such an object, for a name that occurs twice, and for bytes that are not
    UTF-8, with the place.
    """
    text, names = _Text(file), set[str]()
    text.require("{", "an object is required")
    if text.accept("}"):
        return
    while True:
        name = text.value()
        if not isinstance(name, str) or name in names:
            raise ValueError(f"{text.place}: a name that does not occur twice is required")
        names.add(name)
        text.require(":", f"':' is required after \"{name}\"")
        if name != streamed:
            yield name, text.value()
        else:
            text.require("[", f'"{name}" must be an array')
            yield from ((name, item) for item in _items(text))
        if text.accept("}"):
            break
        text.require(",", "',' or '}' is required")
    if text.peek():
        raise ValueError(f"{text.place}: nothing may follow the object")


def _items(text: _Text) -> Iterator[Any]:
    if text.accept("]"):
        return
    while True:
        yield text.value()
        if text.accept("]"):
            return
        text.require(",", "',' or ']' is required")


def _reject(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


class _Text:
    """A window on the text of a file, that moves forward."""

    def __init__(self, file: IO[str]) -> None:
        self._file, self._text, self._at, self._before, self._ended = file, "", 0, 0, False
        self._decoder = json.JSONDecoder(parse_constant=_reject)

    @property
    def place(self) -> str:
        return f"character {self._before + self._at + 1}"

    def peek(self) -> str:
        """Return the next character that is not white space, "" at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more(CHUNK_CHARS):
                return ""

    def accept(self, character: str) -> bool:
        found = self.peek() == character
        self._at += found
        return found

    def require(self, character: str, words: str) -> None:
        if not self.accept(character):
            raise ValueError(f"{self.place}: {words}" if self.peek() else "the file ends too early")

    def value(self) -> Any:
        """Return the next value. Raises ValueError if it is damaged, cut off or too long."""
        self.peek()
        chars = CHUNK_CHARS
        while True:
            try:
                found, end = self._decoder.raw_decode(self._text, self._at)
            except RecursionError as error:
                raise ValueError(f"{self.place}: nested too deeply") from error
            except json.JSONDecodeError as error:
                where = f"character {self._before + error.pos + 1}"
                cut_off = error.pos >= len(self._text) - 1
                if len(self._text) - self._at < MAX_CHARS and self._more(chars):
                    chars *= 2
                    continue
                words = "the file ends too early" if cut_off else error.msg
                raise ValueError(f"{where}: {words}") from error
            if end > len(self._text) - LOOK_AHEAD and self._more(chars):
                continue
            self._require_characters(found, end)
            self._at = end
            return found

    def _require_characters(self, value: Any, end: int) -> None:
        """Raise ValueError for escapes that are half of a character, as UTF-8 cannot store them."""
        if "\\u" in self._text[self._at : end]:
            try:
                json.dumps(value, ensure_ascii=False).encode()
            except UnicodeEncodeError as error:
                raise ValueError(f"{self.place}: a text of the value is not Unicode") from error

    def _more(self, chars: int) -> bool:
        """Read on; return whether there was more."""
        read = "" if self._ended else self._file.read(chars)
        self._ended = not read
        if read:
            self._text, self._before = self._text[self._at :] + read, self._before + self._at
            self._at = 0
        return bool(read)
