"""The report as one page: no scripts, nothing from the network, readable on a telephone. Pure.

Every text goes through `html.escape`: names of folders and of machines may hold anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from serve.tune.facts import Tuned
from serve.tune.svg import plot
from serve.tune.words import doubts, rows, verdict

_STYLE = """
body{font:16px/1.45 system-ui,sans-serif;margin:0 auto;max-width:1100px;padding:1rem;color:#1b1b1b;background:#fff}
h1{font-size:1.5rem}h2{font-size:1.2rem;margin-top:2rem;border-top:1px solid #ccc;padding-top:1rem}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .4rem;text-align:right;border-bottom:1px solid #ddd;white-space:nowrap}
th{white-space:normal;vertical-align:bottom}td:last-child,th:last-child{text-align:left;white-space:normal}
dt{color:#555}dd{margin:0 0 .4rem}pre{overflow-x:auto;white-space:pre-wrap}
p,li,dd{overflow-wrap:anywhere}svg{width:100%;height:auto;font-size:12px;fill:#555}
svg .grid{stroke:#888;stroke-opacity:.25}svg .frontier{fill:none;stroke:#888;stroke-width:1.5}
svg line.objective{stroke:#c22;stroke-dasharray:5 4}svg text.objective{fill:#c22}
svg .other{fill:#8a8a8a}svg .current{fill:#2066c0}svg .best,svg .applies{fill:#1b8a3a}svg .shrunk{fill:#b8860b}
@media(prefers-color-scheme:dark){body{color:#e6e6e6;background:#161616}dt{color:#aaa}th,td{border-color:#444}
svg{fill:#aaa}svg .current{fill:#6aa8f0}svg .best,svg .applies{fill:#57c878}}
"""


def page(tuned: Tuned, todo: Sequence[str]) -> str:
    """`todo`: what to do about it, a sentence and its commands each."""
    title = f"Tuning of {tuned.model}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{escape(verdict(tuned))}</p>",
        _list("", doubts(tuned)),
        f"<figure>{plot(tuned)}</figure>",
        "<h2>What to do</h2>" + "".join(f"<pre>{escape(one)}</pre>" for one in todo)
        if todo
        else "",
        "<h2>Points</h2>" + _table(rows(tuned)),
        "<h2>Measured</h2>" + _facts(tuned),
    ]
    head = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="script-src \'none\'">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>"
    )
    return head + "\n".join(parts) + "</body></html>\n"


def _facts(tuned: Tuned) -> str:
    machine, photos = tuned.machine, tuned.photos
    facts = {
        "at": tuned.at,
        "machine": f"{machine.cores} cores, {machine.cpu}, {machine.system}; {machine.others_frac:.0%} of it used by "
        "others before",
        "versions": ", ".join(f"{name} {found}" for name, found in machine.versions.items()),
        "pool": f"{tuned.pool}, on {tuned.device}",
        "pictures": f"{photos.images} of {photos.source}: {photos.mean_megapixels} megapixels and "
        f"{photos.mean_bytes / 1e3:.0f} KB in the mean",
        "a round": f"{tuned.seconds:g} s: a closed loop for images/s, then Poisson arrivals at "
        f"{tuned.load_share:.0%} of it for p50 and p99; medians of rounds",
        "objective": f"p99 {tuned.objective_p99_ms:g} ms",
        "inference key": tuned.inference_key,
    }
    return _definitions(facts)


def _definitions(facts: Mapping[str, str]) -> str:
    inner = (f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    return f"<dl>{''.join(inner)}</dl>"


def _list(title: str, lines: Sequence[str]) -> str:
    return f"{title}<ul>{''.join(f'<li>{escape(one)}</li>' for one in lines)}</ul>" if lines else ""


def _table(found: Sequence[Mapping[str, object]]) -> str:
    names = (escape(name).replace("_", "_<wbr>") for name in found[0])  # long ones on two lines
    top = "".join(f'<th scope="col">{name}</th>' for name in names)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(_cell(value))}</td>" for value in row.values()) + "</tr>"
        for row in found
    )
    return (
        f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
