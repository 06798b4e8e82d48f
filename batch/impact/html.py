"""The report as one page: no scripts, nothing from the network, readable on a telephone.

Impact, verdict, samples with the names of their pictures --page--> HTML
Every text goes through `html.escape`: labels, paths, cameras and names of people may hold anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from batch.impact.facts import Boxes, CameraBoxes, Impact, Shift
from batch.impact.html_samples import Shown, camera_name, sample_sections
from batch.impact.sides import Side
from batch.impact.verdict import Verdict, model_of

MAX_ROWS = 500
"""Of a table on the page; `impact.json` has all."""
_STYLE = """
body{font:16px/1.45 system-ui,sans-serif;margin:0 auto;max-width:1200px;padding:1rem;color:#1b1b1b;background:#fff}
h1{font-size:1.5rem}h2{font-size:1.2rem;margin-top:2rem;border-top:1px solid #ccc;padding-top:1rem}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .4rem;text-align:right;border-bottom:1px solid #ddd;white-space:nowrap}
th{white-space:normal;vertical-align:bottom}th:first-child,td:first-child{text-align:left}caption{text-align:left;color:#555}
.verdict{border-left:.3rem solid;padding:0 1rem}.verdict h2{border:0;padding:0;margin:1rem 0}
code{overflow-wrap:anywhere}
.pass{color:#176117}.fail{color:#a80000}.sample{margin:1.5rem 0}
.pair{display:flex;flex-wrap:wrap;gap:.5rem}.pair figure{margin:0;flex:1 1 320px;min-width:0}
img{width:100%;height:auto;display:block;background:#eee}dt{color:#555}dd{margin:0 0 .4rem}
p,li,dd,figcaption,h3{overflow-wrap:anywhere}
h3{font-size:1rem;margin:.5rem 0}figcaption{font-size:.9rem}.key{padding:0 .4rem;color:#000}
@media(prefers-color-scheme:dark){body{color:#e6e6e6;background:#161616}caption,dt{color:#aaa}
.pass{color:#7bd37b}.fail{color:#ff8080}th,td{border-color:#444}}
"""
_BOXES = ("shown old", "shown new", "matched", "lost", "new", "relabelled from", "to")
_SHIFT = ("shift mean", "median", "p5", "p95")


def page(impact: Impact, verdict: Verdict, samples: Sequence[Shown]) -> str:
    title = f"Impact: {impact.old.name} → {impact.new.name}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        _verdict(verdict),
        "<h2>Summary</h2>",
        _summary(impact),
        _labels(impact),
        _relabelled(impact),
        _cameras(impact),
        sample_sections(samples),
    ]
    head = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="script-src \'none\'">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>"
    )
    return head + "\n".join(parts) + "</body></html>\n"


def _verdict(verdict: Verdict) -> str:
    grade = "pass" if verdict.passed else "fail"
    gates = "".join(
        f'<li><strong class="{(word := "pass" if gate.passed else "fail")}">{word}</strong>: {escape(gate.words)}</li>'
        for gate in verdict.gates
    )
    command = f" <code>{escape(verdict.command)}</code>" if verdict.command else ""
    return (
        f'<section class="verdict"><h2 class="{grade}">{escape(verdict.headline)}</h2>'
        f"{_facts({'compared': verdict.compared, 'change': verdict.changes, 'estimate': verdict.estimate})}"
        f"<ul>{gates}</ul><p><strong>Next</strong>: {escape(verdict.next)}{command}</p></section>"
    )


def _facts(facts: dict[str, str]) -> str:
    rows = (
        f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items() if value
    )
    return f"<dl>{''.join(rows)}</dl>"


def _summary(impact: Impact) -> str:
    images, said = impact.images, impact.verified
    facts = {
        "old side": _side(impact.old),
        "new side": _side(impact.new),
        "images": f"{images.compared} compared, {images.only_old} only old, {images.only_new} only new, "
        f"{images.old_failed} failed old, {images.new_failed} failed new",
        "human assertions": f"{said.said}: {said.confirmed} confirmed, {said.contradicted} contradicted, "
        f"{said.unseen} unseen; {said.lost} lost, {said.gained} gained",
    }
    return _facts(facts)


def _side(side: Side) -> str:
    own = f" ({len(side.label_thresholds)} labels from their own)" if side.label_thresholds else ""
    return f"{side.name}: {model_of(side)}, shown from {side.threshold:g}{own}, key {side.inference_key[:12]}"


def _labels(impact: Impact) -> str:
    rows = [(one.label, *_numbers(one)) for one in impact.labels]
    return "<h2>By label</h2>" + _table("detections", ("label", *_BOXES, *_SHIFT), rows)


def _relabelled(impact: Impact) -> str:
    if not impact.relabelled:
        return ""
    rows = [(one.old_label, one.new_label, one.boxes) for one in impact.relabelled]
    return "<h2>Relabelled</h2>" + _table("detections", ("from", "to", "boxes"), rows)


def _cameras(impact: Impact) -> str:
    header = ("camera", "images", "changed", "emptied", "filled", *_BOXES, *_SHIFT)
    rows = [(camera_name(one.camera_id), *_images(one), *_numbers(one)) for one in impact.cameras]
    return "<h2>By camera</h2>" + _table("images and detections", header, rows)


def _images(one: CameraBoxes) -> tuple[object, ...]:
    return one.compared, one.changed, one.emptied, one.filled


def _numbers(one: Boxes) -> tuple[object, ...]:
    counts = (one.shown_old, one.shown_new, one.matched, one.lost, one.new)
    return (*counts, one.relabelled_from, one.relabelled_to, *_shift(one.shift))


def _shift(shift: Shift | None) -> tuple[str, ...]:
    if shift is None:
        return ("",) * len(_SHIFT)
    return tuple(f"{x:+.4f}" for x in (shift.mean, shift.median, shift.p5, shift.p95))


def _table(caption: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    top = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>"
        for row in rows[:MAX_ROWS]
    )
    left = (
        f"<p>{len(rows) - MAX_ROWS} more rows are in impact.json</p>"
        if len(rows) > MAX_ROWS
        else ""
    )
    return (
        f'<div class="wide"><table><caption>{escape(caption)}</caption><thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>{left}"
    )
