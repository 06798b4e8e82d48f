"""The commands `tokens add, list, quota, revoke`: access to the HTTP API. Needs no cluster."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.output import Format, FormatOption, note, print_facts, print_rows
from model_store.lazy_imports import lazy_imports
from serve.auth.scopes import STALE_S, TokenScope

with lazy_imports():
    from serve.auth.tokens import StoredToken, TokenFile
    from serve.settings import Settings

app = typer.Typer(
    help="Bearer tokens of the HTTP API. Once a token exists, every request needs one.", no_args_is_help=True
)

COLUMNS = ("name", "scopes", "daily_mib", "created_at")
Name = Annotated[str, typer.Argument(help="owner of the token: a station, a person or a program")]
DailyMib = Annotated[
    int | None, typer.Option(min=1, help="maximum size in MiB of the images that it may store in a day (UTC)")
]


@app.command()
def add(
    name: Name,
    scope: Annotated[list[TokenScope], typer.Option(help="what the token permits; repeatable")],
    daily_mib: DailyMib = None,
    fmt: FormatOption = Format.table,
) -> None:
    """Create a token and show it once; only its hash is stored.

    Example: resight tokens add station-7 --scope detect --scope upload --daily-mib 500
    """
    file = TokenFile.of(Settings())
    first = file.is_unused()
    token = file.add(name, scope, daily_mib)
    note("this token is not shown again; clients send the header 'Authorization: Bearer TOKEN'")
    if first:
        note(f"this is the first token: within {STALE_S:.0f} s every request except health checks needs one")
    scopes = ", ".join(name for name in TokenScope if name in scope)
    print_facts({"name": name, "scopes": scopes, "token": token}, fmt)


@app.command("list")
def list_tokens(fmt: FormatOption = Format.table) -> None:
    """List the names, scopes and quotas of all tokens; the tokens themselves are not stored.

    Example: resight tokens list --format json
    """
    print_rows([_row(token) for token in TokenFile.of(Settings()).read() or ()], fmt, COLUMNS)
    if Settings().token:
        note("RESIGHT_TOKEN is set here; if it was also set when the server started, it has all scopes")


@app.command()
def quota(name: Name, daily_mib: DailyMib = None, fmt: FormatOption = Format.table) -> None:
    """Set how much a token may store in a day; without the option, it has no quota.

    Example: resight tokens quota station-7 --daily-mib 500
    """
    token = TokenFile.of(Settings()).set_quota(name, daily_mib)
    now = f"may store {daily_mib} MiB a day; what it has stored on this day counts" if daily_mib else "has no quota"
    note(f"{name} {now}; replicas apply it within {STALE_S:.0f} s")
    print_facts(_row(token), fmt)


@app.command()
def revoke(name: Name, fmt: FormatOption = Format.table) -> None:
    """Revoke a token without a restart. If none is left, only RESIGHT_TOKEN gives access.

    Example: resight tokens revoke station-7
    """
    file = TokenFile.of(Settings())
    revoked = file.revoke(name)
    note(f"replicas reject it within {STALE_S:.0f} s")
    if not file.read():
        note(
            "no token is left: only the RESIGHT_TOKEN that the server was started with gives access. Create another "
            "with 'resight tokens add'; to work without tokens, see docs/operate/access.md"
        )
    print_facts(_row(revoked), fmt)


def _row(token: StoredToken) -> dict[str, str | int | None]:
    scopes = ", ".join(token.scopes)
    made = token.created_at.isoformat(timespec="seconds")
    return {"name": token.name, "scopes": scopes, "daily_mib": token.daily_mib, "created_at": made}
