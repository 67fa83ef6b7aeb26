"""Environments of other packages: a real HTTP server, and the package verifiers where it is installed."""

import asyncio
import inspect
import json
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

from verl_lite.errors import EnvironmentFailed, PluginError
from verl_lite.plugins.environments import EnvironmentConfig, Environments
from verl_lite.plugins.environments.bridges import openenv as openenv_bridge, verifiers as bridge


def converse(host: Environments, row: dict[str, Any], *replies: Any) -> list[Any]:
    async def all_of_them() -> list[Any]:
        session = host.open(row, seed=0)
        found: list[Any] = [await session.reset(), session.tools]
        for reply in replies:
            message = {"role": "assistant", "content": reply} if isinstance(reply, str) else reply
            found.append(await session.step(message))
        await session.close()
        return found

    return asyncio.run(all_of_them())


@pytest.fixture
def url(http_service: Callable[..., str]) -> str:
    """As OpenEnv's echo environment: the observation is the message and its length, which is the reward."""
    counts: dict[str, int] = {}

    def echo(path: str, headers: Mapping[str, str], body: Any) -> tuple[int, dict[str, str], bytes]:
        session = headers["X-Session-Id"]
        if path == "/reset":
            text, counts[session] = f"Say something about {body.get('topic')}.", 0
            answer = {"observation": {"text": text, "length": 0}, "reward": None, "done": False}
        else:
            counts[session] += 1
            text = body["action"]["message"]
            shown = {"text": text, "length": len(text)}
            answer = {"observation": shown, "reward": 0.1 * len(text), "done": counts[session] == 2}
        return 500 if text == "crash" else 200, {}, json.dumps(answer).encode()

    return http_service(echo)


def openenv(url: str, **options: Any) -> Environments:
    return Environments(EnvironmentConfig(use=f"openenv:{url}", options=options, workers=2))


def test_an_openenv_server_is_played(url: str) -> None:
    with openenv(url, observation="text", columns=["topic"]) as host:
        first, _, one, two = converse(host, {"topic": "tea"}, "hello", "goodbye")
    assert first == ({"role": "user", "content": "Say something about tea."},)
    assert one.messages == ({"role": "user", "content": "hello"},)
    assert not one.done
    assert two.done
    assert two.details["reward"] == pytest.approx(1.2)


def test_an_observation_without_a_key_is_shown_as_json(url: str) -> None:
    with openenv(url) as host:
        first, _ = converse(host, {})
    assert json.loads(first[0]["content"]) == {"text": "Say something about None.", "length": 0}


@pytest.mark.parametrize(
    ("options", "replies", "why"),
    [({"observation": "words"}, (), "has no 'words'"), ({"observation": "text"}, ("crash",), "answered 500")],
)
def test_a_server_that_cannot_be_played_is_an_error(
    url: str, options: dict[str, Any], replies: tuple[str, ...], why: str
) -> None:
    with openenv(url, **options) as host, pytest.raises(EnvironmentFailed, match=why):
        converse(host, {}, *replies)


@pytest.fixture
def socket_url() -> Iterator[str]:
    """As OpenEnv's server: an environment per connection to /ws; its POST /step would forget the steps."""

    def session(connection: ServerConnection) -> None:
        count = 0
        for raw in connection:
            kind, data = json.loads(raw)["type"], json.loads(raw)["data"]
            text = data.get("message")
            count = 0 if kind == "reset" else count + 1
            if text in ("[1]", "<html>"):
                connection.send(text)
                continue
            answer: dict[str, Any] = {
                "type": "error",
                "data": {"message": "broke", "code": "EXECUTION_ERROR"},
            }
            if kind == "step" and data.keys() != {"message"}:
                errors = [{"loc": ["message"], "msg": "Field required"}]
                answer["data"] = {"message": "Invalid", "code": "VALIDATION_ERROR", "errors": errors}
            elif text != "crash":
                seen = {"text": text or f"{data['seed']} {data.get('topic')}", "count": count}
                answer = {"type": "observation"}
                answer["data"] = {"observation": seen, "reward": 0.5 * count or None, "done": count == 2}
            connection.send(json.dumps(answer))

    with serve(session, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.socket.getsockname()[1]}"
        server.shutdown()


def test_a_trajectory_is_a_session_on_the_socket_of_openenv(socket_url: str) -> None:
    with openenv(socket_url, observation="text", columns=["topic"]) as host:
        first, _, one, two = converse(host, {"topic": "tea"}, "hello", "goodbye")
        again, _, other = converse(host, {"topic": "tea"}, "hello")
    assert first[0]["content"].endswith(" tea")
    assert first == again  # the seed of the trajectory
    assert [step.messages[0]["content"] for step in (one, two)] == ["hello", "goodbye"]
    assert [(step.done, step.details["reward"]) for step in (one, two)] == [(False, 0.5), (True, 1.5)]
    assert other.details["reward"] == 0.5


def test_an_action_that_the_model_wrote_wrong_is_told_and_the_trajectory_goes_on(socket_url: str) -> None:
    with openenv(socket_url, action="", observation="text") as host:
        *_, prose, wrong, right = converse(host, {}, "prose", '{"massage": "x"}', '{"message": "hi"}')
    assert prose.messages[0]["content"].startswith("This is no action: Expecting value")
    assert wrong.messages[0]["content"] == "This is no action: message: Field required"
    assert right.messages[0]["content"] == "hi"


@pytest.mark.parametrize(
    ("options", "reply", "why"),
    [
        ({"action": "words"}, "hi", "option action: the server refuses {'words': ...}"),
        ({}, "crash", "broke"),
        ({"action": ""}, '{"message": "<html>"}', "answered no JSON: Expecting value"),
        ({"action": ""}, '{"message": "[1]"}', "answered without an observation: [1]"),
    ],
)
def test_a_session_that_cannot_go_on_is_an_error(
    socket_url: str, options: dict[str, Any], reply: str, why: str
) -> None:
    with openenv(socket_url, **options) as host, pytest.raises(EnvironmentFailed, match=re.escape(why)):
        converse(host, {}, reply)


def test_a_busy_server_is_not_asked_over_http_which_would_forget_the_steps() -> None:
    def refuse(connection: ServerConnection, request: Request) -> Response:
        return connection.respond(503, "all sessions are taken")

    with serve(lambda connection: None, "127.0.0.1", 0, process_request=refuse) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.socket.getsockname()[1]}"
        with openenv(url) as host, pytest.raises(EnvironmentFailed, match="/ws answered 503"):
            converse(host, {})
        server.shutdown()


def test_without_websockets_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openenv_bridge, "find_spec", lambda name: None)
    with pytest.raises(PluginError, match=r"needs websockets: pip install 'verl-lite\[openenv\]'"):
        openenv("http://127.0.0.1:9")


def test_no_server_is_an_error() -> None:
    with (
        openenv("http://127.0.0.1:9") as host,
        pytest.raises(EnvironmentFailed, match="ConnectionRefused"),
    ):
        converse(host, {})


CLASSIC = '''
import verifiers as vf
from datasets import Dataset

ROWS = Dataset.from_list([{"question": "2 + 2?", "answer": "4"}])


async def correct(completion, answer):
    return float(answer in completion[-1]["content"])


async def raises(completion, **kwargs):
    return completion["no such key"]


def of_group(completions, **kwargs):
    return [1.0 for _ in completions]


def add(a: int, b: int) -> int:
    """Add two integers.

    Args:
        a: the first
        b: the second
    """
    return a + b


class Twice(vf.MultiTurnEnv):
    async def env_response(self, messages, state, **kwargs):
        return [{"role": "user", "content": "Are you sure?"}]

    @vf.stop
    async def is_over(self, state, **kwargs):
        return len(state["trajectory"]) >= 2


def load_environment(kind="single"):
    rubric = vf.Rubric(funcs=[correct])
    if kind == "broken":
        inner = vf.SingleTurnEnv(dataset=ROWS, rubric=vf.Rubric(funcs=[raises]))
        return vf.EnvGroup(envs=[inner], env_names=["a"])
    if kind == "group":
        return vf.SingleTurnEnv(dataset=ROWS, rubric=vf.Rubric(funcs=[of_group]))
    if kind == "tool":
        return vf.ToolEnv(dataset=ROWS, rubric=rubric, tools=[add], max_turns=4)
    return (vf.SingleTurnEnv if kind == "single" else Twice)(dataset=ROWS, rubric=rubric)
'''
ROW = {"prompt": [{"role": "user", "content": "2 + 2?"}], "answer": "4", "example_id": 0}


@pytest.fixture
def classic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verifiers = pytest.importorskip("verifiers")
    if getattr(verifiers, "load_environment", None) is None:
        pytest.skip("this version of verifiers has no classic environments")
    (tmp_path / "sums_of_two.py").write_text(CLASSIC)
    monkeypatch.syspath_prepend(str(tmp_path))


def of_verifiers(kind: str) -> Environments:
    return Environments(EnvironmentConfig(use="verifiers:sums_of_two", options={"kind": kind}, workers=2))


def test_a_single_turn_of_verifiers(classic: None) -> None:
    with of_verifiers("single") as host:
        first, _, right = converse(host, ROW, "It is 4.")
        *_, wrong = converse(host, ROW, "It is 5.")
    assert first == ({"role": "user", "content": "2 + 2?"},)
    assert right.done
    assert right.details["reward"] == 1.0
    assert wrong.details["reward"] == 0.0


def test_several_turns_of_verifiers(classic: None) -> None:
    with of_verifiers("multi") as host:
        *_, one, two = converse(host, ROW, "5?", "No, 4.")
    assert one.messages == ({"role": "user", "content": "Are you sure?"},)
    assert two.done
    assert two.details["reward"] == 1.0


def test_tools_of_verifiers(classic: None) -> None:
    function = {"name": "add", "arguments": '{"a": 2, "b": 2}'}
    call = {"id": "c1", "type": "function", "function": function}
    with of_verifiers("tool") as host:
        _, tools, one, two = converse(
            host, ROW, {"role": "assistant", "content": "", "tool_calls": [call]}, "It is 4."
        )
    assert [tool["function"]["name"] for tool in tools] == ["add"]
    assert [(message["role"], message["content"]) for message in one.messages] == [("tool", "4")]
    assert two.done
    assert two.details["reward"] == 1.0


def test_a_reward_function_of_verifiers_that_raises_is_an_error_and_no_zero(classic: None) -> None:
    with (
        of_verifiers("broken") as host,
        pytest.raises(EnvironmentFailed, match="raises: TypeError: list indices"),
    ):
        converse(host, {**ROW, "info": {"env_id": "a"}}, "It is 4.")


def test_rewards_of_whole_groups_are_refused_before_anything_is_sampled(classic: None) -> None:
    with (
        of_verifiers("group") as host,
        pytest.raises(EnvironmentFailed, match="its rubric scores whole groups"),
    ):
        converse(host, ROW)


def stand_in(monkeypatch: pytest.MonkeyPatch, run_rollout: Callable[..., object], **rubric: object) -> None:
    """A package of the shape of verifiers, whose every environment has a rubric of these attributes."""
    made = SimpleNamespace(rubric=SimpleNamespace(rubrics=[SimpleNamespace(**rubric)], funcs=[]))
    package = SimpleNamespace(
        __file__="verifiers.py",
        load_environment=lambda name: made,
        Environment=SimpleNamespace(run_rollout=run_rollout),
    )
    monkeypatch.setitem(sys.modules, "verifiers", package)


def test_reward_functions_are_watched_wherever_a_rubric_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    async def half(answer: str) -> float:
        return 0.5

    def no_number(answer: str) -> object:
        return {"score": 1.0}

    stand_in(monkeypatch, lambda: None, funcs=[half, no_number])
    right, wrong = bridge.load("rewards", "{}").rubric.rubrics[0].funcs
    assert asyncio.run(right("4")) == 0.5
    found: list[str] = []
    bridge.FAILURES.set(found)
    with pytest.raises(TypeError):
        asyncio.run(wrong("4"))
    assert found[0].startswith("reward function no_number: TypeError: float() argument must be")
    assert list(inspect.signature(wrong).parameters) == ["answer"]  # verifiers passes what it names


def test_a_version_of_verifiers_that_is_too_old_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, lambda self, input, client, model, sampling, semaphore: None, funcs=[])
    with pytest.raises(PluginError, match=r"too old: install 'verifiers>=0\.1\.14,<0\.4'"):
        Environments(EnvironmentConfig(use="verifiers:x"))


def test_an_environment_of_verifiers_that_is_not_installed(classic: None) -> None:
    config = EnvironmentConfig(use="verifiers:nothing_of_that_name", workers=1)
    with Environments(config) as host, pytest.raises(EnvironmentFailed, match="cannot be loaded"):
        converse(host, ROW)


def test_without_the_package_the_message_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "verifiers", None)
    with pytest.raises(PluginError, match="needs the package verifiers"):
        Environments(EnvironmentConfig(use="verifiers:x"))
