"""Parts of a filter run judged in this process: for a dry run, which needs no cluster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa

from batch.filters.evaluate import Evaluated, Question, evaluate


def here(parts: Iterable[pa.Table], question: Question, actors: int) -> Iterator[Evaluated]:
    """`actors` is one."""
    del actors
    return (evaluate(part, question) for part in parts)
