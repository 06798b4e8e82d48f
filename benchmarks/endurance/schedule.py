"""Draw the faults of a chaos run from its seed: the same seed, length and store give the same faults.

schedule(seed, seconds, store) -> (Fault, ...), ordered by time
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

KILL_EVERY_S = 25.0
QUIET_S = 10.0
"""Seconds without faults at the start, so that work exists that they can harm."""
LENGTHS_S, GAPS_S = (4.0, 20.0), (3.0, 12.0)
LOCAL = ("disk_tight", "disk_full", "clock", "token", "freeze")
REMOTE = ("s3_slow", "s3_refuse", "s3_lie", "s3_lose", "s3_hang", "clock", "token", "freeze")


@dataclass(frozen=True)
class Fault:
    """A fault from `at_s` for `seconds`; `pick` and `role` (0 to 1) choose the victim or the size."""

    at_s: float
    kind: str
    seconds: float
    pick: float
    role: float


def schedule(seed: int, seconds: float, store: str) -> tuple[Fault, ...]:
    """Return kills, and concurrently one other fault after the other. All end before `seconds`."""
    kills, others = random.Random(f"kills {seed}"), random.Random(f"others {seed}")
    kinds = LOCAL if store == "local" else REMOTE
    return tuple(sorted([*_kills(kills, seconds), *_others(others, seconds, kinds)], key=lambda fault: fault.at_s))


def _kills(draw: random.Random, seconds: float) -> list[Fault]:
    faults, at_s = list[Fault](), QUIET_S
    while (at_s := at_s + draw.expovariate(1 / KILL_EVERY_S)) < seconds:
        faults.append(Fault(round(at_s, 2), "kill", 0.0, draw.random(), draw.random()))
    return faults


def _others(draw: random.Random, seconds: float, kinds: Sequence[str]) -> list[Fault]:
    """Return faults of all kinds in random order, then again."""
    faults, at_s, left = list[Fault](), QUIET_S, list[str]()
    while True:
        left = left or draw.sample(kinds, len(kinds))
        at_s += draw.uniform(*GAPS_S)
        length_s = draw.uniform(*LENGTHS_S)
        if at_s + length_s >= seconds:
            return faults
        faults.append(Fault(round(at_s, 2), left.pop(), round(length_s, 2), draw.random(), draw.random()))
        at_s += length_s
