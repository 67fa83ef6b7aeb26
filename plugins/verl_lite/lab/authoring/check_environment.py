"""`verl-lite plugins check` for environments and tools: played with odd messages, in worker processes."""

import asyncio
from collections.abc import Sequence

from verl_lite.errors import EnvironmentFailed, PluginError
from verl_lite.lab.authoring.checks import PluginReport
from verl_lite.lab.authoring.describe import undocumented_options
from verl_lite.lab.check import Finding, Level
from verl_lite.plugins import EnvironmentDefinition, Message, RewardCatalog, ToolDefinition
from verl_lite.plugins.environments import EnvironmentConfig, Environments, ToolConfig
from verl_lite.plugins.environments.binding import bind

MAX_TURNS = 64  # of the trajectory that looks for an end
ROW = {"prompt": [{"role": "user", "content": "What is 2 + 2?"}], "goal": "2 + 2", "reference": "4"}
_ODD = {
    "nothing": "",
    "blanks": " \n\t ",
    "a long text": "word " * 20_000,
    "a long number": "9" * 10_000,
    "control characters": "\x00\x1b[31m\r\x7f",
    "other scripts": "四 ÷ ٤ 🎉 e\u0301 \u202e4",
    "JSON": '{"action": null}',
}
_ODD_ARGUMENTS = ("", "null", "[]", "{", '{"unknown": 1}', "[" * 5_000)


def check_environment(use: str, definition: EnvironmentDefinition, catalog: RewardCatalog) -> PluginReport:
    """Does the environment that `use` names keep the contract? On a row with a prompt, with its defaults.

    Raises ConfigError where it needs options.
    """
    config = EnvironmentConfig(use=use, workers=4)
    binding = bind(config, (), catalog)
    findings = _documented(definition)
    try:
        with Environments(config, binding=binding) as host:
            findings += asyncio.run(_played(host))
    except (EnvironmentFailed, PluginError) as error:
        findings.append(Finding("starts", Level.FAIL, str(error)))
    return _report(definition, findings)


def check_tool(use: str, definition: ToolDefinition, catalog: RewardCatalog) -> PluginReport:
    """Does the tool that `use` names keep the contract? Called with arguments that do not fit."""
    config = EnvironmentConfig(workers=4)
    binding = bind(config, (ToolConfig(use=use),), catalog)
    (bound,) = binding.tools
    findings = [*_documented(definition), _described(bound.signature().schema["function"]["parameters"])]
    try:
        with Environments(config, binding=binding) as host:
            findings.append(asyncio.run(_called(host, bound.name)))
    except (EnvironmentFailed, PluginError) as error:
        findings.append(Finding("starts", Level.FAIL, str(error)))
    return _report(definition, findings)


def _report(definition: EnvironmentDefinition | ToolDefinition, findings: Sequence[Finding]) -> PluginReport:
    return PluginReport(
        reward=definition.name,
        distribution=definition.distribution,
        num_rollouts=len(_ODD) if definition.kind == "environment" else len(_ODD_ARGUMENTS),
        golden_files=(),
        findings=tuple(findings),
    )


def _documented(definition: EnvironmentDefinition | ToolDefinition) -> list[Finding]:
    bare = undocumented_options(definition.options_model, definition.call)
    says = Level.OK if definition.summary else Level.WARN
    text = "it says what it is" if definition.summary else "it has no docstring: users and models see nothing"
    options = f"not documented: {', '.join(bare)}; give Field(description=...)" if bare else "all documented"
    return [
        Finding("docstring", says, text),
        Finding("options", Level.WARN if bare else Level.OK, options),
    ]


def _described(parameters: dict[str, object]) -> Finding:
    properties = parameters.get("properties")
    assert isinstance(properties, dict)
    bare = [name for name, schema in properties.items() if not schema.get("description")]
    if bare:
        message = f"the model is not told what {', '.join(bare)} is: describe it in the docstring's `Args:`"
        return Finding("arguments", Level.WARN, message, {"bare": bare})
    return Finding("arguments", Level.OK, "every argument is described")


async def _played(host: Environments) -> list[Finding]:
    """Odd messages, each in a trajectory of its own; two trajectories of one seed; a long one."""
    failures = []
    for name, text in _ODD.items():
        try:
            await _replies(host, [text])
        except EnvironmentFailed as error:
            failures.append(f"{name}: {error}")
    if failures:
        odd = Finding("odd input", Level.FAIL, "; ".join(failures[:3]))
    else:
        odd = Finding("odd input", Level.OK, f"{len(_ODD)} odd messages are answered")
    texts = ["4", "yes", "no"]
    one, other = await asyncio.gather(*(_replies(host, texts) for _ in range(2)))
    same = Finding("determinism", Level.OK, "one seed gives one trajectory")
    if one != other:
        message = "two trajectories of one seed and the same replies differ: use `random`, which is seeded"
        same = Finding("determinism", Level.WARN, message)
    return [odd, same, await _ending(host)]


async def _ending(host: Environments) -> Finding:
    try:
        found = await _replies(host, ["4"] * MAX_TURNS)
    except EnvironmentFailed as error:
        return Finding("ending", Level.FAIL, f"a long trajectory fails: {error}")
    if found[-1] != "end":
        message = f"it does not end within {MAX_TURNS} turns of the reply '4': max_turns must"
        return Finding("ending", Level.NOTE, message)
    return Finding("ending", Level.OK, f"it ends after {len(found) - 2} messages")


async def _replies(host: Environments, texts: Sequence[str]) -> list[str]:
    """The contents of what the environment says, and "end" where it ended."""
    session = host.open(ROW, seed=1)
    try:
        said = [message["content"] for message in await session.reset()]
        for text in texts:
            step = await session.step(Message(role="assistant", content=text))
            said += [message["content"] for message in step.messages]
            if step.done:
                return [*said, "end"]
        return said
    finally:
        await session.close()


async def _called(host: Environments, name: str) -> Finding:
    session = host.open(ROW, seed=1)
    await session.reset()
    outcomes = []
    for arguments in _ODD_ARGUMENTS:
        function = {"name": name, "arguments": arguments}
        message = Message(role="assistant", content="")
        message["tool_calls"] = [{"id": "1", "type": "function", "function": function}]  # type: ignore[typeddict-item]
        step = await session.step(message)
        outcomes.append(step.outcomes[0])
    await session.close()
    message_text = f"{len(outcomes)} calls that do not fit are answered: {', '.join(dict.fromkeys(outcomes))}"
    late = "timeout" in outcomes
    return Finding("odd input", Level.WARN if late else Level.OK, message_text)
