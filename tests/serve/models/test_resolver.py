"""References of requests, resolved over a real store folder."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from model_store.errors import SOON_S, Forbidden, ModelNotFound, ModelNotReady, ModelRefused, Overloaded, ResightError
from model_store.names import VersionId, parse_ref
from serve.models.alias_poller import AliasTable
from serve.models.resolver import loads_if
from serve.rollout.state import AliasState, ModelState
from tests.fixtures_local import write_json
from tests.serve.models.shelf import Shelf, state, stocked, write_state


async def test_the_name_of_a_model_with_one_version_is_as_if_that_was_named_exactly(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.add("deer", "1")
    await shelf.aliases.refresh()
    assert shelf.loaded == [], "nothing is loaded for a name that nobody asked for"
    with loads_if(allowed=False), pytest.raises(Forbidden, match="deer@1 is not loaded here"):
        await shelf.resolver.get("deer")
    resident = await shelf.resolver.get("deer")
    assert (str(resident.detector), resident.alias) == ("detector of deer@1", None)
    with loads_if(allowed=False):
        assert await shelf.answers("deer:production") == "detector of deer@1"
    shelf.add("deer", "2")
    await shelf.aliases.refresh()
    with pytest.raises(ModelNotFound, match=r"deer@1, deer@2\), or set the alias"):
        await shelf.resolver.get("deer")
    shelf.alias("deer", production="2")
    assert await shelf.answers("deer") == "detector of deer@2"
    shelf.add("bee", "1")
    assert await shelf.answers("bee") == "detector of bee@1", "added since the last look"


async def test_a_canary_answers_its_share_and_never_fails_a_request(shelf: Shelf) -> None:
    share = {"version": "2", "percent": 10}
    write_state(shelf.store, "deer", state(1, "1", canary=share))
    await shelf.aliases.refresh()
    assert shelf.loaded == ["deer@1", "deer@2"]
    versions = [str((await shelf.resolver.get("deer", i / 1000)).detector) for i in range(1000)]
    assert versions.count("detector of deer@2") == 100
    assert (await shelf.resolver.get("deer", 0.0)).alias == "production"
    del shelf.models._loaded[VersionId("deer", "2")]
    assert str((await shelf.resolver.get("deer", 0.0)).detector) == "detector of deer@1"


async def test_a_shadow_is_shown_its_share(shelf: Shelf) -> None:
    share = {"version": "2", "percent": 25}
    write_state(shelf.store, "deer", state(1, "1", shadow=share))
    await shelf.aliases.refresh()
    seen = [shelf.resolver.shadow("deer", "production", i / 100) for i in range(100)]
    seen = [detector and str(detector) for detector in seen]
    assert seen == ["detector of deer@2"] * 25 + [None] * 75
    assert shelf.resolver.shadow("deer", None, 0.0) is None
    assert await shelf.answers("deer") == "detector of deer@1"


@pytest.mark.parametrize("error", [Overloaded("16 versions are being proved", 60.0), ModelRefused("its probe fails")])
async def test_an_alias_may_answer_soon_if_the_error_of_its_version_ends_by_itself(
    tmp_path: Path, error: ResightError
) -> None:
    shelf = stocked(tmp_path, has_rollout=True, retry_s=60.0)
    await shelf.aliases.start()
    shelf.add("ape", "1", "2")
    shelf.alias("ape", production="1")
    shelf.prover.errors["ape@1"] = error
    write_state(shelf.store, "ape", state(1, "1"))
    for _ in range(2):  # the second one is not tried again
        with pytest.raises(ModelNotReady, match=f"ape@1: {error}") as raised:
            await shelf.answers("ape:production")
        assert raised.value.retry_after_s == error.retry_after_s
    assert shelf.prover.proved == ["deer@1", "ape@1"]


async def test_who_may_not_load_gets_what_is_here_aliased_or_held_by_a_run(shelf: Shelf) -> None:
    shelf.add("deer", "3", "4")
    await shelf.aliases.refresh()
    await shelf.answers("deer@2")
    shelf.models.lease(VersionId("deer", "3"), "run a", 60)
    del shelf.models._loaded[VersionId("deer", "1")]
    with loads_if(allowed=False):
        for version in ("1", "2", "3"):
            assert await shelf.answers(f"deer@{version}") == f"detector of deer@{version}"
        with pytest.raises(Forbidden, match="deer@4 is not loaded here.*scope admin"):
            await shelf.answers("deer@4")
        with pytest.raises(ModelNotFound), loads_if(allowed=True):
            await shelf.answers("deer@9")
        with pytest.raises(Forbidden), loads_if(allowed=True):
            await shelf.answers("deer@4")
    assert await shelf.answers("deer@4") == "detector of deer@4"


async def test_an_exact_version_is_loaded_once_under_concurrent_requests(tmp_path: Path) -> None:
    gate = threading.Event()
    shelf = Shelf(tmp_path)
    shelf.add("deer", "1")
    load = shelf.models._load

    def load_at_the_gate(version: VersionId, digest: str) -> Any:
        assert gate.wait(20)
        return load(version, digest)

    shelf.models._load = load_at_the_gate
    asking = [asyncio.create_task(shelf.answers("deer@1")) for _ in range(8)]
    await asyncio.sleep(0)
    gate.set()
    assert set(await asyncio.gather(*asking)) == {"detector of deer@1"}
    assert shelf.loads == ["deer@1"]


@pytest.mark.parametrize(("ref", "answers"), [("deer", True), ("deer:production", True), ("deer:staging", False)])
@pytest.mark.parametrize("is_set", [True, False])
def test_the_only_version_answers_for_production_alone_and_not_once_that_is_set(
    ref: str, answers: bool, is_set: bool
) -> None:
    state = ModelState(aliases={"production": AliasState(active="1")} if is_set else {})
    table = AliasTable({"deer": state}, {"deer": VersionId("deer", "2")})
    only = table.only_version(parse_ref(ref))
    assert only == (VersionId("deer", "2") if answers and not is_set else None)
    found = table.resolve(parse_ref(ref), 1.0, ())
    assert found == ((VersionId("deer", "1"), "production") if answers and is_set else (only, None) if only else None)


async def test_a_replica_born_late_sees_a_switch_before_its_first_answers(shelf: Shelf) -> None:
    await shelf.aliases.refresh()
    write_state(shelf.store, "deer", state(1, "2"))
    assert await shelf.answers("deer") == "detector of deer@2"
    write_state(shelf.store, "deer", state(2, "1"))
    assert await shelf.answers("deer") == "detector of deer@1"
    shelf.resolver._young_until = 0.0
    write_state(shelf.store, "deer", state(3, "2"))
    assert await shelf.answers("deer") == "detector of deer@1", "grown up: it is told, or looks later"
    await shelf.aliases.refresh()
    assert await shelf.answers("deer") == "detector of deer@2"


async def test_where_a_rollout_proves_first_a_new_alias_is_not_loaded_unproved(tmp_path: Path) -> None:
    shelf = stocked(tmp_path, has_rollout=True)
    await shelf.aliases.start()
    shelf.alias("deer", production="1", staging="2")
    await shelf.aliases.refresh()
    assert shelf.loads == ["deer@1"]
    with pytest.raises(ModelNotReady, match="it is being proved, or was refused") as raised:
        await shelf.answers("deer:staging")
    assert raised.value.retry_after_s == SOON_S
    assert await shelf.answers("deer") == "detector of deer@1"


async def test_a_version_to_go_back_to_is_not_loaded_by_its_name_after_its_files_were_replaced(shelf: Shelf) -> None:
    rolled_out = (await shelf.prover.prove(VersionId("deer", "1"))).digest
    earlier = state(1, "2", previous=("1",)).model_copy(update={"digests": {"1": rolled_out}})
    write_state(shelf.store, "deer", earlier)
    shelf.alias("deer", production="2")
    await shelf.aliases.refresh()
    write_json(shelf.place / "deer" / "1" / "READY", {"files": {"model.onnx": "0" * 64}})
    with pytest.raises(ModelRefused, match="the files of deer@1 were replaced"):
        await shelf.answers("deer@1")
    assert shelf.loads == ["deer@2"]
