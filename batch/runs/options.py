"""Command-line options of runs and scopes, shared by the commands that start runs and their jobs.

Each field of a spec, of its scope and of its nested settings becomes an option, with its description as help:
`takes_spec(RunSpec)` gives a command the options and calls it with the spec; `takes_scope` does the same for a scope.
A job also takes the whole spec as JSON, as commands submit it (`arguments`).
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from batch.runs.scope import MediaScope, Scope
from batch.schedule.policy import Snips, Stop
from model_store.errors import BadRequest
from model_store.frozen import wrong_fields
from model_store.lazy_imports import lazy_imports

with lazy_imports():
    from batch.planning.id_list import name_ids
    from batch.runs.spec import PassSpec, new_run_id
    from batch.schedule.policy import policy_of
    from serve.settings import Settings

R = TypeVar("R")
S = TypeVar("S", bound="PassSpec")
Command = Callable[..., R]
_TEXT: Any = str | None
_TYPES: dict[str, Any] = {
    **dict.fromkeys(("camera", "deployment", "location"), list[str] | None),
    "folder": _TEXT,
    "since": _TEXT,
    "until": _TEXT,
    "labels": _TEXT,
    "snip_min_score": _TEXT,
}
"""Types of options that differ from their field's; pydantic converts them."""
NESTED: dict[str, tuple[type[BaseModel], dict[str, str]]] = {
    "scope": (Scope, {name: name for name in Scope.model_fields}),
    "stop": (Stop, {"failed_frac": "stop_failed_frac", "failed_after": "stop_failed_after"}),
    "snips": (Snips, {name: f"snip_{name}" for name in Snips.model_fields}),
}
"""Fields of a spec with fields of their own, and the names of their options where these differ."""


def takes_options(
    make: Callable[..., Any], options: Mapping[str, inspect.Parameter], name: str
) -> Callable[[Command[R]], Command[R]]:
    """Return a decorator that replaces the parameter `name` by options, of which `make` makes its value."""

    def taking(function: Command[R]) -> Command[R]:
        @functools.wraps(function)
        def called(**values: Any) -> R:
            given = {option: values.pop(option) for option in options if option in values}
            return function(**{name: make(**given)}, **values)

        own = dict(inspect.signature(function, eval_str=True).parameters)
        at = list(own).index(name)
        del own[name]
        parameters = [*list(own.values())[:at], *options.values(), *list(own.values())[at:]]
        called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return called

    return taking


def takes_scope(kind: type[MediaScope] = Scope) -> Callable[[Command[R]], Command[R]]:
    """Return a decorator that replaces the parameter `scope` by an option for each field of `kind`.

    A call raises BadRequest that names the option with an invalid value.
    """
    return takes_options(functools.partial(_scope, kind), _options(kind), "scope")


def takes_spec(kind: type[PassSpec], job: bool = False) -> Callable[[Command[R]], Command[R]]:
    """Return a decorator that replaces the parameter `spec` by the options of a spec of this kind.

    With `job`, the option --spec takes the whole spec. A call raises BadRequest that names the options in conflict.
    """
    options: dict[str, inspect.Parameter] = {}
    for name, field in kind.model_fields.items():
        if name == "snips":
            given = typer.Option("--snips/--no-snips", help=field.description)
            options[name] = _parameter(name, Annotated[bool, given], False)
        if name in NESTED:
            options |= _options(*NESTED[name], of_policy=name != "scope")
        else:
            options[name] = _option(name, field)
    if not job:
        return takes_options(functools.partial(make_spec, kind), options, "spec")
    text = typer.Option("--spec", help="whole spec as JSON, instead of all other options")
    options["json_spec"] = _parameter("json_spec", Annotated[str, text], "")
    return takes_options(functools.partial(_submitted_spec, kind), options, "spec")


def make_spec(kind: type[S], **values: Any) -> S:
    """Return the spec of these options; for limits and settings of snips that are not given, the policy decides."""
    given = {name: value for name, value in values.items() if value is not None}
    fields = {name: given[name] for name in kind.model_fields if name in given}
    fields["run_id"] = given.get("run_id") or new_run_id()
    fields.setdefault("model", "")
    if "scope" not in fields:
        fields["scope"] = _scope(Scope, **{n: given[n] for n in Scope.model_fields if n in given})
    fields["stop"] = _nested("stop", given)
    if "snips" in kind.model_fields:
        fields["snips"] = _snips(given)
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise invalid(error) from error


def arguments(spec: PassSpec) -> list[str]:
    """Return the command line of the job of this spec."""
    named = [word for run_id in spec.run_ids for word in ("--run-id", run_id)]
    return [*named, "--spec", spec.model_dump_json()]


def scope_arguments(scope: MediaScope) -> list[str]:
    """Return the options that result in this scope."""
    words: list[str] = []
    for name, value in scope.model_dump(mode="json").items():
        for item in value if isinstance(value, list) else [value]:
            words += [_flag(name)] if item is True else [_flag(name), str(item)]
    return words


def require_model(spec: PassSpec) -> None:
    """Raise BadRequest if no model is given; only --if-needed has a default."""
    if not spec.model:
        raise BadRequest("--model is required: name, name@version or name:alias; see --help")


def invalid(error: ValidationError, names: Mapping[str, str] | None = None) -> BadRequest:
    """Return the errors of a validation, with the names of the options."""

    def option(place: tuple[int | str, ...]) -> str:
        return "".join(_flag((names or {}).get(str(part), str(part))) for part in place[:1])

    return BadRequest(wrong_fields(error, name=option))


def _flag(field: str) -> str:
    return f"--{field.replace('_', '-')}"


def _options(
    kind: type[BaseModel], names: Mapping[str, str] | None = None, of_policy: bool = False
) -> dict[str, inspect.Parameter]:
    """Return an option for each field; without a default if the policy has it."""
    options = [_option((names or {}).get(name, name), field, of_policy) for name, field in kind.model_fields.items()]
    return {option.name: option for option in options}


def _option(name: str, field: FieldInfo, of_policy: bool = False) -> inspect.Parameter:
    kind: Any = _TYPES.get(name, field.annotation)
    default, words = field.default, field.description
    if of_policy:
        kind, default = kind | None, None
        words = f"{words}; default: from the policy"
    elif kind is str and field.is_required():
        default = ""
    elif name in _TYPES:
        default = None
    return _parameter(name, Annotated[kind, typer.Option(_flag(name), help=words)], default)


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Parameter(name, kind, default=default, annotation=annotation)


def _scope(kind: type[MediaScope], **values: Any) -> MediaScope:
    given = {name: value for name, value in values.items() if value is not None}
    if "ids" in given and not re.fullmatch(r"[0-9a-f]{64}", given["ids"]):  # a file, not the name of a list
        given["ids"] = name_ids(Path(given["ids"]))
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        raise invalid(error) from error


def _nested(name: str, given: Mapping[str, Any]) -> BaseModel:
    """Return nested settings; those that are not given are the policy's, which is read only then."""
    kind, names = NESTED[name]
    options = {field: names.get(field, field) for field in kind.model_fields}
    own = {field: given[option] for field, option in options.items() if option in given}
    rest = {} if len(own) == len(options) else dict(getattr(policy_of(Settings()), name))
    try:
        return kind.model_validate(rest | own)
    except ValidationError as error:
        raise invalid(error, names) from error


def _snips(given: Mapping[str, Any]) -> BaseModel | None:
    """Return the settings of snips, None without --snips. Raises BadRequest for settings without --snips."""
    if given.get("snips"):
        return _nested("snips", given)
    for option in NESTED["snips"][1].values():
        if option in given:
            raise BadRequest(f"{_flag(option)} needs --snips")
    return None


def _submitted_spec(kind: type[S], json_spec: str = "", **values: Any) -> S:
    """Return the spec that a command submitted, else that of the options. The policy here does not matter then."""
    if not json_spec:
        return make_spec(kind, **values)
    try:
        return kind.model_validate_json(json_spec)
    except ValidationError as error:
        raise BadRequest(f"--spec: {wrong_fields(error, kind)}") from error
