"""Import pyarrow without pandas, which takes a quarter of a second, in processes that have no data frames.

pyarrow looks for pandas once, when `pyarrow.dataset` is imported. Without it, `pa.array` takes a series of pandas for a
plain sequence; `to_pandas` still works.
"""

from __future__ import annotations

import importlib
import os
import sys

POOL = "ARROW_DEFAULT_MEMORY_POOL"
"""Variable that pyarrow reads once, when it is imported; `pa.set_memory_pool` does not reach its readers of files."""


class _NoPandas:
    @staticmethod
    def find_spec(name: str, *_: object) -> None:
        if name == "pandas":
            raise ImportError(name)


def import_arrow_alone(pool: str = "") -> None:
    """Import it, with the allocator `pool` of Arrow unless the environment names one; child processes keep the default.

    A process that reads small files for days needs "system": the default, mimalloc, keeps the memory of threads that
    read, and grows by 0.2 MiB for each commit of uploads (docs/operate/scale.md).
    """
    chosen = {POOL: pool} if pool and POOL not in os.environ else {}
    os.environ.update(chosen)
    sys.meta_path.insert(0, _NoPandas)
    try:
        importlib.import_module("pyarrow.dataset")
    finally:
        sys.meta_path.remove(_NoPandas)
        for name in chosen:
            del os.environ[name]
