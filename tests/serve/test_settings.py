"""Places and secrets come from variables; an empty one is not a place."""

from __future__ import annotations

import pytest

from serve.settings import Settings


@pytest.mark.parametrize("field", list(Settings.model_fields))
def test_an_empty_variable_is_one_that_is_not_set(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"RESIGHT_{field.upper()}"
    monkeypatch.delenv(name, raising=False)
    unset = Settings()
    monkeypatch.setenv(name, "")
    assert Settings() == unset
