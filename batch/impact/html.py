"""The report as one page: no scripts, nothing from the network, readable on a telephone.

Impact, gates, samples with the names of their pictures --page--> HTML
Every text goes through `html.escape`: labels, paths, cameras and names of people may hold anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from batch.impact.facts import Boxes, CameraBoxes, Impact, Shift
from batch.impact.gates import Gate
from batch.impact.html_samples import Shown, camera_name, sample_sections
from batch.impact.sides import Side

MAX_ROWS = 500
"""Of a table on the page; `impact.json` has all."""
_STYLE = """
body{font:16px/1.45 system-ui,sans-serif;margin:0 auto;max-width:1200px;padding:1rem;color:#1b1b1b;background:#fff}
h1{font-size:1.5rem}h2{font-size:1.2rem;margin-top:2rem;border-top:1px solid #ccc;padding-top:1rem}
.wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .6rem;text-align:right;border-bottom:1px solid #ddd;white-space:nowrap}
th:first-child,td:first-child{text-align:left}caption{text-align:left;color:#555}
.open{color:#176117}.closed{color:#a80000;font-weight:bold}.sample{margin:1.5rem 0}
.pair{display:flex;flex-wrap:wrap;gap:.5rem}.pair figure{margin:0;flex:1 1 320px;min-width:0}
img{width:100%;height:auto;display:block;background:#eee}dt{color:#555}dd{margin:0 0 .4rem}
p,li,dd,figcaption,h3{overflow-wrap:anywhere}
h3{font-size:1rem;margin:.5rem 0}figcaption{font-size:.9rem}.key{padding:0 .4rem;color:#000}
@media(prefers-color-scheme:dark){body{color:#e6e6e6;background:#161616}caption,dt{color:#aaa}
.open{color:#7bd37b}.closed{color:#ff8080}th,td{border-color:#444}}
"""
_BOXES = ("shown old", "shown new", "matched", "lost", "new", "relabelled from", "to")
_SHIFT = ("shift mean", "median", "p5", "p95")


def page(
    impact: Impact, gates: Sequence[Gate], samples: Sequence[Shown], more: Mapping[str, str]
) -> str:
    """`more` are further facts for the summary."""
    title = f"Impact: {impact.old.name} → {impact.new.name}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        _summary(impact, more),
        _gates(gates),
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


def _summary(impact: Impact, more: Mapping[str, str]) -> str:
    images, boxes, said = impact.images, impact.boxes, impact.verified
    facts = {
        "old side": _side(impact.old),
        "new side": _side(impact.new),
        "images": f"{images.compared} compared, {images.only_old} only old, {images.only_new} only new, "
        f"{images.old_failed} failed old, {images.new_failed} failed new",
        "images that changed": f"{images.changed}; emptied {images.emptied}, filled {images.filled}",
        "detections": f"{boxes.shown_old} → {boxes.shown_new}: {boxes.matched} matched, {boxes.lost} lost, "
        f"{boxes.new} new, {boxes.relabelled_from} relabelled",
        "human assertions": f"{said.said}: {said.confirmed} confirmed, {said.contradicted} contradicted, "
        f"{said.unseen} unseen; {said.lost} lost, {said.gained} gained",
        **more,
    }
    rows = (f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    return f"<dl>{''.join(rows)}</dl>"


def _side(side: Side) -> str:
    model = f"{side.model_name}@{side.model_version}" if side.model_name else "no model"
    own = f" ({len(side.label_thresholds)} labels from their own)" if side.label_thresholds else ""
    return (
        f"{side.name}: {model}, shown from {side.threshold:g}{own}, key {side.inference_key[:12]}"
    )


def _gates(gates: Sequence[Gate]) -> str:
    rows = "".join(
        f'<li class="{"open" if gate.open else "closed"}">{"open" if gate.open else "CLOSED"}: '
        f"{escape(gate.words)}</li>"
        for gate in gates
    )
    return f"<h2>Gates</h2><ul>{rows}</ul>" if rows else "<h2>Gates</h2><p>none is set</p>"


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
