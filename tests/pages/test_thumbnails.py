"""Pictures are made once, kept within a budget, and made again if their file is damaged."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import pages.thumbnails
from model_store.errors import ImageUnreadable, Overloaded
from pages.thumbnails import ThumbnailCache

SHA = "ab12" + "0" * 60
MIB = 2**20


class Maker:
    """Counts how often it makes its picture; waits for `go` if it is given."""

    def __init__(self, data: bytes = b"picture", go: asyncio.Event | None = None) -> None:
        self.data, self.go, self.calls = data, go, 0

    async def __call__(self) -> bytes:
        self.calls += 1
        if self.go:
            await self.go.wait()
        return self.data


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "thumbnails"


@pytest.fixture
def cache(folder: Path) -> Iterator[ThumbnailCache]:
    made = ThumbnailCache(folder, MIB, 2, max_pictures=3)
    yield made
    made.close()


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


async def test_a_picture_is_made_once_and_then_read(folder: Path, cache: ThumbnailCache) -> None:
    make = Maker()
    assert [await cache.get(SHA, "t320", make) for _ in range(3)] == [b"picture"] * 3
    assert make.calls == 1
    assert files(folder) == [folder / "ab" / "12" / f"{SHA}-t320.jpg"]
    other = ThumbnailCache(folder, MIB, 1)  # another process, or the next start
    assert await other.get(SHA, "t320", make) == b"picture"
    assert make.calls == 1
    await cache.get(SHA, "t640", make)
    await cache.get("cd" + SHA[2:], "t320", make)
    assert make.calls == 3
    other.close()


@pytest.mark.parametrize("damage", ["empty", "flipped", "folder"])
async def test_a_damaged_file_is_made_again(folder: Path, cache: ThumbnailCache, damage: str) -> None:
    make = Maker(b"picture" * 100)
    await cache.get(SHA, "t320", make)
    (file,) = files(folder)
    kept = file.read_bytes()
    broken = {"empty": b"", "flipped": bytes([kept[0] ^ 1]) + kept[1:]}
    if damage == "folder":
        file.unlink()
        file.mkdir()
    else:
        file.write_bytes(broken[damage])
    assert await cache.get(SHA, "t320", make) == make.data
    assert make.calls == 2
    if damage != "folder":  # its place cannot be written
        assert file.read_bytes() == kept


async def test_concurrent_requests_share_one_making(cache: ThumbnailCache) -> None:
    make = Maker(go=asyncio.Event())
    requests = [asyncio.create_task(cache.get(SHA, "t320", make)) for _ in range(20)]
    await asyncio.sleep(0)
    requests[0].cancel()  # its client is gone; the others still wait
    make.go.set()  # type: ignore[union-attr]
    assert await asyncio.gather(*requests[1:]) == [b"picture"] * 19
    assert make.calls == 1


async def test_an_error_reaches_all_that_wait_and_is_not_kept(folder: Path, cache: ThumbnailCache) -> None:
    async def fail() -> bytes:
        raise ImageUnreadable("damaged image/jpeg")

    got = await asyncio.gather(*(cache.get(SHA, "t320", fail) for _ in range(3)), return_exceptions=True)
    assert [type(error) for error in got] == [ImageUnreadable] * 3
    assert files(folder) == []
    assert await cache.get(SHA, "t320", Maker()) == b"picture"


async def test_requests_over_the_bound_are_refused(cache: ThumbnailCache) -> None:
    make = Maker(go=asyncio.Event())
    waiting = [asyncio.create_task(cache.get(SHA, f"t{n}", make)) for n in range(2)]
    waiting.append(asyncio.create_task(cache.make("original", make)))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="3 pictures are being made") as refused:
        await cache.get(SHA, "another", make)
    assert refused.value.retry_after_s
    with pytest.raises(Overloaded):
        await cache.make("another", make)
    shared = asyncio.create_task(cache.get(SHA, "t0", make))  # needs no place of its own
    await asyncio.sleep(0)
    make.go.set()  # type: ignore[union-attr]
    assert await asyncio.gather(*waiting, shared) == [b"picture"] * 4
    assert await cache.get(SHA, "another", make) == b"picture"


async def test_the_least_recently_used_are_removed(folder: Path) -> None:
    cache = ThumbnailCache(folder, 1000, 1)
    make = Maker(b"x" * 92)  # 100 bytes with the digest
    for number in range(9):
        await cache.get(SHA, f"t{number}", make)
    for age, number in enumerate([5, 1, 0, 2, 3, 4, 6, 7, 8]):
        path = folder / "ab" / "12" / f"{SHA}-t{number}.jpg"
        os.utime(path, (1e9 + age, 1e9 + age))
    await cache.get(SHA, "t5", make)  # used: it stays
    assert make.calls == 9
    for number in range(9, 12):
        await cache.get(SHA, f"t{number}", make)
    cache.close()
    left = {int(path.stem.split("-t")[1]) for path in files(folder)}
    assert sum(path.stat().st_size for path in files(folder)) <= 1000
    assert left == {3, 4, 5, 6, 7, 8, 9, 10, 11}


async def test_the_budget_holds_at_any_number_of_files(folder: Path) -> None:
    for start in range(2):  # the second start finds the files of the first
        cache = ThumbnailCache(folder, 1000, 2)
        for number in range(80):
            await cache.get(f"{number:02x}" + SHA, f"t{start}", Maker(bytes(number)))
        cache.close()
        assert 500 < sum(path.stat().st_size for path in files(folder)) <= 1000


async def test_the_rest_of_a_killed_process_is_removed_in_time(folder: Path) -> None:
    rest = folder / "ab" / "12" / ".making-x"
    rest.parent.mkdir(parents=True)
    rest.write_bytes(bytes(900))
    os.utime(rest, (1e9, 1e9))
    cache = ThumbnailCache(folder, 1000, 1)
    await cache.get(SHA, "t320", Maker())
    cache.close()
    assert rest not in files(folder)


async def test_a_full_disk_means_pictures_without_files(
    folder: Path, cache: ThumbnailCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    make = Maker()
    with monkeypatch.context() as patch:
        patch.setattr(pages.thumbnails.os, "replace", full)
        assert [await cache.get(SHA, "t320", make) for _ in range(2)] == [b"picture"] * 2
        assert files(folder) == []  # nor the rest of an attempt
    assert make.calls == 2
    await cache.get(SHA, "t320", make)
    assert len(files(folder)) == 1
