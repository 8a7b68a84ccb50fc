"""Databases of users are named in the configuration, and their secrets stay there."""

import pytest
from pydantic import ValidationError

from app.settings import Settings


def test_a_connection_is_named_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_CONNECTIONS__SHOP", "postgresql://reader:hunter2@db/shop")
    settings = Settings()
    assert settings.connections["shop"].get_secret_value() == "postgresql://reader:hunter2@db/shop"
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in settings.model_dump_json()


@pytest.mark.parametrize(
    ("name", "url", "said"),
    [
        ("SHOP", "mysql://reader:hunter2@db/shop", "begins with postgresql://"),
        ("MILLRACE", "postgresql://reader:hunter2@db/shop", "is not millrace"),
        ("9TO5", "postgresql://reader:hunter2@db/shop", "letters, digits and underscores"),
    ],
)
def test_a_connection_that_is_none_is_refused_without_its_secret(
    monkeypatch: pytest.MonkeyPatch, name: str, url: str, said: str
) -> None:
    monkeypatch.setenv(f"MILLRACE_CONNECTIONS__{name}", url)
    with pytest.raises(ValidationError) as refused:
        Settings()
    [problem] = refused.value.errors(include_input=False, include_context=False)
    assert said in problem["msg"]
    assert "hunter2" not in problem["msg"]
