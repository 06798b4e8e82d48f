"""Proofs are made once per files, shared, bounded, and kept; a version that ends its process is proved again."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from model_store.errors import ModelNotReady, ModelRefused, Overloaded
from model_store.names import VersionId
from model_store.storage import Folder
from model_store.store import ModelStore
from serve.rollout import proofs
from serve.rollout.proofs import Proofs, forget_loads
from serve.rollout.sandbox import Proof
from serve.settings import Pool
from tests.fixtures_local import motion_store, write_files, write_json

ONE, TWO = VersionId("blobs", "1"), VersionId("blobs", "2")


class Bench:
    """Proofs for a store with blobs@1, blobs@2 and deer@1; `proved` lists the runs."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.store = motion_store(place / "models", "1", "2")
        for name in ("deer", *(f"moth{i}" for i in range(20))):
            for file in ("config.json", "READY"):
                data = self.store.folder.read(f"blobs/1/{file}")
                self.store.folder.write(f"{name}/1/{file}", data)
        self.proved: list[str] = []
        self.refuses: dict[str, Exception] = {}
        self.hangs: set[str] = set()
        self.released = threading.Event()
        self.alive = {"a", "b", "c", "d"}
        self.hardware = Pool(threads=1)
        self.proofs = self.again()

    def again(self) -> Proofs:
        """Return proofs with the same folder, like a restarted process."""
        return Proofs(
            ModelStore(self.store.url),
            Folder(str(self.place / "home" / "proofs")),
            self._run,
            lambda _: self.hardware,
            lambda holder: holder in self.alive,
        )

    def _run(self, version: VersionId, digest: str) -> Proof:
        self.proved.append(str(version))
        if str(version) in self.hangs:
            assert self.released.wait(60)
        if str(version) in self.refuses:
            raise self.refuses[str(version)]
        return Proof(7 << 20, 0.1, digest)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.released.set()


async def begun(bench: Bench, count: int) -> None:
    while len(bench.proved) < count:
        await asyncio.sleep(0.01)


async def test_many_that_ask_at_once_share_one_proof(bench: Bench) -> None:
    found = await asyncio.gather(*(bench.proofs.of(ONE) for _ in range(20)))
    assert {proof.rss_bytes for proof in found} == {7 << 20}
    assert found[0].digest == bench.store.describe(ONE).digest
    await bench.proofs.of(ONE)
    assert bench.proved == ["blobs@1"]


async def test_callers_that_go_away_do_not_multiply_the_work(bench: Bench) -> None:
    bench.hangs = {"blobs@1"}
    for _ in range(8):
        asking = asyncio.create_task(bench.proofs.of(ONE))
        await begun(bench, 1)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    bench.released.set()
    await bench.proofs.of(ONE)
    assert bench.proved == ["blobs@1"]


async def test_a_refusal_answers_for_a_while_and_an_operation_or_a_repair_proves_again(bench: Bench) -> None:
    bench.refuses = {"blobs@1": ModelRefused("its graph is odd")}
    for _ in range(3):
        with pytest.raises(ModelRefused, match="its graph is odd"):
            await bench.proofs.of(ONE)
    assert bench.proved == ["blobs@1"]
    with pytest.raises(ModelRefused, match="its graph is odd"):
        await bench.proofs.of(ONE, again=True)
    assert bench.proved == ["blobs@1"] * 2
    bench.refuses = {}
    with pytest.raises(ModelRefused):
        await bench.proofs.of(ONE)
    bench.store.folder.write("blobs/1/config.json", bench.store.folder.read("blobs/1/config.json"))  # a repair
    assert await bench.proofs.of(ONE)


async def test_a_refusal_is_not_repeated_for_ever(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.refuses = {"blobs@1": ModelRefused("its graph is odd")}
    with pytest.raises(ModelRefused):
        await bench.proofs.of(ONE)
    bench.refuses = {}
    monkeypatch.setattr(proofs, "REFUSED_S", -1.0)
    bench.proofs = bench.again()
    assert await bench.proofs.of(ONE)


async def test_a_version_that_hangs_does_not_delay_other_models(bench: Bench) -> None:
    bench.hangs = {"blobs@1"}
    hanging = asyncio.create_task(bench.proofs.of(ONE))
    await begun(bench, 1)
    behind = asyncio.create_task(bench.proofs.of(TWO))
    await asyncio.wait_for(bench.proofs.of(VersionId("deer", "1")), 60)
    assert sorted(bench.proved) == ["blobs@1", "deer@1"], "one at a time of each model"
    bench.released.set()
    await asyncio.gather(hanging, behind)
    assert sorted(bench.proved) == ["blobs@1", "blobs@2", "deer@1"]


async def test_what_waits_is_bounded_and_what_is_proved_does_not_wait(bench: Bench) -> None:
    await bench.proofs.of(ONE)
    moths = [VersionId(f"moth{i}", "1") for i in range(proofs.MAX_PROOFS)]
    bench.hangs = {str(moth) for moth in moths}
    asking = [asyncio.create_task(bench.proofs.of(moth)) for moth in moths]
    await begun(bench, 1 + len(moths))
    with pytest.raises(Overloaded) as raised:
        await bench.proofs.of(VersionId("deer", "1"))
    assert raised.value.retry_after_s > 0
    assert await bench.proofs.of(ONE)
    joined = asyncio.create_task(bench.proofs.of(moths[0]))
    await asyncio.sleep(0)
    bench.released.set()
    await asyncio.gather(*asking, joined)


async def test_a_successor_knows_what_was_proved_here_and_not_on_other_hardware(bench: Bench) -> None:
    await bench.proofs.of(ONE)
    await bench.again().of(ONE)
    assert bench.proved == ["blobs@1"]
    bench.hardware = Pool(threads=1, num_gpus=1.0)
    await bench.again().of(ONE)
    assert bench.proved == ["blobs@1"] * 2


async def test_other_runtimes_are_another_proof(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.proofs.of(ONE)
    monkeypatch.setattr(proofs, "software", lambda: {"libraries": {"onnxruntime": "99"}})
    await bench.again().of(ONE)
    assert bench.proved == ["blobs@1"] * 2


async def test_other_files_under_the_same_name_are_proved(bench: Bench) -> None:
    first = await bench.proofs.of(ONE)
    digests = bench.store.digests(ONE)
    write_json(bench.place / "models/blobs/1/READY", {"files": {**digests, "README.md": "0" * 64}})
    second = await bench.proofs.of(ONE)
    assert first.digest != second.digest
    assert bench.proved == ["blobs@1"] * 2


@pytest.mark.parametrize("successor", [False, True])
async def test_what_ended_the_process_that_loaded_it_is_proved_again(bench: Bench, successor: bool) -> None:
    await bench.proofs.of(ONE)
    await bench.proofs.loading(ONE, "a")
    await bench.proofs.loading(ONE, "b")
    bench.alive.discard("a")
    if successor:
        bench.proofs = bench.again()
    with pytest.raises(ModelNotReady, match="must be proved again") as raised:
        await bench.proofs.loading(ONE, "c")
    assert raised.value.retry_after_s == 1
    await bench.proofs.of(ONE)
    assert bench.proved == ["blobs@1"] * 2
    await bench.proofs.loading(ONE, "c")
    await bench.proofs.loaded(ONE, "b")
    await bench.proofs.loaded(ONE, "c")
    bench.alive.clear()
    await bench.proofs.of(ONE)
    assert bench.proved == ["blobs@1"] * 2, "they ended later, for another reason"


@pytest.mark.parametrize("of_all", [False, True])
async def test_the_end_of_a_process_on_request_is_no_fault_of_what_it_loads(bench: Bench, of_all: bool) -> None:
    await bench.proofs.of(ONE)
    await bench.proofs.loading(ONE, "a")
    if of_all:
        folder = write_files(bench.place / "home" / "proofs", {".writing-1": b"{"})
        forget_loads(Folder(str(folder)))
    else:
        await bench.proofs.ended("a")
        with pytest.raises(ModelNotReady):
            await bench.proofs.loading(ONE, "a")
    bench.alive.discard("a")
    await bench.again().of(ONE)
    assert bench.proved == ["blobs@1"]


async def test_a_version_that_ends_process_after_process_is_refused_until_it_is_promoted(bench: Bench) -> None:
    for holder in "abc":
        await bench.proofs.of(ONE)
        await bench.proofs.loading(ONE, holder)
        bench.alive.discard(holder)
    for known in (bench.proofs, bench.again()):
        with pytest.raises(ModelRefused, match="has ended 3 processes that loaded it"):
            await known.of(ONE)
    assert len(bench.proved) == 3
    assert await bench.proofs.of(TWO), "other versions are as they were"
    assert await bench.proofs.of(ONE, again=True)


async def test_a_home_that_cannot_be_written_costs_only_the_next_proof(bench: Bench) -> None:
    (bench.place / "home").write_text("no folder")
    await bench.proofs.of(ONE)
    await bench.proofs.of(ONE)
    assert bench.proved == ["blobs@1"]
    await bench.again().of(ONE)
    assert bench.proved == ["blobs@1"] * 2
