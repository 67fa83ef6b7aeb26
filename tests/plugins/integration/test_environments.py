"""Environments and tools in worker processes: what they do to themselves stays theirs."""

import asyncio
import json
import os
import time
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from verl_lite.errors import ConfigError, EnvironmentFailed, PluginError, SandboxError
from verl_lite.plugins.environments import EnvironmentConfig, Environments, ToolConfig, ToolsConfig

FILE = Path(__file__).parents[1] / "fixtures" / "environment_tools.py"
PROMPT = {"prompt": [{"role": "user", "content": "Hello?"}]}
TOOLS = """add wait fail hang spin die leave vanish fork_and_return fork_a_sleeper megabytes no_json surrogate
pid count_up Counter""".split()


def call(name: str, arguments: object = None, identity: str = "1") -> dict:
    text = arguments if isinstance(arguments, str) else json.dumps(arguments or {})
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": text}}


def asking(*calls: dict) -> dict:
    return {"role": "assistant", "content": "", "tool_calls": list(calls)}


def tools(*names: str) -> list[ToolConfig]:
    return [ToolConfig(use=f"{FILE}:{name}") for name in names]


@pytest.fixture(scope="module")
def host():
    with Environments(EnvironmentConfig(workers=8, max_result_chars=1000), tools(*TOOLS)) as host:
        yield host


def answers(host: Environments, *calls: dict):
    async def play():
        session = host.open(PROMPT, seed=0)
        await session.reset()
        found = await session.step(asking(*calls))
        await session.close()
        return found

    return asyncio.run(play())


@pytest.mark.parametrize(
    ("name", "arguments", "outcome", "text"),
    [
        ("add", {"a": 2, "b": "40"}, "ok", "42"),
        ("wait", {"seconds": 0.01}, "ok", "done"),
        ("fail", {}, "error", "Error: ValueError: no"),
        ("hang", {}, "timeout", "no result within 0.4 s"),
        ("spin", {}, "timeout", "no result within 0.4 s"),
        ("die", {}, "error", "lost its worker process to SIGSEGV"),
        ("leave", {}, "error", "Error: SystemExit: 3"),
        ("vanish", {}, "error", "ended its worker process with exit code 7"),
        ("fork_and_return", {}, "ok", "parent"),
        ("fork_a_sleeper", {}, "ok", "ok"),
        ("megabytes", {}, "truncated", "[4999000 more characters were cut]"),
        ("no_json", {}, "ok", "class 'object'"),
        ("count_up", {"n": 3}, "ok", "[0,1,2]"),
        ("surrogate", {}, "ok", "a\ufffdb"),
        ("multiply", {}, "unknown_tool", "there is no tool 'multiply'; there are: add, wait"),
        ("add", {"a": 2}, "malformed", "b: Missing required argument"),
        ("add", {"a": 2, "b": 3, "c": 4}, "malformed", "c: Unexpected keyword argument"),
        ("add", {"a": "two", "b": 3}, "malformed", 'got "two"'),
        ("add", "{a: 2", "malformed", "not valid JSON"),
        ("add", "[1, 2]", "malformed", "must be a JSON object"),
        ("", {}, "malformed", "needs a function with a name"),
    ],
)
def test_whatever_a_tool_does_the_model_gets_one_clear_answer(host, name, arguments, outcome, text):
    found = answers(host, call(name, arguments))
    (message,) = found.messages
    assert found.outcomes == (outcome,), message
    assert text in message["content"]
    assert len(message["content"]) < 1200
    assert (message["role"], message["tool_call_id"], message["name"]) == ("tool", "1", name)


def test_calls_of_one_message_and_of_many_trajectories_run_at_the_same_time(host):
    async def play():
        async def one(number):
            session = host.open(PROMPT, seed=number)
            await session.reset()
            found = await session.step(asking(call("wait", {"seconds": 0.5}), call("add", {"a": 1, "b": 1})))
            await session.close()
            return found

        await one(0)  # the processes are there
        began = time.perf_counter()
        found = await asyncio.gather(*(one(number) for number in range(4)))
        return found, time.perf_counter() - began

    found, seconds = asyncio.run(play())
    assert [step.outcomes for step in found] == [("ok", "ok")] * 4
    assert min(min(step.seconds[0] for step in found), 0.6) >= 0.5
    assert seconds < 4 * 0.5  # one after another would be 2 s


def test_a_tool_with_state_has_one_per_trajectory_and_loses_it_only_when_it_dies(host):
    async def play():
        one, other = host.open(PROMPT, seed=0), host.open(PROMPT, seed=1)
        texts = []
        for session, by in ((one, 1), (one, 2), (other, 5), (one, 13), (one, 1), (other, 1)):
            found = await session.step(asking(call("counter", {"by": by})))
            texts.append(found.messages[0]["content"])
        await one.close()
        await other.close()
        return texts

    async def ready():
        await host.open(PROMPT, seed=0).reset()

    asyncio.run(ready())
    texts = asyncio.run(play())
    assert [texts[0], texts[1], texts[2], texts[4], texts[5]] == ["1", "3", "5", "1", "6"]
    assert "exit code 1; it lost its state" in texts[3]


def test_many_more_trajectories_than_processes_all_end_and_none_is_late():
    """Each holds an environment and a tool with state, so that waiting for a second process would block."""

    async def one(host, number):
        session = host.open({"secret": 1}, seed=number)
        await session.reset()
        found = await session.step(asking(call("counter"), call("wait", {"seconds": 0.2})))
        last = await session.step({"role": "assistant", "content": "1"})
        await session.close()
        return found.outcomes, last.done

    async def play(host):
        return await asyncio.gather(*(one(host, number) for number in range(12)))

    given = [*tools("Counter"), ToolConfig(use=f"{FILE}:wait", timeout_s=0.8)]
    with Environments(EnvironmentConfig(use=f"{FILE}:Guess", workers=2), given) as host:
        assert asyncio.run(play(host)) == [(("ok", "ok"), True)] * 12


def test_a_sandbox_that_cannot_isolate_is_no_fault_of_the_model(monkeypatch):
    from verl_lite.sandbox import sandbox

    def refuses(*_: object, **__: object) -> None:
        raise SandboxError("cannot isolate programs here")

    monkeypatch.setattr(sandbox.Sandbox, "_choose", refuses)
    python = [ToolConfig(use="python")]
    with Environments(tools=python) as host, pytest.raises(EnvironmentFailed, match="cannot isolate"):
        asyncio.run(host.open(PROMPT, seed=0).reset())


def test_a_host_may_be_closed_on_a_running_event_loop():
    async def play():
        with Environments(tools=[ToolConfig(use="calculator")]) as host:
            session = host.open(PROMPT, seed=0)
            await session.reset()
            return await session.step(asking(call("calculator", {"expression": "6*7"})))

    assert asyncio.run(play()).messages[0]["content"] == "42"


def test_a_message_without_calls_ends_a_trajectory_that_has_tools_alone(host):
    async def play(content):
        session = host.open(PROMPT, seed=0)
        assert await session.reset() == PROMPT["prompt"]
        found = await session.step({"role": "assistant", "content": content})
        await session.close()
        return found

    for content in ("42", ""):
        found = asyncio.run(play(content))
        assert found.done
        assert not found.messages


def test_objects_partials_and_what_another_library_made_reach_the_workers():
    file = FILE.with_name("odd_tools.py")
    paths = {"box": "20", "named": "q K 3", "Box.of_class": "Box2", "cached": "3", "object_of_peer.func": "4"}
    given = [ToolConfig(use=f"{file}:{path}", name=f"t{at}") for at, path in enumerate(paths)]
    with Environments(EnvironmentConfig(workers=2), given) as host:
        arguments = ({"query": "q"} if path == "named" else {"n": 2} for path in paths)
        found = answers(host, *(call(f"t{at}", one) for at, one in enumerate(arguments)))
    assert [message["content"] for message in found.messages] == list(paths.values())


def test_two_tools_of_an_environment_under_one_name_are_its_error():
    with (
        guess("twice") as host,
        pytest.raises(EnvironmentFailed, match="two of its tools have one name: hint, hint"),
    ):
        answers(host)


def test_tools_declare_their_schema(host):
    session = host.open(PROMPT, seed=0)
    by_name = {schema["function"]["name"]: schema["function"] for schema in session.tools}
    assert by_name["add"] == {
        "name": "add",
        "description": "Add two integers.",
        "parameters": {
            "type": "object",
            "additionalProperties": False,
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
        },
    }
    assert by_name["counter"]["description"] == "Counts the calls of a trajectory."


def guess(mood: str = "kind", **fields: object) -> Environments:
    options = {"mood": mood}
    if mood == "hang":  # also the time in which its `reset` has to answer
        fields["timeout_s"] = 4.0
    return Environments(EnvironmentConfig(use=f"{FILE}:Guess", options=options, workers=4, **fields))


def test_an_environment_answers_offers_tools_and_ends():
    async def play(host):
        session = host.open({"secret": 6}, seed=0)
        first = await session.reset()
        hint = await session.step(asking(call("hint"), call("other")))
        wrong = await session.step({"role": "assistant", "content": "5"})
        nothing = await session.step({"role": "assistant", "content": ""})
        right = await session.step({"role": "assistant", "content": "6"})
        names = [schema["function"]["name"] for schema in session.tools]
        await session.close()
        await session.close()
        return first, hint, wrong, nothing, right, names

    with guess() as host:
        first, hint, wrong, nothing, right, names = asyncio.run(play(host))
    assert first == ({"role": "user", "content": "Guess a number. kind"},)
    assert names == ["hint"]
    assert [message["content"] for message in hint.messages] == [
        "even",
        "Error: there is no tool 'other'; there are: hint",
    ]
    assert hint.outcomes == ("ok", "unknown_tool")
    assert wrong.messages[0]["content"] == "not 5"
    assert nothing.messages[0]["content"] == "not nothing"
    assert right.done
    assert right.details == {"won": True}


def test_the_seed_is_the_trajectory_s(tmp_path):
    async def secrets(host, seeds):
        found = []
        for seed in seeds:
            session = host.open({}, seed=seed)
            await session.reset()
            tries = [await session.step({"role": "assistant", "content": str(n)}) for n in range(1, 11)]
            found.append([answer.done for answer in tries].index(True))
            await session.close()
        return found

    with guess() as host:
        found = asyncio.run(secrets(host, [1, 2, 3, 4, 1, 2, 3, 4]))
    assert found[:4] == found[4:]
    assert len(set(found)) > 1


@pytest.mark.parametrize(
    ("mood", "why"),
    [
        ("raise", "environment 'guess': step 1: KeyError: 'x'"),
        ("hang", "step 1: no answer within 4 s; it was stopped"),
        ("die", "step 1: ended its worker process with exit code 1"),
        ("nothing", "step must return a Step(messages=[...], done=..., details={...}), got NoneType"),
        ("empty", "no message and done=False"),
        ("rude", "messages with a role of user, system, tool"),
    ],
)
def test_an_environment_that_fails_is_an_error_of_its_trajectory_alone(mood, why):
    async def play(host):
        other = host.open({"secret": 1}, seed=0)
        await other.reset()
        session = host.open({"secret": 1}, seed=0)
        await session.reset()
        with pytest.raises(EnvironmentFailed) as failure:
            await session.step({"role": "assistant", "content": "5"})
        with pytest.raises(EnvironmentFailed):
            await session.step({"role": "assistant", "content": "5"})
        await session.close()
        with pytest.raises(EnvironmentFailed, match="step 1"):
            await other.step({"role": "assistant", "content": "5"})
        await other.close()
        return str(failure.value)

    with guess(mood) as host:
        assert why in asyncio.run(play(host))


def test_a_long_message_of_an_environment_is_cut_and_counted():
    async def play(host):
        session = host.open({}, seed=0)
        await session.reset()
        return await session.step({"role": "assistant", "content": "5"})

    with guess("long", max_result_chars=50) as host:
        found = asyncio.run(play(host))
    assert found.outcomes == ("truncated",)
    assert found.messages[0]["content"] == "x" * 50 + "\n[99950 more characters were cut]"


def test_closing_the_host_ends_every_process():
    async def play(host):
        session = host.open(PROMPT, seed=0)
        await session.reset()
        found = await session.step(asking(call("pid")))
        return int(found.messages[0]["content"])

    with Environments(tools=tools("pid")) as host:
        pid = asyncio.run(play(host))
        assert os.path.exists(f"/proc/{pid}")
    deadline = time.monotonic() + 60
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not os.path.exists(f"/proc/{pid}")


@pytest.mark.parametrize(
    ("environment", "given", "error", "why"),
    [
        ({"use": "gues"}, [], PluginError, "there is no environment 'gues'"),
        ({"use": f"{FILE}:Gues"}, [], PluginError, "did you mean 'Guess'"),
        ({"use": f"{FILE}:Guess", "options": {"hihg": 3}}, [], ConfigError, "options"),
        ({"use": f"{FILE}:Counter"}, [], PluginError, "no reset and no step"),
        ({}, ["calculater"], PluginError, "there is no tool 'calculater'"),
        ({}, [f"{FILE}"], PluginError, "which tool? It has:"),
        ({}, [f"{FILE}:add", {"use": f"{FILE}:add"}], ConfigError, "2 tools are called 'add'"),
        ({}, [{"use": f"{FILE}:Counter", "options": {"start": "x"}}], ConfigError, "start"),
    ],
)
def test_a_mistake_of_the_config_is_said_before_anything_starts(environment, given, error, why):
    read = TypeAdapter(ToolsConfig).validate_python(given)
    with pytest.raises(error) as found:
        Environments(EnvironmentConfig(**environment), read)
    assert why in str(found.value)
