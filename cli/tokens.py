"""tokens add, list, revoke: who may use the HTTP API, whether or not a cluster runs."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.output import Format, FormatOption, note, print_facts, print_rows
from model_store.lazy_imports import lazy_imports
from serve.scopes import STALE_S, Scope

with lazy_imports():
    from serve.settings import Settings
    from serve.tokens import StoredToken, TokenFile

app = typer.Typer(
    help="Bearer tokens of the HTTP API: as soon as there is one, every request needs one.",
    no_args_is_help=True,
)

COLUMNS = ("name", "scopes", "created_at")
Name = Annotated[str, typer.Argument(help="whose it is: a station, a person, a program")]


def token_file() -> TokenFile:
    return TokenFile.of(Settings())


@app.command()
def add(
    name: Name,
    scope: Annotated[list[Scope], typer.Option(help="what it may do; repeatable")],
    fmt: FormatOption = Format.table,
) -> None:
    """Make a token and show it, this once: only its hash is kept.

    Example: resight tokens add station-7 --scope detect --scope upload
    """
    file = token_file()
    first = file.is_unused()
    token = file.add(name, scope)
    note("not shown again; clients send it as the header 'Authorization: Bearer TOKEN'")
    if first:
        note(
            f"the first one: within {STALE_S:.0f} s every request but those for health needs a token"
        )
    scopes = ", ".join(one for one in Scope if one in scope)
    print_facts({"name": name, "scopes": scopes, "token": token}, fmt)


@app.command("list")
def list_tokens(fmt: FormatOption = Format.table) -> None:
    """Names and scopes; the tokens themselves are nowhere.

    Example: resight tokens list --format json
    """
    print_rows([_row(token) for token in token_file().read() or ()], fmt, COLUMNS)
    if Settings().token:
        note("RESIGHT_TOKEN is set here: where it is set for Ray too, it has all scopes")


@app.command()
def revoke(name: Name, fmt: FormatOption = Format.table) -> None:
    """Take a token back; nothing is restarted. When none is left, nobody gets in without RESIGHT_TOKEN.

    Example: resight tokens revoke station-7
    """
    file = token_file()
    revoked = file.revoke(name)
    note(f"replicas refuse it within {STALE_S:.0f} s")
    if not file.read():
        note(
            "no token is left, so nobody gets in, except with the RESIGHT_TOKEN that Ray was started with: "
            "'resight tokens add' makes another; to do without tokens again, see docs/access.md"
        )
    print_facts(_row(revoked), fmt)


def _row(token: StoredToken) -> dict[str, str]:
    scopes = ", ".join(token.scopes)
    made = token.created_at.isoformat(timespec="seconds")
    return {"name": token.name, "scopes": scopes, "created_at": made}
