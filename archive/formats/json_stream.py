"""Write the items of a JSON array one by one, a line each, so that no array is in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any


@contextmanager
def json_array(file: IO[str]) -> Iterator[Callable[[Any], None]]:
    """Write an array to a file; the function that is returned adds an item."""
    separator = "["

    def add(item: Any) -> None:
        nonlocal separator
        file.write(f"{separator}\n{json.dumps(item, ensure_ascii=False, allow_nan=False)}")
        separator = ","

    yield add
    file.write("\n]" if separator == "," else "[]")
