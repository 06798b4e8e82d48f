"""Templates: every text of the page has a German translation, and no translation is left over."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest
from pydantic_core._pydantic_core import list_all_errors
from starlette.testclient import TestClient

import pages
from archive.formats.file_formats import FORMATS
from batch.filters.registry import FILTERS
from batch.publishing.impact.verdict import RULES
from pages.forms import fields_of
from pages.html import LANGUAGES, STATIC, explain, messages, number, static_digest

FOLDER = Path(pages.__file__).parent
CALL = re.compile(r"""\bt\(\s*((?:"(?:[^"\\]|\\.)*"\s*)+|'[^']*')""")


def texts() -> set[str]:
    """Return the English texts of all calls t("…") in modules, templates and scripts."""
    files = [file for suffix in ("py", "html", "js") for file in FOLDER.rglob(f"*.{suffix}")]
    files += (FOLDER.parent / "batch/publishing").rglob("*.py")
    found = [text for file in files for text in CALL.findall(file.read_text(encoding="utf-8"))]
    of_code = {ast.literal_eval(f"({text})") for text in found} - {"…", "English text with {n}"}
    return of_code | described()


def described() -> set[str]:
    """Return the texts of filters and of formats, with those of their fields, which their pages show."""
    forms = [*(entry.config for entry in FILTERS.values()), *(fmt.option_class for fmt in FORMATS.values())]
    helps = {field.help for form in forms for field in fields_of(form)} | {fmt.description for fmt in FORMATS.values()}
    return helps | {entry.what for entry in FILTERS.values()} | {words for _, _, words in RULES.values()}


@pytest.mark.parametrize("language", LANGUAGES[1:])
def test_each_text_is_translated_with_the_same_values(language: str) -> None:
    translated = messages(language)
    assert sorted(texts() - set(translated)) == [], "without a translation"
    assert sorted(set(translated) - texts()) == [], "of no text"
    for text, other in translated.items():
        assert sorted(re.findall(r"\{\w+[^}]*\}", text)) == sorted(re.findall(r"\{\w+[^}]*\}", other)), text


def templates() -> set[str]:
    """Return the texts of the server's packages and of pydantic, with {} for each value."""
    folders = ("archive", "batch", "model_store", "pages", "serve")
    files = [file for name in folders for file in (FOLDER.parent / name).rglob("*.py")]
    found = {re.sub(r"\{\w+\}", "{}", error["message_template_python"]) for error in list_all_errors()}
    for node in (node for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))):
        if isinstance(node, ast.JoinedStr):
            found.add("".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values))
        elif isinstance(node, ast.Constant):
            found.add(str(node.value))
    return found


@pytest.mark.parametrize("language", LANGUAGES[1:])
def test_each_translated_problem_is_one_of_the_server(language: str) -> None:
    text = (FOLDER / "locales" / f"{language}.problems.json").read_text(encoding="utf-8")
    translated = json.loads(text)
    of_server = templates()
    assert [english for english in translated if re.sub(r"\{\w+\}", "{}", english) not in of_server] == []
    assert text == json.dumps(translated, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
    for english, other in translated.items():
        names = re.findall(r"\{(\w+)\}", english)
        assert set(re.findall(r"\{([^}]*)\}", other)) <= set(names), english
        values = {name: f"<{name}>" for name in names}
        assert explain(language, english.format(**values)) == other.format(**values)


def test_a_message_within_a_message_is_translated_too() -> None:
    text = "unknown camera 'nort'; did you mean 'north'?"
    assert explain("de", text) == "unbekannt: camera 'nort'; meinten Sie 'north'?"
    assert explain("de", f"scope: {text}") == "scope: unbekannt: camera 'nort'; meinten Sie 'north'?"
    assert explain("en", text) == text
    assert explain("de", "KeyError; see the replica's log") == "KeyError; see the replica's log"


def test_the_language_is_chosen_by_the_browser_and_then_by_the_visitor(client: TestClient) -> None:
    german = {"accept-language": "de-CH,de;q=0.9,en;q=0.5"}
    assert "Übersicht" in client.get("/ui/", headers=german).text
    assert "Overview" in client.get("/ui/").text
    client.cookies.set("resight_language", "en")
    assert "Overview" in client.get("/ui/", headers=german).text


def test_numbers_have_the_signs_of_the_language() -> None:
    assert [number("en", value) for value in (None, 0, 1234567)] == ["\u2013", "0", "1\u202f234\u202f567"]
    assert [number("de", value, ",.1f") for value in (1234.56, 0.25)] == ["1\u202f234,6", "0,2"]
    assert (number("en", 0.25, ".0%"), number("de", 0.25, ".0%")) == ("25%", "25\u202f%")


def test_no_template_has_a_script_or_a_style_of_its_own() -> None:
    """The content security policy would block both."""
    for file in (FOLDER / "templates").glob("*.html"):
        text = file.read_text(encoding="utf-8")
        scripts = re.findall(r"<script\b[^>]*>", text)
        assert all("src=" in tag or "application/json" in tag for tag in scripts), file.name
        assert not re.search(r"<style|\sstyle=|\son\w+=", text), file.name
        assert "| safe" not in text, file.name


def test_files_are_kept_by_browsers_until_one_of_them_changes(client: TestClient) -> None:
    file = client.get(f"/ui/static/{static_digest()}/page.css")
    assert file.status_code == 200
    assert "immutable" in file.headers["cache-control"]
    assert file.content == (STATIC / "page.css").read_bytes()
    assert client.get("/ui/static/0000/page.css").headers["cache-control"] == "no-store"
    assert client.get(f"/ui/static/{static_digest()}/../html.py").status_code == 404


def test_pages_have_a_policy_and_an_error_is_a_page(client: TestClient) -> None:
    page = client.get("/ui/")
    assert "script-src" not in page.headers["content-security-policy"], "'self' by default-src"
    assert page.headers["x-content-type-options"] == "nosniff"
    missing = client.get("/ui/no-such-page")
    assert missing.status_code == 404
    assert "unknown path /ui/no-such-page" in missing.text
    assert missing.headers["content-type"].startswith("text/html")
    assert "in English" not in missing.text
    german = {"accept-language": "de"}
    assert "<span>unbekannter Pfad /ui/no-such-page" in client.get("/ui/no-such-page", headers=german).text
    rare = client.get("/ui/images?nonsense=1", headers=german).text
    assert "Meldung des Servers, auf Englisch:" in rare
    assert '<span lang="en">' in rare
    assert client.get("/ui/v1/none").headers["content-type"] == "application/problem+json"
