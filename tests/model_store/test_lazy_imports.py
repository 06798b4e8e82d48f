"""Stand-ins import at first use, and exist only for imports inside the block."""

from __future__ import annotations

import sys
from fractions import Fraction
from types import ModuleType
from typing import Any

import pytest

from model_store.lazy_imports import lazy_imports

CODE = """
with lazy_imports():
    import not_there
    from not_there.at_all import gone
    from fractions import Fraction
    from xml import sax
import calendar
"""


@pytest.fixture
def names() -> dict[str, Any]:
    found: dict[str, Any] = {"lazy_imports": lazy_imports}
    exec(CODE, found)
    return found


def test_nothing_is_imported_before_it_is_used(names: dict[str, Any]) -> None:
    with pytest.raises(ModuleNotFoundError, match="not_there"):
        names["not_there"].attribute  # noqa: B018
    with pytest.raises(ModuleNotFoundError, match="not_there"):
        names["gone"]()
    assert isinstance(names["calendar"], ModuleType)


def test_a_stand_in_is_called_asked_and_tested_like_what_it_stands_for(names: dict[str, Any]) -> None:
    half = names["Fraction"](1, 2)
    assert half == Fraction(1, 2)
    assert names["Fraction"].from_float(0.5) == half
    assert isinstance(half, names["Fraction"])
    assert not isinstance(0.5, names["Fraction"])
    assert names["sax"].SAXException is sys.modules["xml.sax"].SAXException


def test_imports_of_other_modules_are_left_alone() -> None:
    with lazy_imports():
        other: dict[str, Any] = {}
        exec("import decimal", other)
    assert isinstance(other["decimal"], ModuleType)
