"""The recorder of uploads in a process of its own, which something befalls; and the same calls once more.

Task -> record_all(task): rounds of uploads, each recorded before the next is begun; what was acknowledged is in
the file `task.recorded`. After a death, whatever was not is sent again, as Ray sends calls that a dead actor left open.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

import archive.delta.tables
from archive.delta.tables import Tables
from archive.schemas import MEDIA
from serve.uploads.recorder import Recorder
from serve.uploads.uploads import RUN_ID, Upload
from tests.batch.crash.driver import TURN_S, rows_seen
from tests.batch.crash.faults import Fault, Faulty

ROUNDS = 3
FLUSH_S = 0.05


@dataclass(frozen=True)
class Task:
    """`images` are digests. `meet` is a barrier of all that write at once: they meet before the first round and
    after it.
    """

    tables: str
    root: str
    images: Sequence[str]
    key: str
    recorded: str
    orders: str
    fault: Fault | None = None
    meet: Any = None
    environment: Mapping[str, str] = field(default_factory=dict)


def upload(image: str, root: str, key: str) -> Upload:
    media = {
        "media_sha256": image,
        "source_root": root,
        "path": f"{image}.jpg",
        "size_bytes": 1,
        "ingested_at": datetime.now(UTC),
    }
    return Upload(pa.Table.from_pylist([media], schema=MEDIA), rows_seen([image], key, RUN_ID))


def record_all(task: Task) -> None:
    os.environ.update(task.environment)
    if task.fault:
        archive.delta.tables._commit = Faulty(task.fault, archive.delta.tables._commit, task.orders)
    asyncio.run(_record(task))


async def _record(task: Task) -> None:
    recorder = Recorder(Tables(task.tables), FLUSH_S)
    before = set(Path(task.recorded).read_text().split())
    left = [image for image in task.images if image not in before]

    async def one(image: str) -> None:
        await recorder.record(upload(image, task.root, task.key))
        with open(task.recorded, "a") as file:
            file.write(f"{image}\n")

    for turn in range(ROUNDS):
        if task.meet is not None and turn < 2:
            await asyncio.to_thread(task.meet.wait, TURN_S)
        await asyncio.gather(*map(one, left[turn::ROUNDS]))
