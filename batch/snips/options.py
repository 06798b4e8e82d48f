"""The settings of --snips: what is not given as an option is the policy's, and all of them go to the job."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import ValidationError

from batch.policy import OFF, Policy, Snips
from model_store.errors import BadRequest


def snips_asked(
    wanted: bool,
    margin_frac: float | None,
    quality: int | None,
    min_score: str | None,
    policy: Callable[[], Policy],
) -> Snips | None:
    """None when none are `wanted`; the policy is read if it is needed. Raises BadRequest that names the option."""
    asked = {"margin_frac": margin_frac, "quality": quality, "min_score": min_score}
    own = {name: value for name, value in asked.items() if value is not None}
    if not wanted:
        if own:
            raise BadRequest(f"{_option(next(iter(own)))} needs --snips")
        return None
    rest = {} if len(own) == len(asked) else dict(policy().snips)
    try:
        return Snips.model_validate(rest | own)
    except ValidationError as error:
        wrong = (f"{_option(str(item['loc'][0]))}: {item['msg']}" for item in error.errors())
        raise BadRequest("; ".join(wrong)) from error


def snip_options(snips: Snips | None) -> dict[str, object]:
    """Every option with its value, so that the machine of the job needs no policy."""
    if snips is None:
        return {}
    return {
        "--snip-margin-frac": snips.margin_frac,
        "--snip-quality": snips.quality,
        "--snip-min-score": OFF if snips.min_score is None else snips.min_score,
    }


def _option(field: str) -> str:
    return f"--snip-{field}".replace("_", "-")
