"""Configuration mistakes get one clear message each."""

from pathlib import Path

import pytest
from pydantic import Field

from verl_lite.errors import ConfigError
from verl_lite.plugins import ConfigModel, load_config


class Inner(ConfigModel):
    num_steps: int = 1


class Outer(ConfigModel):
    inner: Inner = Inner()
    parts: dict[str, Inner] = Field(default_factory=dict)


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return path


def test_overrides_replace_nested_values(tmp_path: Path) -> None:
    path = write(tmp_path, "inner: {num_steps: 3}\n")
    assert load_config(Outer, path, ["inner.num_steps=5", "parts.a.num_steps=2"]) == Outer(
        inner=Inner(num_steps=5), parts={"a": Inner(num_steps=2)}
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("inner: {num_step: 3}", "unknown key 'inner.num_step': did you mean 'num_steps'?"),
        ("parts: {a: {num_step: 3}}", "unknown key 'parts.a.num_step': did you mean 'num_steps'?"),
        ("iner: {}", "unknown key 'iner': did you mean 'inner'?"),
        ("inner: {num_steps: many}", "inner.num_steps: input should be a valid integer"),
        ("- 1", "expected a mapping"),
        ("a: [", "not valid YAML"),
        ("parts:\n  a: {}\n  a: {}\n", "the key 'a' occurs twice in one mapping"),
        ("parts: &p {a: *p}", "refers to itself"),
        ("parts: " + "[" * 5000, "not valid YAML"),
        ("parts: !!python/object:os.system {}", "not valid YAML"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(Outer, write(tmp_path, text))
    assert message in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the config .*absent\.yaml"):
        load_config(Outer, tmp_path / "absent.yaml")


def test_merged_keys_may_be_overridden(tmp_path: Path) -> None:
    text = "parts:\n  a: &a {num_steps: 3}\n  b: {<<: *a, num_steps: 4}\n"
    assert load_config(Outer, write(tmp_path, text)).parts == {
        "a": Inner(num_steps=3),
        "b": Inner(num_steps=4),
    }
