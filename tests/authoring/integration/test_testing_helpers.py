"""What `verl_lite.plugins.testing` offers: assertions that explain, a chat server that obeys."""

import asyncio
import json
import time
import urllib.error
import urllib.request
from typing import Any

import pytest
from pydantic import BaseModel

from verl_lite.errors import PluginError
from verl_lite.plugins import Score, reward, testing
from verl_lite.plugins.testing import (
    FakeChatServer,
    assert_any_order,
    assert_group_scores,
    assert_score,
    fake_group,
    fake_rollout,
)


class Options(BaseModel):
    target: int = 3


@reward("size", options=Options, isolate=False)
def size(rollout: Any, options: Options) -> Score:
    """The number of characters over the target; abstains for none."""
    if not rollout.completion:
        return Score(None, reason="nothing there")
    return Score(len(rollout.completion) / options.target, reason="counted")


@reward("first_wins", form="group", isolate=False)
def first_wins(rollouts: Any) -> list[float]:
    """Depends on the order, as no reward should."""
    return [float(index == 0) for index, _ in enumerate(rollouts)]


def test_the_public_names() -> None:
    assert testing.__all__ == sorted(testing.__all__)
    assert all(hasattr(testing, name) for name in testing.__all__)


def test_assert_score_returns_the_score() -> None:
    assert assert_score(size, fake_rollout("abc"), 1.0, reason="counted").value == 1.0
    assert_score(size, fake_rollout("abc"), 0.5, options={"target": 6})
    assert_score(size, fake_rollout("abc"), 0.99, tolerance=0.02)
    assert_score(size, fake_rollout(""), None, outcome="abstain")


@reward("sleeps", timeout_s=60.0)
def sleeps(rollout: Any) -> float:
    """Hangs on "stay"."""
    time.sleep(30.0 * (rollout.completion == "stay"))
    return 1.0


@reward("waits", timeout_s=0.2)
async def waits(rollout: Any) -> float:
    await asyncio.sleep(30.0 * (rollout.completion == "stay"))
    return 1.0


def test_an_expected_time_out_runs_with_the_deadline() -> None:
    score = assert_score(sleeps, fake_rollout("stay"), None, outcome="timeout", timeout_s=0.3)
    assert "no answer within 0.3 s" in score.reason
    assert_score(waits, fake_rollout("stay"), None, outcome="timeout")
    with pytest.raises(AssertionError, match="expected the outcome 'timeout'; it answered 1"):
        assert_score(waits, fake_rollout("go"), None, outcome="timeout")
    with pytest.raises(PluginError, match=r"isolate=False.*cannot end in a time-out"):
        assert_score(size, fake_rollout("abc"), None, outcome="timeout")


@pytest.mark.parametrize(
    ("completion", "value", "expected", "message"),
    [
        ("abc", 0.5, {}, "'abc': expected the value 0.5; it answered 1 (counted)"),
        ("abc", None, {}, "expected the value None; it answered 1"),
        ("", 0.0, {}, "expected the value 0.0; it answered abstain (nothing there)"),
        ("", None, {"outcome": "error"}, "expected the outcome 'error'; it answered abstain"),
        ("abc", 1.0, {"reason": "guessed"}, "expected 'guessed' in the reason; it answered 1 (counted)"),
    ],
)
def test_assert_score_says_what_was_answered(
    completion: str, value: float | None, expected: dict[str, str], message: str
) -> None:
    with pytest.raises(AssertionError) as caught:
        assert_score(size, fake_rollout(completion), value, **expected)
    assert message in str(caught.value)


def test_group_scores_are_compared_row_by_row() -> None:
    group = fake_group(["a", "b"])
    assert_group_scores(first_wins, group, [1.0, 0.0])
    with pytest.raises(AssertionError, match=r"1: expected the value 1.0; it answered 0 for 'b'"):
        assert_group_scores(first_wins, group, [1.0, 1.0])
    with pytest.raises(AssertionError, match="2 rollouts and 1 expected values"):
        assert_group_scores(first_wins, group, [1.0])


def test_a_reward_that_depends_on_the_order_is_found() -> None:
    assert_any_order(size, fake_group(["a", "", "abc"]))
    with pytest.raises(AssertionError, match="'a': 1, in the reverse order 0"):
        assert_any_order(first_wins, fake_group(["a", "b"]))


def ask(server: FakeChatServer, text: str, path: str = "/chat/completions") -> str:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": text}]}).encode()
    headers = {"Content-Type": "application/json", "Authorization": "Bearer key"}
    request = urllib.request.Request(server.base_url + path, body, headers)
    with urllib.request.urlopen(request, timeout=10) as response:
        answer: dict[str, Any] = json.load(response)
    assert answer["model"] == "m"
    content: str = answer["choices"][0]["message"]["content"]
    return content


def test_the_chat_server_gives_out_its_replies() -> None:
    with FakeChatServer(reply=["one", 429, "last"]) as server:
        assert ask(server, "a") == "one"
        with pytest.raises(urllib.error.HTTPError) as caught:
            ask(server, "b")
        assert (caught.value.code, json.load(caught.value)["error"]["message"]) == (
            429,
            "the test wants status 429",
        )
        caught.value.close()
        assert [ask(server, "c"), ask(server, "d")] == ["last", "last"]
    assert [request.text for request in server.requests] == ["a", "b", "c", "d"]
    assert server.requests[0].headers["Authorization"] == "Bearer key"


def test_the_chat_server_calls_a_function() -> None:
    with FakeChatServer(reply=lambda request: request.text.upper()) as server:
        assert ask(server, "hello") == "HELLO"
        with pytest.raises(urllib.error.HTTPError) as caught:
            ask(server, "hello", path="/completions")
        assert caught.value.code == 404
        caught.value.close()
