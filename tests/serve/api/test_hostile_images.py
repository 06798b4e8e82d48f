"""Hostile images through every door: each is answered as it deserves, and none costs more than it is worth."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI

from tests.hostile_bombs import animated_png, table_bombs, talkative
from tests.hostile_images import also_acceptable, expectation, hostile_bodies
from tests.serve.hostile import DETECT, PLACES, client, tried

ROOT = Path(__file__).resolve().parents[3]
STATUS = {"ok": 200, "note": 200, "unreadable": 400, "unsupported": 415, "too_large": 413}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    yield from tried(tmp_path_factory.mktemp("hostile"))


def wanted(name: str) -> set[int]:
    if name == "empty":
        return {400}
    return {STATUS[expectation[name]], STATUS[also_acceptable.get(name, expectation[name])]}


async def test_every_hostile_image_alone_is_answered_as_it_deserves(api: FastAPI) -> None:
    async with client(api) as asked:
        found = {name: (await asked.post(DETECT, content=body)).status_code for name, body in hostile_bodies().items()}
    assert {n: s for n, s in found.items() if s not in wanted(n)} == {}


async def test_and_so_it_is_in_a_form_of_many(api: FastAPI) -> None:
    bodies = list(hostile_bodies().items())[::3]
    found: dict[str, int] = {}
    async with client(api) as asked:
        for start in range(0, len(bodies), PLACES):
            files = [("image", (name, body)) for name, body in bodies[start : start + PLACES]]
            answer = await asked.post(DETECT, files=files)
            assert answer.status_code == 200, answer.text
            found |= {one["name"]: one["status"] for one in answer.json()["results"]}
    assert {n: s for n, s in found.items() if s not in wanted(n)} == {}
    assert len(found) == len(bodies)


@pytest.mark.parametrize(
    ("name", "mib"),
    [("jpeg_scans", 0.05), ("jpeg_segments", 0.1), ("png_chunks", 1.3), ("tiff_tags_that_overlap", 0.03)],
)
async def test_tables_that_cost_many_times_their_size_are_refused(api: FastAPI, name: str, mib: float) -> None:
    _, body = table_bombs(mib)[name]
    async with client(api) as asked:
        assert (await asked.post(DETECT, content=body)).status_code == 400


def decoded_elsewhere(tmp_path: Path, *bodies: bytes) -> subprocess.CompletedProcess[str]:
    """Decoded one by one in a process of its own; it prints how many warnings it remembers."""
    files = [tmp_path / str(i) for i in range(len(bodies))]
    for file, body in zip(files, bodies, strict=True):
        file.write_bytes(body)
    code = (
        "import contextlib, pathlib, sys\n"
        "from PIL import TiffImagePlugin\n"
        "from model_store.errors import ImageError\n"
        "from model_store.images.decode import decode\n"
        "for name in sys.argv[1:]:\n"
        "    with contextlib.suppress(ImageError):\n"
        "        decode(pathlib.Path(name).read_bytes())\n"
        "print(len(getattr(TiffImagePlugin, '__warningregistry__', {})))\n"
    )
    command = [sys.executable, "-c", code, *map(str, files)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_damaged_animation_does_not_end_the_process(tmp_path: Path) -> None:
    assert decoded_elsewhere(tmp_path, animated_png()).returncode == 0


def test_what_decoders_have_to_say_is_neither_written_nor_kept(tmp_path: Path) -> None:
    done = decoded_elsewhere(tmp_path, *talkative())
    assert done.stderr == ""
    assert int(done.stdout) <= 1
