"""The reward server with real clients over HTTP: shapes, limits, mistakes, load, and its end."""

import asyncio
import copy
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from verl_lite.errors import ConfigError, DataError, PluginError
from verl_lite.lab import ScoringOptions, score_file
from verl_lite.plugins import RewardsConfig, Rollout, ScoredRollout, Scorer
from verl_lite.plugins.adapters import as_trl_reward_func, as_verl_compute_score
from verl_lite.plugins.serving import RewardService, ServingOptions, make_app, serve_rewards

REWARDS = '''
import threading
from verl_lite.plugins import Score, StepScore, reward

@reward("size", isolate=False)
def size(rollout):
    if rollout.completion == "boom":
        raise KeyError("x")
    return float(len(rollout.completion))

@reward("hangs", timeout_s=0.3)
async def hangs(rollout):
    import asyncio
    await asyncio.sleep(30)

@reward("rank", form="group", isolate=False)
def rank(rollouts):
    most = max(len(rollout.completion) for rollout in rollouts)
    return [float(len(rollout.completion) == most) for rollout in rollouts]

@reward("steps", isolate=False)
def steps(rollout):
    return Score(0.5, steps=(StepScore(0, 1, -1.0),), details={"seen": float("nan")})

HELD, GO = threading.Semaphore(0), threading.Event()

@reward("held", isolate=False)
def held(rollout):
    """Waits for the test."""
    HELD.release()
    assert GO.wait(60)
    return 1.0
'''
OK = {"completion": "4", "reference": "4", "id": "a"}

Server = Callable[..., Any]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("serving") / "served_rewards.py"
    path.write_text(REWARDS)
    return path


def config_of(file: Path, **rewards: Any) -> RewardsConfig:
    named = {
        name: {"use": f"{file}:{name}"} if weight is None else weight for name, weight in rewards.items()
    }
    return RewardsConfig.model_validate({"rewards": named})


@contextmanager
def serving(config: RewardsConfig, **options: Any) -> Iterator[httpx.Client]:
    """A server in a thread, and a client of it."""
    app = make_app(config, ServingOptions(**options))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="on"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            thread.join(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def client(file: Path) -> Iterator[httpx.Client]:
    config = config_of(
        file,
        correct={"use": "exact"},
        size={"use": f"{file}:size", "weight": 0.5},
        gated={"use": "exact", "weight": 0.0, "when": "correct > 0"},
    )
    with serving(config) as client:
        yield client


def message(answer: httpx.Response) -> str:
    return str(answer.json()["error"]["message"])


def test_typed_scores_with_outcomes(client: httpx.Client) -> None:
    rows = [OK, {"completion": "five", "reference": "4"}, {"completion": "boom", "reference": "4"}]
    right, wrong, broken = client.post("/score", json={"rollouts": rows}).json()["scores"]
    assert (right["id"], right["reward"]) == ("a", 1.5)  # 1 + 0.5 * 1
    assert (wrong["id"], wrong["reward"]) == ("row-2", 2.0)  # 0 + 0.5 * 4
    assert broken["reward"] is None
    assert broken["dropped_because"].startswith("error in size: KeyError: 'x'")
    assert broken["components"]["size"]["outcome"] == "error"
    assert broken["components"]["gated"]["outcome"] == "abstain"


def test_one_component_runs_alone_with_what_its_gate_reads(client: httpx.Client) -> None:
    boom = {"rollouts": [{**OK, "completion": "boom"}]}
    [score] = client.post("/score/gated", json=boom).json()["scores"]
    assert list(score["components"]) == ["gated"]
    assert score["components"]["gated"]["reason"] == "not run: when: correct > 0"
    [score] = client.post("/score/correct", json=boom).json()["scores"]
    assert (score["components"]["correct"]["value"], score["reward"]) == (0.0, None)


def test_the_trainers_shapes(client: httpx.Client) -> None:
    queries = {"query": ["2 + 2?4<|im_end|>", "2 + 2?55"], "prompts": ["2 + 2?"] * 2, "labels": ["4"] * 2}
    assert client.post("/get_reward", json=queries).json() == {
        "rewards": [1.5, 1.0],
        "scores": [1.5, 1.0],
        "extra_logs": {"correct": [1.0, 0.0], "size": [1.0, 2.0], "gated": [1.0, None]},
    }
    call = {
        "data_source": "d",
        "solution_str": "4",
        "ground_truth": "4",
        "extra_info": {"question": "2 + 2?"},
    }
    found = client.post("/compute_score", json=call).json()
    assert found == {"correct": 1.0, "size": 1.0, "gated": 1.0, "score": 1.5}
    sample = {"prompt": "2 + 2?", "response": "4", "label": "4"}
    assert client.post("/reward", json=sample).json() == 1.5
    found = client.post("/classify", json={"model": "m", "input": "abc", "use_activation": False}).json()
    assert found["data"][-1]["probs"][-1] == 1.5  # nothing to compare with; 0.5 * 3


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        ("/score", "{", 400, "not JSON"),
        ("/score", "[1]", 400, "must be a JSON object, got list"),
        ("/score", "{}", 400, "'rollouts' must be a list, got NoneType"),
        ("/score", '{"rollouts": [3]}', 400, "rollouts[0]: expected an object, got int"),
        ("/score", '{"rollouts": [{"prompt": "a"}]}', 400, "rollouts[0]: 'completion' must be text"),
        ("/score", '{"rollouts": [{"completion": "a", "sample_index": "x"}]}', 400, "rollouts[0]: invalid"),
        ("/score", '{"rollouts": [], "step": "x"}', 400, "'step' must be a whole number, got 'x'"),
        (
            "/score/corect",
            '{"rollouts": [{"completion": "a"}]}',
            400,
            "no reward 'corect'; there are: correct",
        ),
        ("/get_reward", '{"query": ["a"], "prompts": [], "labels": []}', 400, "1, 0 and 0 items"),
        ("/get_reward", '{"query": ["b"], "prompts": ["a"], "labels": [""]}', 400, "does not begin with"),
        ("/compute_score", '{"solution_str": 4}', 400, "'solution_str' must be text, got int"),
        ("/compute_score", '{"solution_str": "", "extra_info": 1}', 400, "'extra_info' must be an object"),
        ("/compute_score", '{"solution_str": "boom", "ground_truth": "4"}', 422, "error in size: KeyError"),
        ("/reward", '{"prompt": "a"}', 400, "'response' must be text, got NoneType"),
        ("/classify", '{"input": 3}', 400, "'input' must be text or a list of texts"),
    ],
)
def test_mistakes_have_one_clear_message(
    client: httpx.Client, path: str, body: str, status: int, text: str
) -> None:
    answer = client.post(path, content=body)
    assert answer.status_code == status
    assert text in message(answer)


def test_what_a_trainer_cannot_carry_is_refused(file: Path) -> None:
    query = {"query": ["a"], "prompts": [""], "labels": [None]}
    with serving(config_of(file, rank=None)) as client:
        assert "compares all samples of a prompt, and OpenRLHF" in message(
            client.post("/get_reward", json=query)
        )
    with serving(config_of(file, steps=None)) as client:
        answer = client.post("/get_reward", json=query)
        assert (answer.status_code, "steps gave process rewards" in message(answer)) == (500, True)
        [score] = client.post("/score", json={"rollouts": [OK]}).json()["scores"]
        assert score["components"]["steps"]["steps"] == [
            {"start": 0, "end": 1, "value": -1.0, "unit": "char"}
        ]
        assert score["components"]["steps"]["details"] == {"seen": None}


def test_a_token_opens_everything_but_health(file: Path) -> None:
    with serving(config_of(file, size=None), token="secret") as client:
        assert client.get("/health").json() == {"status": "ok"}
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "secret"}):
            answer = client.post("/score", json={"rollouts": [OK]}, headers=headers)
            assert (answer.status_code, "Bearer TOKEN" in message(answer)) == (401, True)
            assert client.get("/metrics", headers=headers).status_code == 401
        right = {"Authorization": "Bearer secret"}
        assert client.post("/score", json={"rollouts": [OK]}, headers=right).status_code == 200
        assert (
            'verl_lite_requests_total{route="/score",status="401"} 3'
            in client.get("/metrics", headers=right).text
        )
    with pytest.raises(ConfigError, match=r"--host 0\.0\.0\.0 without a token"):
        serve_rewards(config_of(file, size=None), host="0.0.0.0")


def test_a_full_queue_a_large_request_and_a_late_answer(file: Path) -> None:
    config = config_of(file, held=None)
    options = {"max_batch": 1, "concurrent_batches": 1, "max_queued": 1, "max_request_mb": 0.001}
    with serving(config, **options, timeout_s=0.5) as client:
        module = next(found for name, found in sys.modules.items() if "served_rewards" in name)
        module.GO.clear()
        answers: list[httpx.Response] = []
        body = {"rollouts": [OK]}
        threads = [
            threading.Thread(target=lambda: answers.append(client.post("/score", json=body)))
            for _ in range(2)
        ]
        threads[0].start()
        assert module.HELD.acquire(timeout=30)  # the first is being scored,
        threads[1].start()
        while "verl_lite_queued_rollouts 1" not in client.get("/metrics").text:
            pass  # the second waits,
        busy = client.post("/score", json=body)  # the third has no place
        assert (busy.status_code, busy.headers["Retry-After"]) == (503, "1")
        assert "1 rollouts are waiting" in message(busy)
        for thread in threads:
            thread.join(30)
        assert [answer.status_code for answer in answers] == [504, 504]
        assert message(answers[0]) == "not scored within 0.5 s"
        module.GO.set()
        large = client.post("/score", json={"rollouts": [{**OK, "completion": "x" * 2000}]})
        assert (large.status_code, "larger than 0.001 MiB" in message(large)) == (413, True)
        chunked = client.post("/score", content=iter([b"x" * 600] * 4))
        assert chunked.status_code == 413
        while "verl_lite_queued_rollouts 0" not in client.get("/metrics").text:
            pass  # the request given up while it waited was not scored
        assert client.post("/score", json=body).status_code == 200
        assert "verl_lite_rollouts_total 2" in client.get("/metrics").text


def test_under_load_nothing_is_lost_and_nothing_doubled(file: Path) -> None:
    """64 clients at once, requests of 1 to 5 rollouts, one in seven a mistake, groups by the same names."""
    config = config_of(file, size=None, rank=None)

    async def ask(client: httpx.AsyncClient, number: int) -> None:
        rows = [
            {"id": f"{number}-{i}", "group": "same", "completion": "x" * (number % 11 + i)}
            for i in range(number % 5 + 1)
        ]
        if number % 7 == 0:
            answer = await client.post("/score", json={"rollouts": [*rows, {"completion": None}]})
            assert answer.status_code == 400
            return
        scores = (await client.post("/score", json={"rollouts": rows})).json()["scores"]
        assert [score["id"] for score in scores] == [row["id"] for row in rows]
        sizes = [score["components"]["size"]["value"] for score in scores]
        assert sizes == [float(len(str(row["completion"]))) for row in rows]
        # each request is its own group, whatever its name
        assert [score["components"]["rank"]["value"] for score in scores] == [0.0] * (len(rows) - 1) + [1.0]

    async def ask_all(url: str) -> None:
        limits = httpx.Limits(max_connections=64)
        async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client:
            await asyncio.gather(*(ask(client, number) for number in range(300)))

    with serving(config) as client:
        asyncio.run(ask_all(str(client.base_url)))
        expected = sum(number % 5 + 1 for number in range(300) if number % 7)
        text = client.get("/metrics").text
        assert f"verl_lite_rollouts_total {expected}" in text
        assert f'verl_lite_scores_total{{component="size",outcome="ok"}} {expected}' in text
        assert "verl_lite_queued_rollouts 0" in text
        assert 'verl_lite_request_seconds_count{route="/score"} 300' in text


def score_remotely(use: str, rollouts: list[Rollout], **component: Any) -> list[ScoredRollout]:
    config = RewardsConfig.model_validate({"rewards": {"far": {"use": use, **component}}})
    with Scorer(config, workers=1) as scorer:
        return list(scorer.score(rollouts).rows)


def test_a_remote_component_is_one_like_any_other(client: httpx.Client) -> None:
    rollouts = [
        Rollout(completion=text, reference="4", id=text, group=text) for text in ("4", "five", "boom")
    ]
    combined = score_remotely(str(client.base_url), rollouts)
    assert [row.reward for row in combined] == [1.5, 2.0, None]
    assert combined[2].components["far"].score.outcome == "error"
    assert "error in size: KeyError" in combined[2].components["far"].score.reason
    sizes = score_remotely(f"{client.base_url}/size", rollouts, weight=2.0)
    assert [row.reward for row in sizes] == [2.0, 8.0, None]
    use = {"rewards": {"far": {"use": str(client.base_url)}}}
    assert as_verl_compute_score(use)("d", "4", "4") == {"far": 1.5, "score": 1.5}
    function = as_trl_reward_func(use)
    assert function(["2 + 2?"] * 2, ["4", "5"], reference=["4", "4"]) == [1.5, 0.5]


def test_remote_scores_keep_outcomes_steps_and_groups(file: Path) -> None:
    with serving(config_of(file, hangs=None, steps=None, rank=None), token="secret") as client:
        os.environ["SERVED_TOKEN"] = "secret"
        try:
            options = {"token_env": "SERVED_TOKEN"}
            [late] = score_remotely(f"{client.base_url}/hangs", [Rollout(completion="a")], options=options)
            assert late.components["far"].score.outcome == "timeout"
            [stepped] = score_remotely(f"{client.base_url}/steps", [Rollout(completion="a")], options=options)
            assert stepped.components["far"].score.steps[0].value == -1.0
            group = [Rollout(completion="x" * i, group="g", id=str(i)) for i in range(1, 4)]
            ranks = score_remotely(f"{client.base_url}/rank", group, options=options)
            assert [row.reward for row in ranks] == [0.0, 0.0, 1.0]
            [refused] = score_remotely(f"{client.base_url}/steps", [Rollout(completion="a")])
            assert refused.components["far"].score.outcome == "error"
            assert "answered 401" in refused.components["far"].score.reason
        finally:
            del os.environ["SERVED_TOKEN"]


def test_what_a_server_scored_is_never_cached(tmp_path: Path) -> None:
    """The server's rewards may change between two passes, and nothing here would show it."""
    (tmp_path / "rows.jsonl").write_text(json.dumps({"completion": "x", "id": "a"}) + "\n")
    other = copy.deepcopy(GOOD)
    other["scores"][0]["components"]["it"]["value"] = 0.25
    options = ScoringOptions(cache=tmp_path / "cache.sqlite")
    with flaky((200, GOOD), (200, other)) as (use, app):
        config = RewardsConfig.model_validate({"rewards": {"far": {"use": use}}})
        means = [score_file(tmp_path / "rows.jsonl", config, options=options).reward.mean for _ in range(2)]
    assert (means, app.calls) == ([0.75, 0.25], 2)


class Flaky:
    """An ASGI app that lists one reward and answers scores as told, call after call."""

    def __init__(self, *answers: tuple[int, Any]) -> None:
        self.answers = list(answers)
        self.calls = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        status, content = 200, {"all": {}, "rewards": {"it": {"compares_groups": False, "deadlines_s": 1.0}}}
        if scope["path"] != "/rewards":
            status, content = self.answers[min(self.calls, len(self.answers) - 1)]
            self.calls += 1
            if status == 0:
                await asyncio.sleep(content)
        await send({"type": "http.response.start", "status": status or 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(content).encode()})


@contextmanager
def flaky(*answers: tuple[int, Any]) -> Iterator[tuple[str, Flaky]]:
    app = Flaky(*answers)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            thread.join(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/it", app
    finally:
        server.should_exit = True
        server.force_exit = True
        thread.join(30)


GOOD: dict[str, Any] = {
    "scores": [
        {
            "id": "a",
            "reward": None,
            "components": {"it": {"value": 0.75, "outcome": "ok", "reason": "", "details": {}, "steps": []}},
        }
    ]
}


@pytest.mark.parametrize(
    ("answers", "calls", "value", "reason"),
    [
        ([(503, {"error": {"message": "full"}}), (200, GOOD)], 2, 0.75, ""),
        ([(503, {"error": {"message": "full"}})], 2, None, "answered 503: full (2 tries)"),
        ([(500, {"error": {"message": "broke"}})], 1, None, "answered 500: broke"),
        ([(200, {"hello": 1})], 1, None, "answered with no scores"),
        ([(200, {"scores": []})], 1, None, "scored other rollouts"),
        ([(200, {"scores": [{**GOOD["scores"][0], "id": "b"}]})], 1, None, "scored other rollouts"),
        ([(0, 30.0)], 1, None, "no answer within 0.5 s"),
    ],
)
def test_a_failing_server_is_an_error_never_a_zero(
    answers: list[tuple[int, Any]], calls: int, value: float | None, reason: str
) -> None:
    """Under the default policies a time-out would be a reward of 0."""
    rollout = Rollout(completion="x", id="a")
    with flaky(*answers) as (use, app):
        [row] = score_remotely(
            use, [rollout], options={"retries": 1}, timeout_s=0.5 if answers[0][0] == 0 else 60
        )
        assert app.calls == calls
    score = row.components["far"].score
    assert (score.value, row.reward) == (value, value)
    assert reason in score.reason
    assert score.outcome == ("ok" if value else "error")


def test_a_server_that_is_not_there_or_not_ours_is_refused_before_scoring(client: httpx.Client) -> None:
    base = str(client.base_url)
    for use, text in (
        ("http://127.0.0.1:1/it", "no answer from the reward server"),
        (f"{base}/nothing", "the server has no reward 'nothing'; it has: correct, size, gated"),
        (f"{base}/size?x=1", "expected http://HOST:PORT/NAME"),
    ):
        with pytest.raises(PluginError, match=text.replace("?", r"\?")):
            score_remotely(use, [])


def test_a_bad_row_costs_no_other_request_its_scores(file: Path) -> None:
    """Merged into one batch: one request has no reward for its source."""
    config = config_of(file, size={"use": f"{file}:size", "sources": ["a"]})

    async def ask() -> tuple[Any, ...]:
        options = ServingOptions(batch_wait_s=0.1, concurrent_batches=1)
        async with RewardService(config, options) as service:
            ours, other = (Rollout(completion="xx", columns={"data_source": source}) for source in "ab")
            asked = [service.score([ours]), service.score([other]), service.score([ours])]
            return tuple(await asyncio.gather(*asked, return_exceptions=True))

    first, wrong, last = asyncio.run(ask())
    assert [first[0].reward, last[0].reward] == [2.0, 2.0]
    assert isinstance(wrong, DataError)


def test_rewards_that_cannot_start_and_a_port_that_is_taken(tmp_path: Path) -> None:
    (tmp_path / "local.py").write_text(
        "import threading\nfrom verl_lite.plugins import reward\n"
        "class Locked:\n    lock = None\n    def __init__(self):\n        self.lock = threading.Lock()\n"
        "    def __call__(self, rollout):\n        return 1.0\n"
        "local = reward('local')(Locked())\n"
    )
    local = RewardsConfig.model_validate({"rewards": {"it": {"use": f"{tmp_path / 'local.py'}:local"}}})
    with pytest.raises(PluginError, match="cannot be sent to a worker process"):
        serve_rewards(local, port=0)
    exact = RewardsConfig.model_validate({"rewards": {"it": {"use": "exact"}}})
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(ConfigError, match="cannot listen on"),
    ):
        serve_rewards(exact, port=taken.getsockname()[1])


def test_the_command_ends_gracefully_with_a_request_in_flight(file: Path, tmp_path: Path) -> None:
    slow = tmp_path / "slow.py"
    started = tmp_path / "started"
    slow.write_text(
        "import pathlib, time\nfrom verl_lite.plugins import reward\n"
        f"@reward('slow', isolate=False)\ndef slow(r):\n"
        f"    pathlib.Path({str(started)!r}).touch(); time.sleep(1.0); return 1.0\n"
    )
    (tmp_path / "r.yaml").write_text(f"rewards: {{slow: {{use: '{slow}:slow'}}}}\n")
    command = [sys.executable, "-m", "verl_lite.cli", "rewards", "serve", "-c", str(tmp_path / "r.yaml")]
    with subprocess.Popen([*command, "--port", "0"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        answers: list[httpx.Response] = []
        ask = threading.Thread(
            target=lambda: answers.append(httpx.post(f"{url}/score", json={"rollouts": [OK]}, timeout=60))
        )
        ask.start()
        while not started.exists():
            ask.join(0.01)
        process.send_signal(signal.SIGTERM)
        ask.join(30)
        assert answers[0].json()["scores"][0]["reward"] == 1.0
        assert process.stdout.read() == "ended; every accepted request was answered\n"
        assert process.wait(30) == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/health")
