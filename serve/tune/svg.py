"""The frontier as a plot: throughput over p99, a circle for each point, as one <svg>. Pure; no library.

Axes begin at 0, so that distances are what they look like. Colours are readable on white and on black.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape

from serve.tune.choice import frontier, with_same_key
from serve.tune.facts import Measured, Tuned

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 64, 20, 16, 48
TICKS = 6


def plot(tuned: Tuned) -> str:
    """Points without a p99 are not drawn: the table has them."""
    drawn = [one for one in tuned.points if one.p99_ms is not None]
    slowest = max([one.p99_ms or 0.0 for one in drawn] + [0.0])
    # an objective far away would press all points against the other edge
    right = max(slowest, min(tuned.objective_p99_ms, 2 * slowest) or tuned.objective_p99_ms) * 1.06
    top = max([one.images_per_s for one in drawn] + [1.0]) * 1.08
    space = _Space(right, top)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="throughput over p99 of {len(drawn)} points">',
        *_axes(space),
        *_objective(space, tuned.objective_p99_ms),
        _line(space, frontier(with_same_key(drawn, tuned.current))),
        *(_circle(space, tuned, one) for one in drawn),
        "</svg>",
    ]
    return "\n".join(parts)


class _Space:
    """From ms and images/s to px."""

    def __init__(self, right_ms: float, top_per_s: float) -> None:
        self.right_ms, self.top_per_s = right_ms, top_per_s

    def x(self, ms: float) -> float:
        return round(LEFT + ms / self.right_ms * (WIDTH - LEFT - RIGHT), 1)

    def y(self, per_s: float) -> float:
        return round(HEIGHT - BOTTOM - per_s / self.top_per_s * (HEIGHT - TOP - BOTTOM), 1)


def ticks(most: float) -> list[float]:
    """From 0, in steps of 1, 2 or 5 times a power of ten, about TICKS of them."""
    raw = most / TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw * 0.999)
    return [round(i * step, 10) for i in range(int(most / step) + 1)]


def _axes(space: _Space) -> Iterator[str]:
    bottom, end = HEIGHT - BOTTOM, WIDTH - RIGHT
    for ms in ticks(space.right_ms):
        x = space.x(ms)
        yield f'<line class="grid" x1="{x}" y1="{TOP}" x2="{x}" y2="{bottom}"/>'
        yield f'<text x="{x}" y="{bottom + 18}" text-anchor="middle">{ms:g}</text>'
    for per_s in ticks(space.top_per_s):
        y = space.y(per_s)
        yield f'<line class="grid" x1="{LEFT}" y1="{y}" x2="{end}" y2="{y}"/>'
        yield f'<text x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{per_s:g}</text>'
    middle = (LEFT + end) / 2
    yield f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">p99, ms</text>'
    yield (
        f'<text x="14" y="{HEIGHT / 2}" text-anchor="middle" '
        f'transform="rotate(-90 14 {HEIGHT / 2})">images a second</text>'
    )


def _objective(space: _Space, objective_ms: float) -> Iterator[str]:
    if objective_ms > space.right_ms:
        return
    x = space.x(objective_ms)
    yield f'<line class="objective" x1="{x}" y1="{TOP}" x2="{x}" y2="{HEIGHT - BOTTOM}"/>'
    yield f'<text class="objective" x="{x - 6}" y="{TOP + 12}" text-anchor="end">objective</text>'


def _line(space: _Space, points: Sequence[Measured]) -> str:
    corners = " ".join(f"{space.x(p.p99_ms or 0.0)},{space.y(p.images_per_s)}" for p in points)
    return f'<polyline class="frontier" points="{corners}"/>'


def _circle(space: _Space, tuned: Tuned, one: Measured) -> str:
    name = kind(tuned, one)
    x, y = space.x(one.p99_ms or 0.0), space.y(one.images_per_s)
    words = f"{one.point.words}: {one.images_per_s:.1f} images/s, p99 {one.p99_ms:.1f} ms"
    title = f"<title>{escape(words)}</title>"
    mark = f'<circle class="{name or "other"}" cx="{x}" cy="{y}" r="{6 if name else 4}">{title}</circle>'
    if not name:
        return mark
    near_edge = x > WIDTH - 110
    place = f'x="{x - 10}" text-anchor="end"' if near_edge else f'x="{x + 10}"'
    return f'{mark}<text class="{name}" {place} y="{y + 4}">{name}</text>'


def kind(tuned: Tuned, one: Measured) -> str:
    """What a point is to the reader, where it is more than a point."""
    if one.point == tuned.current:
        return "current"
    if one.point == tuned.applies:
        return "applies"
    if one.point == tuned.best:
        return "best"
    return "shrunk" if one.point.jpeg_shrink != tuned.current.jpeg_shrink else ""
