"""Import pyarrow without pandas, which takes a quarter of a second, in processes that have no data frames.

pyarrow looks for pandas once, when `pyarrow.dataset` is imported. Without it, `pa.array` takes a series of pandas for a
plain sequence; `to_pandas` still works.
"""

from __future__ import annotations

import importlib
import sys


class _NoPandas:
    @staticmethod
    def find_spec(name: str, *_: object) -> None:
        if name == "pandas":
            raise ImportError(name)


def import_arrow_alone() -> None:
    sys.meta_path.insert(0, _NoPandas)
    try:
        importlib.import_module("pyarrow.dataset")
    finally:
        sys.meta_path.remove(_NoPandas)
