"""Measure a model by the statements of people: precision, recall and calibration, by label and by camera.

(tables, ResultSet, MediaScope) --evaluate--> Evaluation, with 95 % intervals (Wilson, `impact/extrapolate.py`)

The boxes that people keep, relabel or add are the old side of a comparison, and the model is its new side: `runs diff`
matches them. A detection is right if it is matched, and wrong if a person gave its box another label,
called it wrong, or the image empty. A detection without any statement is undecided: it counts for neither.
"""

from __future__ import annotations

from contextlib import closing
from typing import Any

import duckdb
from pydantic import Field

from archive.annotations.assertions import ANNOTATIONS, make_standing
from archive.delta.scratch_db import LARGE_MIB, Scratch
from archive.delta.tables import Tables
from archive.views.publications import view_named
from archive.views.views import PRODUCTION
from batch.publishing.impact.compare import load, match
from batch.publishing.impact.extrapolate import wilson
from batch.publishing.impact.measure import dicts
from batch.publishing.impact.result_sets import NOTHING, ResultSet
from batch.publishing.selection import opened
from batch.runs.scope import MediaScope
from model_store.frozen import Frozen

BINS = 10
_DRAWN = "from opened where $random is null or drawn <= $random"
_TRUTH = """
    update images set compared = not new_failed;
    insert into old_boxes
    select md5_number(media_sha256) as id, row_number() over () as rank, label, 1 as score, x1_px, y1_px, x2_px, y2_px
    from standing where action <> 'suppress' and label is not null and x1_px is not null
        and md5_number(media_sha256) in (select id from images where compared)
"""
_JUDGED = """
    create table judged as
    with denied as (
        select distinct n.id, n.rank from new_boxes n join standing s on md5_number(s.media_sha256) = n.id
        where s.action = 'suppress' and (s.x1_px is null
            or is_same_box(iou(s.x1_px, s.y1_px, s.x2_px, s.y2_px, n.x1_px, n.y1_px, n.x2_px, n.y2_px))))
    select n.label, camera_id, n.score, o.kind,
        case when kind = 'matched' then true when kind = 'relabelled' or d.id is not null then false end as correct
    from new_boxes n join outcomes o on o.id = n.id and o.new_rank = n.rank join cameras c on c.id = n.id
        left join denied d on d.id = n.id and d.rank = n.rank;
    create table counts as
    select label, camera_id, 0 as stated, 0 as found, (correct is true)::integer as correct,
        (correct is false)::integer as wrong, (correct is null)::integer as undecided,
        0 as found_box, (kind in ('matched', 'relabelled'))::integer as correct_box from judged
    union all
    select old_label, camera_id, 1, (kind = 'matched')::integer, 0, 0, 0, (kind <> 'lost')::integer, 0
    from outcomes join cameras using (id) where kind <> 'new'
"""
_GROUPS = """
    select case when grouping(label) = 0 then 'label' when grouping(camera_id) = 0 then 'camera' else 'all' end as "by",
        if("by" = 'label', label, camera_id) as name, coalesce(sum(stated), 0)::bigint as stated,
        coalesce(sum(found), 0)::bigint as found, coalesce(sum(correct), 0)::bigint as correct,
        coalesce(sum(wrong), 0)::bigint as wrong, coalesce(sum(undecided), 0)::bigint as undecided
    from counts group by grouping sets ((), (label), (camera_id))
    union all
    select 'any label', null, coalesce(sum(stated), 0)::bigint, coalesce(sum(found_box), 0)::bigint,
        coalesce(sum(correct_box), 0)::bigint, coalesce(sum(correct + wrong - correct_box), 0)::bigint,
        coalesce(sum(undecided), 0)::bigint
    from counts
    order by list_position(['all', 'any label', 'label', 'camera'], "by"), name
"""
_BINS = f"""
    select least(floor(score * {BINS}), {BINS - 1})::integer as place, count(*) as detections, avg(score) as mean_score,
        count(*) filter (correct) as correct
    from judged where correct is not null group by place order by place
"""


class Fraction(Frozen):
    """A fraction with its 95 % interval; all None if there is nothing to count."""

    value: float | None
    low: float | None
    high: float | None


class Group(Frozen):
    """Counts over one label, one camera (None: unknown) or all. `found` of `stated` boxes have their label.

    In the group by `any label`, labels do not count: a box is found, and a detection correct, if the boxes match.
    precision = correct / (correct + wrong); recall = found / stated.
    """

    by: str
    name: str | None
    stated: int
    found: int
    correct: int
    wrong: int
    undecided: int
    precision: Fraction
    recall: Fraction


class Bin(Frozen):
    """Decided detections with a score from `from_score` to `to_score`: a calibrated `mean_score` equals `correct`."""

    from_score: float
    to_score: float
    detections: int
    mean_score: float
    correct: Fraction


class Sample(Frozen):
    """The images of an evaluation: `reviewed` of `drawn` of the `population`. `unseen` ones lack a result of the model.

    `at_random`: they are all of a random sample, or of the population. Only then do fractions estimate the population;
    precision only does without undecided detections.
    """

    population: int
    drawn: int
    reviewed: int
    unseen: int
    at_random: bool
    words: str


class Evaluation(Frozen):
    """A model against people. `calibration_error` is the mean distance of score and correct fraction over the bins."""

    model: ResultSet
    sample: Sample
    groups: tuple[Group, ...]
    bins: tuple[Bin, ...]
    calibration_error: float | None = Field(default=None)


def evaluate(
    tables: Tables,
    model: ResultSet,
    scope: MediaScope,
    random: int | None = None,
    seed: int = 0,
    view: str = PRODUCTION,
    memory_mib: int | None = None,
) -> Evaluation:
    """Evaluate results on the reviewed images of a scope, or of the first `random` images of its random order.

    The view only decides which images there are, as for `select`. Raises BadRequest without a published view or for an
    empty scope, StorageUnreachable.
    """
    with opened(tables, view_named(tables, view), scope, seed, memory_mib) as sql:
        drawn = sql.sql(_DRAWN, params={"random": random}).to_arrow_table()
        ((population,),) = sql.execute("select count(*) from opened").fetchall()
    reviewed = drawn.filter(drawn["reviewed"])["media_sha256"].combine_chunks()
    with closing(Scratch("evaluate", LARGE_MIB, in_order=False)) as scratch:
        sql = scratch.sql
        load(sql, tables, NOTHING, model, reviewed)
        make_standing(sql, tables)
        sql.execute(_TRUTH)
        match(sql)
        ANNOTATIONS.create(sql, "is_same_box")
        sql.execute(_JUDGED)
        ((seen,),) = sql.execute("select count(*) from images where compared").fetchall()
        groups = tuple(_group(row) for row in dicts(sql, _GROUPS))
        bins, error = _calibration(sql)
    sample = _sample(population, len(drawn), len(reviewed), len(reviewed) - seen, scope, random, seed)
    if sample.at_random and (undecided := groups[0].undecided):
        words = f"{sample.words}, but precision leaves out {undecided} undecided detections"
        sample = sample.model_copy(update={"words": words})
    return Evaluation(model=model, sample=sample, groups=groups, bins=bins, calibration_error=error)


def _group(row: dict[str, Any]) -> Group:
    decided = row["correct"] + row["wrong"]
    return Group(**row, precision=fraction(row["correct"], decided), recall=fraction(row["found"], row["stated"]))


def fraction(part: int, whole: int) -> Fraction:
    """Return part / whole with Wilson's interval."""
    if not whole:
        return Fraction(value=None, low=None, high=None)
    low, high = wilson(part, whole)
    return Fraction(value=part / whole, low=low, high=high)


def _calibration(sql: duckdb.DuckDBPyConnection) -> tuple[tuple[Bin, ...], float | None]:
    """Return ten bins of equal width, without empty ones, and the expected calibration error.

    The error is the mean over all detections of |mean score - correct fraction| of their bin (C. Guo et al., On
    Calibration of Modern Neural Networks, ICML 2017).
    """
    bins, total, distance = list[Bin](), 0, 0.0
    for row in dicts(sql, _BINS):
        place, correct, count = row["place"], row["correct"], row["detections"]
        limits = {"from_score": place / BINS, "to_score": (place + 1) / BINS}
        bins.append(Bin(**limits, detections=count, mean_score=row["mean_score"], correct=fraction(correct, count)))
        total, distance = total + count, distance + abs(row["mean_score"] * count - correct)
    return tuple(bins), distance / total if total else None


def _sample(
    population: int, drawn: int, reviewed: int, unseen: int, scope: MediaScope, random: int | None, seed: int
) -> Sample:
    """Describe which images the fractions are of, and whether these may stand for the population."""
    complete, is_drawn = reviewed == drawn > 0 and not unseen, random is not None or scope.sample is not None
    if random is not None:
        words = f"{reviewed} of {drawn} images drawn at random from {population} are reviewed"
    elif scope.sample is not None:
        words = f"{reviewed} of a sample of {drawn} images are reviewed"
    else:
        words = f"{reviewed} of {population} images are reviewed"
    if unseen:
        words += f", {unseen} of them without a result of this model"
    if complete:
        words += ": an unbiased estimate" if is_drawn else ": all of them"
    elif random is not None:
        words += f"; no estimate before the rest is: resight select --by random --count {random} --seed {seed}, "
        words += "with the same view and options of a scope"
    elif is_drawn:
        words += "; no estimate before the rest is"
    else:
        words += ", which people chose: recall and precision say nothing about the others"
    return Sample(population=population, drawn=drawn, reviewed=reviewed, unseen=unseen, at_random=complete, words=words)
