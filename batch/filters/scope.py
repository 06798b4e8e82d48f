"""Scope of a filter run: images of a media scope, in the results of one inference key."""

from __future__ import annotations

from pydantic import Field

from batch.runs.scope import MediaScope

PUBLISHED = "published"


class FilterScope(MediaScope):
    """Images with published results, unless a field narrows them or names another run."""

    run: str = Field(
        default=PUBLISHED,
        min_length=1,
        description="results to use: published, or a run id for all results of its inference key",
    )
    occurrence: str | None = Field(
        default=None, min_length=1, description="only images of this occurrence, from a tracking layer of the view"
    )
