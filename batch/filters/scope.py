"""What a filter run is about: images of a scope, in the results of one inference key."""

from __future__ import annotations

from pydantic import Field

from batch.scope import MediaScope

PUBLISHED = "published"


class FilterScope(MediaScope):
    """All that is published, unless a field narrows it or names another run."""

    run: str = Field(
        default=PUBLISHED,
        min_length=1,
        description="whose results: a run's id, whichever run wrote them, or published",
    )
    occurrence: str | None = Field(
        default=None,
        min_length=1,
        description="only images of this occurrence, which a layer of the view has made",
    )
