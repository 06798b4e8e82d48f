"""Index the vectors of one embedder by FAISS: a search reads a quarter of them instead of the whole table.

build(tables, of, folder) -> VectorIndex; find_index(tables, of, folder) -> VectorIndex, or why there is none
VectorIndex.nearest(vector, most) -> media_sha256, rank, cosine

FOLDER/OF/NAME/{lists.faiss, rows.arrow}. NAME is a digest of the table's data files. An index of other
rows is thus not found; it can be built again at any time. k-means divides the vectors into lists around centroids;
a search reads the lists of the nearest ones (Jégou et al. 2011). The vectors in them are those of the table, so its
cosines are exact, and it can only miss neighbours.
"""

# SWIG makes the classes of FAISS, without types:
# pyright: reportCallIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from archive.delta.scratch_db import scratch
from archive.delta.snapshot import data_files, scan, storage_errors
from archive.delta.sql_literal import literal
from archive.delta.tables import Tables
from archive.schemas import EMBEDDINGS
from archive.views.image_index_file import locked
from model_store.errors import BadRequest
from model_store.lazy_imports import lazy_imports
from model_store.machine import usable_memory_bytes
from model_store.storage import absolute
from model_store.storage_errors import storage_error

with lazy_imports():
    import faiss

Vectors = NDArray[np.float32]
INDEXED_FROM = 1_000_000
"""Vectors from which a search uses an index (docs/decisions/0035)."""
FORMAT = 1
READ_FRAC = 4
"""A search reads one of this many lists."""
PART, OF_LIST, ROUNDS = 50_000, 48, 8
"""Vectors that are added at once; vectors for each centroid, and rounds, of k-means."""
_NAMES = pa.schema([("media_sha256", pa.string()), ("rank", pa.int32())])


@dataclass(frozen=True, slots=True)
class IndexedVectors:
    """The vectors of an embedder, of the detections of an inference key."""

    inference_key: str
    embedder_key: str

    def folder(self, folder: Path) -> Path:
        return folder / f"{self.inference_key[:16]}-{self.embedder_key[:16]}"


class VectorIndex:
    """An open index: its files are mapped, so memory holds little more than the centroids.

    Raises RuntimeError, OSError if a file is damaged.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self._lists: Any = faiss.read_index(str(place / "lists.faiss"), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
        self._lists.nprobe = max(1, -(-self._lists.nlist // READ_FRAC))
        with pa.memory_map(str(place / "rows.arrow")) as file:
            self._rows = pa.ipc.open_file(file).read_all()
        if len(self._rows) != self._lists.ntotal:
            raise OSError(f"{len(self._rows)} rows for {self._lists.ntotal} vectors")

    def __len__(self) -> int:
        return len(self._rows)

    def nearest(self, vector: Vectors, most: int) -> pa.Table:
        """Return media_sha256, rank and cosine of up to `most` vectors near one of (size,), nearest first."""
        cosines, numbers = self._lists.search(vector.reshape(1, -1), min(most, len(self)))
        found = numbers[0] >= 0
        return self._rows.take(pa.array(numbers[0][found])).append_column("cosine", pa.array(cosines[0][found]))


def require_faiss() -> None:
    """Raise BadRequest if FAISS is not installed."""
    try:
        faiss.IO_FLAG_READ_ONLY  # noqa: B018
    except ImportError as error:
        raise BadRequest(f"an index needs FAISS: pip install 'resight[index]' ({error})") from error


def find_index(tables: Tables, of: IndexedVectors, folder: Path) -> VectorIndex | str:
    """Return the index of the newest rows, or the reason why there is none."""
    place = of.folder(folder) / _name(tables, of)
    try:
        require_faiss()
        if place.exists():
            return VectorIndex(place)
    except BadRequest as error:
        return str(error)
    except (RuntimeError, OSError, pa.ArrowException) as error:
        return f"the index at {place} cannot be read ({error})"
    others = any(of.folder(folder).glob("[0-9a-f]*"))
    return "the index is older than the table" if others else f"no index of them is in {folder}"


def build(tables: Tables, of: IndexedVectors, folder: Path) -> VectorIndex:
    """Build the index of the newest rows, in place of older ones. Processes take turns.

    The index is made in memory: 1 GiB for 10^6 vectors of 512 numbers, and 1 GiB for reading. Raises BadRequest without
    FAISS or vectors, or with too little memory; StorageUnreachable, StorageFull.
    """
    require_faiss()
    with locked(of.folder(folder)):
        place = of.folder(folder) / _name(tables, of)
        try:
            temporary = of.folder(folder) / ".new"
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            _write(tables, of, temporary)
            for old in of.folder(folder).glob("[0-9a-f]*"):
                shutil.rmtree(old)
            temporary.rename(place)
            return VectorIndex(place)
        except (RuntimeError, OSError) as error:  # RuntimeError is of FAISS
            raise storage_error(f"build the index of vectors in {folder}", error) from error


def _name(tables: Tables, of: IndexedVectors) -> str:
    table = tables.existing("embeddings")
    files = sorted(file.path for file in data_files(table, of.inference_key)) if table else []
    text = "\n".join([str(FORMAT), absolute(tables.url), of.inference_key, of.embedder_key, *files])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _write(tables: Tables, of: IndexedVectors, place: Path) -> None:
    with _stored(tables, of) as sql:
        ((count,),) = sql.execute("select count(*) from vectors").fetchall()
        if not count:
            raise BadRequest("no vectors to index: run resight embed --model NAME first")
        ((size,),) = sql.execute("select len(vector) from vectors limit 1").fetchall()
        _require_memory(count * size * 2)
        lists = max(1, min(round(math.sqrt(count)), count // OF_LIST))
        index: Any = faiss.IndexIVFScalarQuantizer(
            faiss.IndexFlatIP(size),
            *(size, lists, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT),
            False,  # vectors as they are, not their differences from centroids
        )
        index.cp.niter, index.cp.spherical, index.cp.max_points_per_centroid = ROUNDS, True, OF_LIST
        one_of = max(1, count // (lists * OF_LIST))
        some = sql.sql(f"select vector from vectors where hash(media_sha256, rank) % {one_of} = 0").to_arrow_table()
        index.train(vectors_of(some))
        all_rows = sql.sql("select media_sha256, rank, vector from vectors")
        with pa.OSFile(str(place / "rows.arrow"), "wb") as file, pa.ipc.new_file(file, _NAMES) as writer:
            for batch in all_rows.to_arrow_reader(PART):
                rows = pa.Table.from_batches([batch])
                writer.write_table(rows.select(_NAMES.names))
                index.add(vectors_of(rows))
    faiss.write_index(index, str(place / "lists.faiss"))


def _require_memory(needed: int) -> None:
    if needed > usable_memory_bytes() // 2:
        raise BadRequest(f"an index of these vectors needs {needed >> 20} MiB, more than half of the machine's memory")


@contextmanager
def _stored(tables: Tables, of: IndexedVectors) -> Iterator[Any]:
    with storage_errors(tables), scratch("vectors") as sql:
        scan(sql, "stored", tables.existing("embeddings"), EMBEDDINGS, of.inference_key)
        of_embedder = f"embedder_key = {literal(of.embedder_key)} and status = 'ok'"
        sql.execute(f"create temp view vectors as from stored where {of_embedder}")
        yield sql


def vectors_of(rows: pa.Table) -> Vectors:
    """Return the column `vector` as (n, size)."""
    flat = rows["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return flat.astype(np.float32).reshape(len(rows), -1) if len(rows) else np.zeros((0, 0), np.float32)
