"""What other libraries say in their errors, as words for a message: one line, cut, no memory addresses."""

from __future__ import annotations

import re
from textwrap import shorten

from pydantic import ValidationError

MOST_CHARS = 400
UNKNOWN = "unknown field: its name is misspelt, or the file is of a newer Resight"


def said(error: BaseException, most: int = MOST_CHARS) -> str:
    """The kind of the error where it says nothing. Addresses go: they are others in every process."""
    words = re.sub(r"( object)? at 0x[0-9a-fA-F]+", "", str(error)) or type(error).__name__
    return shorten(words, most, placeholder=" …")


def wrong_fields(error: ValidationError, whole: str) -> str:
    """Return each wrong field by its path, and why; `whole` stands for the file where no field is at fault."""
    return "; ".join(
        f"{'.'.join(map(str, item['loc'])) or whole}: "
        f"{UNKNOWN if item['type'] == 'extra_forbidden' else item['msg']}"
        for item in error.errors()
    )
