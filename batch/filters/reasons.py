"""Figures as people read them in a reason: "score 0.31 < 0.4", in as few digits as still show which is more."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np

DIGITS = 17
"""As many as tell any two float64 apart."""


def compared(
    name: str, value: float, operator: Literal["<", ">", ">="], bound: float, unit: str = ""
) -> str:
    """`name value operator bound`, for a value that is on that side of the bound."""
    unit = f" {unit}" if unit else ""
    return f"{name} {figure(value, bound)}{unit} {operator} {exact(bound)}{unit}"


def figure(value: float, bound: float) -> str:
    """`value` in two digits or more, as many as it takes to stay on its side of `bound`."""
    if value == bound:
        return exact(value)
    for digits in range(max(2, len(str(int(abs(value))))), DIGITS):
        text = f"{value:.{digits}g}"
        if (float(text) < bound, float(text) > bound) == (value < bound, value > bound):
            return text
    return exact(value)


@lru_cache(maxsize=1024)
def exact(value: float) -> str:
    """The shortest decimals that are this number and no other, without an exponent."""
    return np.format_float_positional(value, trim="-")
