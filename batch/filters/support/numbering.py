"""Numbers in place of texts, which numpy compares and counts faster."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def numbered(values: NDArray[np.object_]) -> tuple[NDArray[np.intp], dict[str | None, int]]:
    """Return a number from 0 for each value, (n,), and the mapping; equal values have equal numbers."""
    numbers: dict[str | None, int] = {}
    of = (numbers.setdefault(value, len(numbers)) for value in values)
    return np.fromiter(of, np.intp, len(values)), numbers
