"""Documentation is tested: what exists is documented, and what is linked exists."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import typer.main

from archive.schemas import TABLES
from batch.exit_codes import EXIT_CODES
from cli.main import app
from model_store.config import ModelConfig
from serve.settings import DetectArgs, Limits, Settings

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def text(*names: str) -> str:
    return "\n".join((ROOT / name).read_text() for name in names)


def commands() -> list[str]:
    group = typer.main.get_command(app)
    found: list[str] = []
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        below = getattr(command, "commands", {})
        found += [f"{name} {inner}" for inner in below] or [name]
    return found


@pytest.mark.parametrize("command", commands())
def test_every_command_is_documented(command: str) -> None:
    pages = (str(page.relative_to(ROOT)) for page in PAGES if page.name != "CHANGELOG.md")
    assert command in text(*pages)


@pytest.mark.parametrize("name", [*DetectArgs.model_fields, *Limits.model_fields])
def test_every_deployment_argument_is_documented(name: str) -> None:
    assert f"`{name}`" in text("docs/operating.md") or f"{name}:" in text("docs/operating.md")


@pytest.mark.parametrize("name", ["home", "models", "tables", "token"])
def test_every_place_and_secret_is_documented(name: str) -> None:
    assert name in Settings.model_fields
    assert f"RESIGHT_{name.upper()}" in text("docs/operating.md")


@pytest.mark.parametrize("name", sorted({n for schema in TABLES.values() for n in schema.names}))
def test_every_column_is_documented(name: str) -> None:
    assert f"`{name}`" in text("docs/tables.md")


@pytest.mark.parametrize("name", list(ModelConfig.model_fields))
def test_every_config_field_is_documented(name: str) -> None:
    assert f"`{name}" in text("docs/models.md")


def test_every_exit_code_is_documented() -> None:
    table = text("docs/operating.md")
    for error, code in EXIT_CODES.items():
        assert re.search(rf"\| *`?{code}`? *\|", table), f"{error.__name__} exits with {code}"


def test_every_file_is_in_the_map() -> None:
    listed = text("ARCHITECTURE.md")
    packages = ("model_store", "archive", "serve", "batch", "cli")
    files = [p.relative_to(ROOT) for name in packages for p in (ROOT / name).rglob("*.py")]
    assert [str(file) for file in files if f"`{file}`" not in listed] == []


def test_every_decision_is_linked() -> None:
    index = text("docs/decisions/README.md")
    names = [p.name for p in (ROOT / "docs" / "decisions").glob("0*.md")]
    assert names
    assert [name for name in names if name not in index] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (page.parent / link).exists()] == []


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ +(.+)$", page.read_text(), re.MULTILINE)
    kept = re.compile(r"[^\W²³¹⁰-₟]|[- ]")
    return {"".join(kept.findall(heading.lower())).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_a_heading_lead_to_one(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]*\.md|)#([^)]+)\)", page.read_text())
    targets = [((page.parent / to) if to else page, anchor) for to, anchor in links]
    lost = [f"{to.name}#{anchor}" for to, anchor in targets if anchor not in anchors(to)]
    assert lost == []


def test_the_changelog_has_the_version() -> None:
    version = tomllib.loads(text("pyproject.toml"))["project"]["version"]
    assert f"## [{version}]" in text("CHANGELOG.md")
