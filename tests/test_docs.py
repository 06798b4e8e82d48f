"""Documentation is tested: what exists is documented, and what is linked exists."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
from pydantic.fields import FieldInfo

from archive.schemas import TABLES
from batch.filters.registry import FILTERS
from batch.jobs.entry import SIGHUP_EXIT, SIGTERM_EXIT
from batch.jobs.exit_codes import EXIT_CODES, exit_code
from batch.pipeline.read_image import CRASHED_READER
from batch.planning.passes import TRIED_AGAIN
from cli.follow import INTERRUPTED
from model_store import errors
from model_store.config import ModelConfig
from model_store.decoders import DECODERS
from serve.settings import DetectArgs, Limits, Settings
from tests.oracles.decoders import ORACLES
from tests.support import cli_page

PACKAGES = ("model_store", "archive", "serve", "batch", "cli")
WRITTEN = ("CHANGELOG.md", "cli.md")
"""Pages that do not explain a command: one is history, one is written from the commands."""
ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def text(*names: str) -> str:
    return "\n".join((ROOT / name).read_text() for name in names)


@pytest.mark.parametrize("command", [name for name, _ in cli_page.commands()])
def test_every_command_is_documented(command: str) -> None:
    pages = (str(page.relative_to(ROOT)) for page in PAGES if page.name not in WRITTEN)
    assert command in text(*pages)


def row(page: str, name: str) -> list[str]:
    """Return the cells of the table row of a name."""
    rows = [line for line in text(page).splitlines() if line.startswith(f"| `{name}` |")]
    assert len(rows) == 1, f"{page} has {len(rows)} rows of {name}"
    return [cell.strip() for cell in rows[0].replace(r"\|", "/").split("|")[1:-1]]


@pytest.mark.parametrize(
    ("name", "field"), [(n, f) for kind in (DetectArgs, Limits) for n, f in kind.model_fields.items()]
)
def test_every_argument_is_documented_with_its_default(name: str, field: FieldInfo) -> None:
    default = field.get_default(call_default_factory=True)
    shown = row("docs/reference/settings.md", name)[1]
    if name in ("models", "limits"):  # the rows refer to a variable and to the next table
        assert shown == ("`RESIGHT_MODELS`" if name == "models" else "")
    elif default in ([], {}):
        assert shown == "none"
    else:
        assert json.loads(shown) == default


@pytest.mark.parametrize("name", list(Settings.model_fields))
def test_every_variable_is_documented_with_its_default(name: str) -> None:
    shown = row("docs/reference/settings.md", f"RESIGHT_{name.upper()}")[1]
    places = {f"{n}_{kind}" for n in (name, f"{name}_path") for kind in ("url", "path")}
    place = next((p for p in sorted(places) if hasattr(Settings, p)), None)
    if name in ("home", "uploads"):
        assert shown == {"home": "`~/.resight`", "uploads": "`uploads` next to the tables"}[name]
    elif place is None:
        assert shown == "none"
    else:
        assert str(getattr(Settings(home="/h"), place)) == shown.strip("`").replace("HOME", "/h")


def test_every_variable_that_code_reads_is_documented() -> None:
    files = [p for name in PACKAGES for p in (ROOT / name).rglob("*.py")]
    read = {v for file in files for v in re.findall(r"RESIGHT_[A-Z]+(?![A-Z_*])", file.read_text())}
    assert read >= {"RESIGHT_HOME", "RESIGHT_POLICY"}
    page = text("docs/reference/settings.md")
    assert sorted(v for v in read if f"`{v}`" not in page) == []


@pytest.mark.parametrize("name", sorted({n for schema in TABLES.values() for n in schema.names}))
def test_every_column_is_documented(name: str) -> None:
    assert f"`{name}`" in text("docs/reference/tables.md")


@pytest.mark.parametrize("name", list(ModelConfig.model_fields))
def test_every_config_field_is_documented(name: str) -> None:
    assert f"`{name}" in text("docs/reference/model-config.md")


@pytest.mark.parametrize("name", list(DECODERS))
def test_every_decoder_is_documented_with_the_unit_of_its_boxes(name: str) -> None:
    page = text("docs/reference/decoders.md")
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| `")]
    outputs = [cells[3] for cells in rows if f"`{name}`" in cells[1]]
    assert len(outputs) == 1
    assert re.search(r"(corners|centre and size)( in px| as fractions)", outputs[0])
    lists = page[page.index("## Saturated") : page.index("## Preprocessing")]
    can_be_full = name in ORACLES and ORACLES[name].scores is not None
    assert not can_be_full or f"`{name}`" in lists


def test_the_page_of_exit_codes_is_that_of_the_code() -> None:
    rows = re.findall(r"^\| (\d+) \|([^|]*)\|([^|]*)\|", text("docs/reference/exit-codes.md"), re.M)
    shown = {n: int(code) for code, *cells in rows for n in re.findall(r"\w+", " ".join(cells))}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    raised = [kind for kind in kinds if issubclass(kind, errors.ResightError)]
    assert shown == {kind.__name__: exit_code(kind.__new__(kind)) for kind in raised}
    others = {0, INTERRUPTED, SIGHUP_EXIT, SIGTERM_EXIT}
    assert {int(code) for code, *_ in rows} == {*EXIT_CODES.values(), *others}


def test_the_error_codes_of_results_are_those_of_the_code() -> None:
    [table] = re.findall(r"Error codes of `status = .*?Decode notes", text("docs/reference/tables.md"), re.DOTALL)
    listed = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    of_images = {kind.code for kind in kinds if issubclass(kind, errors.ImageError)}
    of_runs = {*TRIED_AGAIN, CRASHED_READER, "external"} - {"differs"}  # snips alone differ; imports have external
    assert sorted(listed) == sorted(of_images | of_runs)


def test_the_page_of_commands_is_that_of_the_commands() -> None:
    assert cli_page.PAGE.read_text() == cli_page.page(), "run: python -m tests.support.cli_page"


def test_every_filter_has_a_section() -> None:
    sections = re.findall(r"^## (\S+)$", text("docs/reference/filter-kinds.md"), re.MULTILINE)
    assert sorted(sections) == sorted(FILTERS), "sections of filter-kinds.md are not the filters"


def test_the_order_of_the_layers_is_that_of_the_filters() -> None:
    [sentence] = re.findall(r"sets its position: (.*?)\. It", text("docs/reference/filters.md"), re.DOTALL)
    order = {filter_.order: kind for kind, filter_ in FILTERS.items()}
    assert re.findall(r"`([\w-]+)`", sentence) == [kind for _, kind in sorted(order.items())], "order in filters.md"
    assert len(order) == len(FILTERS), "two filters have the same order"


def test_every_folder_is_in_the_map() -> None:
    listed = text("ARCHITECTURE.md")
    files = [p.relative_to(ROOT) for name in PACKAGES for p in (ROOT / name).rglob("*.py")]
    assert sorted({f"`{file.parent}/`" for file in files if f"`{file.parent}/`" not in listed}) == []


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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_of_the_code_exist(page: Path) -> None:
    """The changelog has paths of their time, and NAME stands for a file that a reader writes."""
    folders = "|".join((*PACKAGES, "tests", "benchmarks", "examples", "docs"))
    named = re.findall(rf"`((?:{folders})/[\w/.-]+)`", page.read_text())
    wanted = [n for n in named if "NAME" not in n and page.name != "CHANGELOG.md"]
    assert [name for name in wanted if not (ROOT / name).exists()] == []


def test_the_changelog_has_the_version() -> None:
    version = tomllib.loads(text("pyproject.toml"))["project"]["version"]
    assert f"## [{version}]" in text("CHANGELOG.md")
