"""Read a page as a browser would: its elements, and what a form of it sends."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"input", "option", "img", "meta", "link", "br"}


class Page(HTMLParser):
    """`elements` are (tag, attributes, texts); `sent` is what the form with a class sends, without a button."""

    def __init__(self, text: str, form: str = "fields") -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str], list[str]]] = []
        self.sent: list[tuple[str, str]] = []
        self._form, self._inside, self._area, self._select = form, False, "", ""
        self._open: list[list[str]] = []
        self.feed(text)

    def with_id(self, value: str) -> tuple[str, dict[str, str], str]:
        ((tag, attributes, texts),) = [e for e in self.elements if e[1].get("id") == value]
        return tag, attributes, "".join(texts).strip()

    def named(self, name: str) -> list[dict[str, str]]:
        return [attributes for _, attributes, _ in self.elements if attributes.get("name") == name]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        texts: list[str] = []
        self.elements.append((tag, given, texts))
        if tag not in VOID:
            self._open.append(texts)
        if tag == "form":
            self._inside = given.get("class") == self._form
        if not self._inside:
            return
        name, kind = given.get("name", ""), given.get("type", "text")
        if tag == "select":
            self._select = name
        elif tag == "option" and "selected" in given:
            self.sent.append((self._select, given.get("value", "?")))
        elif tag == "textarea":
            self._area = name
            self.sent.append((name, ""))
        elif tag == "input" and name and _is_sent(kind, given):
            self.sent.append((name, given.get("value", "")))

    def handle_data(self, data: str) -> None:
        for texts in self._open:
            texts.append(data)
        if self._area:
            name, before = self.sent.pop()
            self.sent.append((name, before + (data if before else data.removeprefix("\n"))))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID and self._open:
            self._open.pop()
        if tag == "form":
            self._inside = False
        elif tag == "textarea":
            self._area = ""


def _is_sent(kind: str, given: dict[str, str]) -> bool:
    return kind not in ("checkbox", "radio", "file") or "checked" in given
