"""Options that choose images, one for each field of a scope; and functions that have the options of others.

A field of `batch/scope.py` becomes an option with its description as help; `takes_scope` gives a command the scope.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from batch.scope import MediaScope, Scope
from model_store.errors import BadRequest
from model_store.lazy_imports import lazy_imports

with lazy_imports():
    from batch.id_list import name_ids

R = TypeVar("R")
_TYPES: dict[str, Any] = {"camera": list[str] | None, "since": str | None, "until": str | None}
"""Of options whose type is not that of their field; pydantic converts them."""
_OTHER_NAMES = {"failed_frac": "stop_failed_frac", "failed_after": "stop_failed_after"}


def takes_options(
    make: Callable[..., Any], options: Iterable[inspect.Parameter], name: str
) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Return a decorator: the function has `options` in the place of its parameter `name`, and is called with what
    `make` makes of them.
    """
    shared = list(options)

    def taking(function: Callable[..., R]) -> Callable[..., R]:
        @functools.wraps(function)
        def called(**values: Any) -> R:
            given = {one.name: values.pop(one.name) for one in shared if one.name in values}
            return function(**{name: make(**given)}, **values)

        own = parameters_of(function)
        at = list(own).index(name)
        del own[name]
        parameters = [*list(own.values())[:at], *shared, *list(own.values())[at:]]
        called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        called.__annotations__ = {one.name: one.annotation for one in parameters}
        return called

    return taking


def takes_scope(
    kind: type[MediaScope] = Scope,
) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Return a decorator: the function has an option for each field of `kind` in the place of its parameter `scope`.

    A call raises BadRequest that names the option with a wrong value.
    """
    options = [_option(name, field) for name, field in kind.model_fields.items()]
    return takes_options(functools.partial(_scope, kind), options, "scope")


def scope_arguments(scope: MediaScope) -> list[str]:
    """Return the options that mean this scope."""
    words: list[str] = []
    for name, value in scope.model_dump(mode="json").items():
        for one in value if isinstance(value, list) else [value]:
            words += [_flag(name)] if one is True else [_flag(name), str(one)]
    return words


def parameters_of(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(function, eval_str=True).parameters)


def said(error: ValidationError) -> str:
    """What is wrong, by the names of the options."""
    return "; ".join(_said(item["loc"], item["msg"]) for item in error.errors())


def _said(place: tuple[int | str, ...], message: str) -> str:
    option = "".join(f"{_flag(_OTHER_NAMES.get(str(part), str(part)))}: " for part in place[:1])
    return option + message.removeprefix("Value error, ")


def _flag(field: str) -> str:
    return f"--{field.replace('_', '-')}"


def _option(name: str, field: FieldInfo) -> inspect.Parameter:
    kind = _TYPES.get(name, field.annotation)
    return inspect.Parameter(
        name,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        default=None if name in _TYPES else field.default,
        annotation=Annotated[kind, typer.Option(_flag(name), help=field.description)],
    )


def _scope(kind: type[MediaScope], **values: Any) -> MediaScope:
    given = {name: value for name, value in values.items() if value is not None}
    if "ids" in given:
        given["ids"] = _named(given["ids"])
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        raise BadRequest(said(error)) from error


def _named(ids: str) -> str:
    """A list that is kept already, by its name, or that of a file."""
    return ids if re.fullmatch(r"[0-9a-f]{64}", ids) else name_ids(Path(ids))
