"""A sweep in rows and sentences: what was found, what can be done about it, and how. Pure."""

from __future__ import annotations

from typing import Any

from serve.tune.choice import frontier, nearest, with_same_key
from serve.tune.facts import Measured, Tuned
from serve.tune.point import Hardware, Point

LEAST_REQUESTS = 100
"""Fewer, and p99 is the slowest of them."""


def rows(tuned: Tuned) -> list[dict[str, Any]]:
    """In the order in which they were measured."""
    beyond = [one.point for one in frontier(with_same_key(tuned.points, tuned.current))]
    return [_row(tuned, one, one.point in beyond) for one in tuned.points]


def _row(tuned: Tuned, one: Measured, on_frontier: bool) -> dict[str, Any]:
    point = one.point
    marks = [
        name
        for name, holds in (
            ("current", point == tuned.current),
            ("best", point == tuned.best),
            ("applies", point == tuned.applies),
            ("frontier", on_frontier),
            ("another key", point.jpeg_shrink != tuned.current.jpeg_shrink),
            ("failed", bool(one.failed)),
        )
        if holds
    ]
    return {
        **point.model_dump(),
        "images_per_s": round(one.images_per_s, 1),
        "p50_ms": _rounded(one.p50_ms),
        "p99_ms": _rounded(one.p99_ms),
        "cpu_ms": round(one.cpu_ms, 1),
        "requests": one.requests,
        "meets": one.meets(tuned.objective_p99_ms),
        "what": ", ".join(marks),
    }


def summary(tuned: Tuned) -> dict[str, Any]:
    """What programs need of it; `tune.json` in the report's folder has the raw samples too."""
    return {
        **tuned.model_dump(exclude={"points"}),
        "points": rows(tuned),
        "verdict": verdict(tuned),
    }


def verdict(tuned: Tuned) -> str:
    """One sentence: what is best, and by how much."""
    now = tuned.of(tuned.current)
    if tuned.best is None:
        return missed(tuned)
    if tuned.best == tuned.current:
        return (
            f"the current settings are the best, or as good within {tuned.margin:.0%}: {_of(now)}"
        )
    return f"best: {_gain(now, tuned.of(tuned.best))}"


def missed(tuned: Tuned) -> str:
    """No point meets the objective: the nearest, and what else could be done."""
    again = [one for one in tuned.points if len(one.rounds) > 1]  # one round may be luck
    near = nearest(with_same_key(again, tuned.current))
    words = f"nearest is {near.point.words}: {_of(near)}" if near else "no point was answered"
    return (
        f"no setting of {tuned.model} here meets p99 {tuned.objective_p99_ms:g} ms at {tuned.load_share:.0%} of its "
        f"throughput; {words}. A faster model, more cores, or a longer objective is needed"
    )


def advice(tuned: Tuned, out: str) -> list[str]:
    """What to do about it, each with the command or the lines to set. Nothing where the current settings stay."""
    return [*to_apply(tuned, out), *to_set(tuned)]


def to_apply(tuned: Tuned, out: str) -> list[str]:
    """What --apply does; at most one."""
    if tuned.applies is None or tuned.applies == tuned.current:
        return []
    return [
        f"{tuned.model} as the pool is now: {_gain(tuned.of(tuned.current), tuned.of(tuned.applies))}\n"
        f"  resight tune {tuned.model} --from {out} --apply"
    ]


def to_set(tuned: Tuned) -> list[str]:
    """What a person has to write; at most one."""
    if tuned.best is None or tuned.best.hardware == tuned.current.hardware:
        return []
    return [
        f"the pool '{tuned.pool}' of this machine: {_gain(tuned.of(tuned.current), tuned.of(tuned.best))}\n"
        f"  in serve/app.yaml, {_place(tuned.pool)}: {pool_lines(tuned.best, tuned.current)}; then tune again"
    ]


def pool_lines(best: Point, current: Point) -> str:
    """What differs, as it is written in the application file."""
    fields = Hardware._fields
    new, old = best.hardware._asdict(), current.hardware._asdict()
    return ", ".join(f"{name}: {new[name]}" for name in fields if new[name] != old[name])


def doubts(tuned: Tuned) -> list[str]:
    """Why these figures may mean less than they seem to."""
    found: list[str] = []
    if tuned.machine.others_frac > 0.1:
        found.append(busy(tuned.machine.others_frac))
    if tuned.unsteady > 0.1:
        rates = [one.images_per_s for one in tuned.of(tuned.current).rounds]
        found.append(
            f"the current settings alone measured from {min(rates):.1f} to {max(rates):.1f} images/s: this machine "
            f"was not steady, and what differs by less than {tuned.margin:.0%} is taken for equal"
        )
    few = min((one.requests for one in tuned.points if one.rounds), default=0)
    if few < LEAST_REQUESTS:
        found.append(
            f"p99 of some points is of {few} requests, so nearly their slowest one: measure longer, with --seconds"
        )
    found += [f"{one.point.words}: {one.failed}" for one in tuned.points if one.failed]
    return found


def busy(others_frac: float) -> str:
    return f"others use {others_frac:.0%} of this machine: figures mean little until they stop"


def _gain(now: Measured, then: Measured) -> str:
    more = then.images_per_s / now.images_per_s - 1 if now.images_per_s else 0.0
    return f"{then.point.words}: {_of(then)} ({more:+.0%} images/s; now {_of(now)})"


def _of(one: Measured) -> str:
    p99 = "no p99" if one.p99_ms is None else f"p99 {one.p99_ms:.0f} ms"
    return f"{one.images_per_s:.1f} images/s, {p99}"


def _place(pool: str) -> str:
    return "under args" if pool == "default" else f"under args, pools, {pool}"


def _rounded(ms: float | None) -> float | None:
    return None if ms is None else round(ms, 1)
