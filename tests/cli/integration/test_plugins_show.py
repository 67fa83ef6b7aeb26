"""`verl-lite plugins show`: what a reward does and takes."""

import json
from pathlib import Path

from typer.testing import CliRunner

from verl_lite.cli.app import app

RUN = CliRunner()


def test_show_prints_the_docstring_and_the_options() -> None:
    done = RUN.invoke(app, ["plugins", "show", "length"])
    assert done.exit_code == 0
    assert done.stdout.startswith("length (verl-lite), version 1\n\nA value for the completion's length")
    assert "called with one rollout, in the trainer's process, deadline 10 s\n" in done.stdout
    assert (
        "\n  zero_at: whole number, above 0, or `null`, default null\n"
        "      linear: the length from which the value is 0.0; by default twice `target`\n" in done.stdout
    )
    assert "\n  unit: `tokens`, `words` or `characters`, default tokens\n      what is" in done.stdout
    assert done.stdout.endswith('  length: {use: "length", weight: 1.0, options: {...}}\n')


def test_schema_is_the_json_schema_of_the_options() -> None:
    done = RUN.invoke(app, ["plugins", "show", "length", "--schema"])
    schema = json.loads(done.stdout)
    assert schema["additionalProperties"] is False
    assert schema["properties"]["target"]["default"] == 256


def test_json_describes_a_local_file(tmp_path: Path) -> None:
    (tmp_path / "shown_rewards.py").write_text(
        "from pydantic import BaseModel\n"
        "from verl_lite.plugins import reward\n"
        "class Options(BaseModel):\n"
        "    words: list[str]\n"
        "@reward('has-words', options=Options, form='batch', timeout_s=3)\n"
        "async def has_words(rollouts, options):\n"
        "    return [0.0 for _ in rollouts]\n"
    )
    use = f"{tmp_path}/shown_rewards.py:has_words"
    data = json.loads(RUN.invoke(app, ["plugins", "show", use, "--json"]).stdout)
    assert (data["name"], data["form"], data["is_async"], data["timeout_s"]) == (
        "has-words",
        "batch",
        True,
        3,
    )
    assert data["docstring"] == data["options_docstring"] == ""
    assert data["options"] == [
        {
            "name": "words",
            "values": "list (text)",
            "default": "",
            "is_required": True,
            "description": "",
            "is_documented": False,
        }
    ]
    text = RUN.invoke(app, ["plugins", "show", use]).stdout
    assert "(it has no docstring)" in text
    assert "called with rollouts in batches, on the event loop, deadline 3 s" in text
    assert "  words: list (text), required\n" in text
