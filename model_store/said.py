"""What other libraries say in their errors, as words for a message: one line, cut, no memory addresses."""

from __future__ import annotations

import re
from textwrap import shorten

MOST_CHARS = 400


def said(error: BaseException, most: int = MOST_CHARS) -> str:
    """The kind of the error where it says nothing. Addresses go: they are others in every process."""
    words = re.sub(r"( object)? at 0x[0-9a-fA-F]+", "", str(error)) or type(error).__name__
    return shorten(words, most, placeholder=" …")
