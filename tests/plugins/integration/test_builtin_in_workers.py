"""Built-in rewards in the processes that they run in: what only shows there."""

import subprocess
import sys

from verl_lite.plugins import RewardsConfig, Rollout, Scorer
from verl_lite.plugins.builtin import JsonSchemaReward
from verl_lite.plugins.testing import score_rollouts

PERSON = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


def test_a_json_schema_s_reference_elsewhere_is_never_fetched() -> None:
    rollouts = [Rollout(completion='{"name": "Ada"}'), Rollout(completion="{}")]
    found = score_rollouts(JsonSchemaReward, rollouts, json_schema=PERSON)
    assert [timed.score.value for timed in found] == [1.0, 0.0]
    elsewhere = {"$ref": "http://127.0.0.1:9/schema.json"}
    [timed] = score_rollouts(JsonSchemaReward, rollouts[:1], json_schema=elsewhere)
    assert timed.score.outcome.value == "error"
    assert "Unresolvable" in timed.score.reason


def test_json_schema_without_its_package_names_the_extra() -> None:
    code = (
        "import sys\n"
        "sys.modules['jsonschema'] = None\n"
        "from verl_lite.plugins import RewardsConfig, Scorer\n"
        "def scorer(**options):\n"
        "    return Scorer(RewardsConfig(rewards={'j': {'use': 'json_schema', 'options': options}}))\n"
        "scorer()\n"
        "try:\n"
        "    scorer(json_schema={})\n"
        "except ValueError as error:\n"
        "    print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("ConfigError rewards.j.options of reward 'json_schema': json_schema: ")
    assert "pip install 'verl-lite[json]'" in done.stdout


def test_the_values_of_process_arrive_at_the_tokens() -> None:
    config = RewardsConfig.model_validate({"rewards": {"steps": {"use": "process", "weight": 0.5}}})
    text = "1 + 1 = 3\nok"
    rollout = Rollout(completion=text, completion_ids=[ord(char) for char in text])
    with Scorer(config, workers=1, decode=lambda ids: "".join(map(chr, ids))) as scorer:
        [row] = scorer.score([rollout]).rows
    assert list(row.token_rewards) == [0.0] * 8 + [-0.5] + [0.0] * 3  # on the 3
