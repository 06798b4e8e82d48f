"""Compare two samples of GET /metrics of the endpoint.

before = scrape(url); …; after = scrape(url); batch_sizes(before, after), stage_ms(before, after)
"""

from __future__ import annotations

import re
from collections import defaultdict

import httpx2

STAGES = ("queue", "preprocess", "inference", "postprocess")
SAMPLE = re.compile(r"^(\w+)\{(.*)\} (\S+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="([^"]*)"')
Scrape = dict[tuple[str, str], float]


def scrape(url: str) -> Scrape:
    """Return sums over models, versions and replicas by (sample, stage or bucket or an empty text)."""
    answer = httpx2.get(f"{url}/metrics", timeout=30)
    found: defaultdict[tuple[str, str], float] = defaultdict(float)
    for name, labels, value in SAMPLE.findall(answer.text if answer.is_success else ""):
        said = dict(LABEL.findall(labels))
        found[name, said.get("stage") or said.get("le") or ""] += float(value)
    return dict(found)


def batch_sizes(before: Scrape, after: Scrape) -> dict[str, int]:
    """Return the number of batches in each bucket of the histogram."""
    name = "resight_batch_size_bucket"
    sizes, below = {}, 0.0
    for size in sorted(float(le) for metric, le in after if metric == name):
        key = (name, next(le for m, le in after if m == name and float(le) == size))
        upto = after[key] - before.get(key, 0.0)
        sizes[f"≤{size:g}"] = round(upto - below)
        below = upto
    return {size: count for size, count in sizes.items() if count}


def stage_ms(before: Scrape, after: Scrape) -> dict[str, float]:
    """Return the mean milliseconds of an image in each stage of the replica."""
    means: dict[str, float] = {}
    for stage in STAGES:
        total, count = (
            after.get((f"resight_stage_seconds_{kind}", stage), 0.0)
            - before.get((f"resight_stage_seconds_{kind}", stage), 0.0)
            for kind in ("sum", "count")
        )
        if count:
            means[f"{stage}_ms"] = round(total / count * 1e3, 2)
    return means
