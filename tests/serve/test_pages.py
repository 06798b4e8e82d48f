"""Pages are filled from templates: texts are escaped, and a name that a template lacks is an error."""

from __future__ import annotations

import pytest
from jinja2 import DictLoader, UndefinedError

from serve import pages

HOSTILE = '<script>alert("x")</script>&amp;\''


@pytest.fixture(autouse=True)
def template(monkeypatch: pytest.MonkeyPatch) -> None:
    text = '<p title="{{ words }}">{{ words }}</p>{{ more }}'
    monkeypatch.setattr(pages._TEMPLATES, "loader", DictLoader({"page.html": text}))


def test_every_text_is_escaped() -> None:
    escaped = "&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt;&amp;amp;&#39;"
    page = pages.render("page.html", words=HOSTILE, more=1)
    assert page == f'<p title="{escaped}">{escaped}</p>1'


def test_a_missing_value_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="'more' is undefined"):
        pages.render("page.html", words="")
