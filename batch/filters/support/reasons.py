"""Format comparisons for reasons: "score 0.31 < 0.4", with just enough digits to show which number is larger."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np

DIGITS = 17
"""Decimal digits that distinguish any two float64."""


def compared(name: str, value: float, operator: Literal["<", "<=", ">", ">="], bound: float, unit: str = "") -> str:
    """Return "name value operator bound" for a value that is on that side of the bound."""
    unit = f" {unit}" if unit else ""
    return f"{name} {figure(value, bound)}{unit} {operator} {exact(bound)}{unit}"


def figure(value: float, bound: float) -> str:
    """Return `value` with the fewest digits, at least two, that keep it on its side of `bound`."""
    if value == bound:
        return exact(value)
    for digits in range(max(2, len(str(int(abs(value))))), DIGITS):
        text = f"{value:.{digits}g}"
        if (float(text) < bound, float(text) > bound) == (value < bound, value > bound):
            return text
    return exact(value)


@lru_cache(maxsize=1024)
def exact(value: float) -> str:
    """Return the shortest decimal without an exponent that identifies this float64."""
    return np.format_float_positional(value, trim="-")
