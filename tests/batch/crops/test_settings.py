"""The key of snips: other files, another key; the same files, the same key."""

from __future__ import annotations

import hashlib
import json

import pytest

import batch.crops.settings
from batch.crops.settings import cut_of, snip_name
from batch.schedule.policy import Snips
from model_store.config import Thresholds
from tests.batch.box_bench import KEY
from tests.batch.crops.bench import model_of

PLAIN = Thresholds(default=0.5)


def key(snips: Snips | None = None, thresholds: Thresholds = PLAIN) -> str:
    return cut_of(snips or Snips(), model_of(thresholds).config).key


def test_the_key_is_the_digest_of_what_decides_the_files() -> None:
    text = '{"encoder":1,"least":[0.5,0.75],"margin_frac":0.1,"quality":90}'
    assert json.loads(text)
    wanted = hashlib.sha256(text.encode()).hexdigest()
    assert key(thresholds=Thresholds(default=0.5, per_label={"dog": 0.75})) == wanted


@pytest.mark.parametrize(
    "snips", [Snips(margin_frac=0.2), Snips(quality=91), Snips(min_score=0.25), Snips(min_score=0)]
)
def test_every_setting_is_in_the_key(snips: Snips) -> None:
    assert key(snips) != key()


def test_so_are_the_thresholds_of_the_model_unless_a_score_is_given() -> None:
    others = [Thresholds(default=0.6), Thresholds(default=0.5, per_label={"dog": 0.7})]
    assert len({key(thresholds=one) for one in [PLAIN, *others]}) == 3
    given = Snips(min_score=0.5)
    assert {key(given, one) for one in [PLAIN, *others]} == {key()}


def test_another_encoder_is_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key()
    monkeypatch.setattr(batch.crops.settings, "ENCODER", 2)
    assert key() != before


def test_a_name_has_both_keys_the_image_and_the_rank() -> None:
    name = snip_name("5" * 64, KEY, "ab" * 32, 3)
    assert name == f"{'5' * 16}/0123456789abcdef/ab/{'ab' * 32}-3.jpg"
