"""Preference rows under their own template variables, in TRL's column `chat_template_kwargs`."""

import json
from pathlib import Path
from typing import Any

import pytest

from verl_lite.engine.preference import DPOConfig, chat_ids, read_rankings, reply_ids
from verl_lite.engine.preference.data import Tokenise
from verl_lite.errors import DataError


def config(folder: Path, rows: list[dict[str, Any]]) -> DPOConfig:
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps({"chosen": "yes", "rejected": "no", **row}) + "\n" for row in rows))
    data = {"train": {"path": str(path)}, "held_out_fraction": 0, "max_tokens": 10_000}
    return DPOConfig.model_validate({"model": {"path": "any"}, "data": data})


@pytest.mark.parametrize("tokenise", [reply_ids, chat_ids])
def test_a_row_s_variables_reach_the_template(tokenise: Tokenise, tmp_path: Path, chat_families: Any) -> None:
    """DPO's replies and a reward model's conversations; Arrow gives every object the keys of all others."""
    values = [{"date_string": "1 Jan 1970"}, '{"date_string": "1 Jan 1970"}', {"date_string": None}, None]
    rows = [{"prompt": f"q{at}", "chat_template_kwargs": value} for at, value in enumerate(values)]
    template = chat_families["llama3.2"].template()
    found = read_rankings(config(tmp_path, rows), template, tokenise).train
    prompts = [template.tokenizer.decode(ranking.samples[0].prompt_ids) for ranking in found]
    assert ["1 Jan 1970" in prompt for prompt in prompts] == [True, True, False, False]


def test_a_variable_that_the_template_never_reads_is_refused_with_the_row(
    tmp_path: Path, chat_families: Any
) -> None:
    rows = [{"prompt": "q"}, {"prompt": "q", "chat_template_kwargs": {"enable_thinkin": False}}]
    with pytest.raises(DataError, match=r"row 1, column 'chat_template_kwargs': .*enable_thinkin"):
        read_rankings(config(tmp_path, rows), chat_families["qwen3"].template(), reply_ids)
