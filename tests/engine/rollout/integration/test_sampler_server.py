"""A `vllm serve` as sampler, on a fake that answers in the shapes of vLLM 0.32."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from verl_lite.engine import PromptRow, TrainingSample
from verl_lite.engine.config import ClusterConfig, RolloutConfig, TrainConfig
from verl_lite.engine.teachers import Teachers, check_teachers
from verl_lite.errors import ConfigError, TrainingError
from verl_lite.plugins import Rollout, SamplerSettings, validate

SETTINGS = SamplerSettings(max_new_tokens=16, seed=5)


class FakeServer(ThreadingHTTPServer):
    """Answers in vLLM's shapes: token 7 with the seed's last digit as its (negative) log-probability."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies: list[tuple[str, dict[str, Any]]] = []
        self.failures: list[int] = []  # statuses to answer the next requests with
        self.is_processed = True
        self.takes_weights = True
        self.forgets = True
        self.folder = ""
        self.sampled: float | None = 0.0  # instead of the seed's, if another
        self.canary: float | None = -1.0
        self.open_now = self.most_open = 0
        self.answers_after_s = 0.002
        self.lock = threading.Lock()

    def handle_error(self, *_: object) -> None:
        """A client that went away is no news."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: FakeServer

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        assert self.path == "/v1/models"
        self._answer(200, {"object": "list", "data": [{"id": "tiny", "object": "model"}]})

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.bodies.append((self.path, body))
            failure = server.failures.pop() if server.failures else None
            server.open_now += 1
            server.most_open = max(server.most_open, server.open_now)
        time.sleep(server.answers_after_s)
        with server.lock:
            server.open_now -= 1
        if failure is not None:
            self._answer(failure, {"error": {"message": "told to"}})
        elif self.path == "/collective_rpc" and server.takes_weights:
            if "method" not in body:
                self._answer(400, {"detail": "Missing 'method' in request body"})
            else:
                server.folder = body["kwargs"]["weights_path"]
                self._answer(200, {"results": [None]})
        elif self.path == "/reset_prefix_cache?reset_running_requests=true":
            self._answer(200, {"success": server.forgets})
        elif self.path == "/tokenize":
            self._answer(200, {"tokens": [1, 2, 3], "count": 3})
        elif self.path == "/v1/completions":
            self._answer(200, {"id": "cmpl-1", "object": "text_completion", "choices": [self._choice(body)]})
        else:
            self._answer(404, {"detail": "Not Found"})

    def _choice(self, body: dict[str, Any]) -> dict[str, Any]:
        tokens = [7] * body["max_tokens"]
        logprob = (
            0.0 if body["top_k"] == 1 and self.server.is_processed else -0.1 * (body.get("seed", 5) % 10)
        )
        logprob = logprob if self.server.sampled == 0.0 else self.server.sampled
        steps: list[Any] = [None]
        steps += [
            {str(token): {"logprob": self.server.canary, "rank": 1, "decoded_token": "x"}}
            for token in body["prompt"][1:]
        ]
        return {
            "index": 0,
            "text": "",
            "logprobs": {"text_offset": [], "token_logprobs": [logprob] * len(tokens), "tokens": []},
            "finish_reason": "length",
            "stop_reason": None,
            "token_ids": tokens,
            "prompt_logprobs": steps if "prompt_logprobs" in body else None,
        }

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    fake = FakeServer()
    thread = threading.Thread(target=fake.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield fake
    fake.shutdown()
    thread.join()
    fake.server_close()


def by_id(groups: Iterator[list[Rollout]]) -> dict[str, Rollout]:
    return {rollout.id: rollout for group in groups for rollout in group}


def test_every_completion_is_a_request_with_the_in_process_seed(
    server: FakeServer, connect: Any, prompts: list[PromptRow]
) -> None:
    from verl_lite.engine.rundir import derive_seed

    sampler = connect(server.url + "/v1", end_ids=[1, 20])
    rollouts = by_id(sampler.generate(prompts, num_samples=4, settings=SETTINGS))
    assert len(rollouts) == 16
    assert 1 < server.most_open <= 4
    for prompt in prompts:
        for index in range(4):
            rollout = rollouts[f"{prompt.id}/{index}"]
            seed = derive_seed(5, prompt.id, index)
            assert rollout.sampling.seed == seed
            assert rollout.completion_ids == [7] * 16
            assert rollout.logprobs == [-0.1 * (seed % 10)] * 16
            assert rollout.finish_reason == "length"
    bodies = [body for path, body in server.bodies if path == "/v1/completions" and body["max_tokens"] == 16]
    wanted = {"return_token_ids": True, "logprobs": 0, "repetition_penalty": 1.0, "top_k": 0, "min_p": 0.0}
    wanted["stop_token_ids"] = [1, 20]
    assert all(wanted.items() <= body.items() for body in bodies)


def test_log_probabilities_before_temperature_are_refused_where_they_differ(
    server: FakeServer, connect: Any, prompts: list[PromptRow]
) -> None:
    server.is_processed = False
    sampler = connect(server.url)
    assert by_id(sampler.generate(prompts, num_samples=1, settings=SETTINGS))
    warm = SamplerSettings(temperature=0.7, max_new_tokens=4, seed=1)
    with pytest.raises(ConfigError, match="--logprobs-mode processed_logprobs"):
        next(sampler.generate(prompts, num_samples=1, settings=warm))


def test_new_weights_go_through_the_folder_and_the_canary(
    server: FakeServer, connect: Any, source: Any, tmp_path: Path
) -> None:
    sampler = connect(server.url, weights_dir=str(tmp_path))
    source.token_logprobs = lambda ids: [-1.0] * (len(ids) - 1)
    assert sampler.load_weights(source, version=3) == 0.0
    assert (sampler.version, server.folder) == (3, str(tmp_path / "version_1"))
    assert (Path(server.folder) / "config.json").is_file()
    written = load_file(Path(server.folder) / "model.safetensors")
    assert written.keys() == {*dict(source.named_weights()), "lm_head.weight"}
    assert all((written[name] == tensor).all() for name, tensor in source.named_weights())
    assert [path for path, _ in server.bodies[-3:-1]] == [
        "/collective_rpc",
        "/reset_prefix_cache?reset_running_requests=true",
    ]
    server.canary = -1.5
    with pytest.raises(TrainingError, match="the weights of version 4 did not reach the sampler"):
        sampler.load_weights(source, version=4)


def test_a_server_that_keeps_what_it_cached_of_the_old_weights_stops_the_run(
    server: FakeServer, connect: Any, source: Any, tmp_path: Path
) -> None:
    server.forgets = False
    sampler = connect(server.url, weights_dir=str(tmp_path))
    with pytest.raises(TrainingError, match="kept its prefix cache"):
        sampler.load_weights(source, version=1)


def test_a_server_that_keeps_its_weights_samples_but_does_not_train(
    server: FakeServer, connect: Any, source: Any, tmp_path: Path, prompts: list[PromptRow]
) -> None:
    server.takes_weights = False
    sampler = connect(server.url)
    assert by_id(sampler.generate(prompts, num_samples=1, settings=SETTINGS))
    with pytest.raises(ConfigError, match=r"keeps its own weights.*rollout\.server\.weights_dir"):
        sampler.load_weights(source, version=1)
    with pytest.raises(ConfigError, match="takes no new weights: start it with VLLM_SERVER_DEV_MODE=1"):
        connect(server.url, weights_dir=str(tmp_path))


def test_a_failed_request_is_made_again_and_then_one_clear_error(
    server: FakeServer, connect: Any, prompts: list[PromptRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("verl_lite.engine.rollout.server_client.RETRY_PAUSE_S", 0.0)
    sampler = connect(server.url)
    whole = by_id(sampler.generate(prompts, num_samples=2, settings=SETTINGS))
    server.failures = [503]
    assert by_id(sampler.generate(prompts, num_samples=2, settings=SETTINGS)) == whole
    server.failures = [503] * 100
    with pytest.raises(TrainingError, match=r"/v1/completions failed 2 times; the last time with 503: "):
        list(sampler.generate(prompts, num_samples=1, settings=SETTINGS))
    server.failures = [400] * 100
    with pytest.raises(TrainingError, match="failed 1 times; the last time with 400"):
        list(sampler.generate(prompts, num_samples=1, settings=SETTINGS))


def test_a_server_that_hangs_is_waited_for_once(
    server: FakeServer, connect: Any, prompts: list[PromptRow]
) -> None:
    sampler = connect(server.url, cluster=ClusterConfig(max_restarts=3, call_timeout_s=1))
    server.answers_after_s = 60.0
    with pytest.raises(TrainingError, match="failed 1 times; the last time with no answer within 1 s"):
        list(sampler.generate(prompts, num_samples=1, settings=SETTINGS))


def test_all_tries_together_have_the_deadline(
    server: FakeServer, connect: Any, prompts: list[PromptRow]
) -> None:
    sampler = connect(server.url, cluster=ClusterConfig(max_restarts=30, call_timeout_s=2))
    server.failures = [503] * 1000
    started = time.monotonic()
    with pytest.raises(TrainingError, match="failed 2 times; the last time with 503"):  # 1 s, then 2 s more
        list(sampler.generate(prompts, num_samples=1, settings=SETTINGS))
    assert time.monotonic() - started < 4


def test_who_wants_to_stop_does_not_wait_for_open_requests(
    server: FakeServer, connect: Any, prompts: list[PromptRow]
) -> None:
    sampler = connect(server.url, in_flight=2)
    server.answers_after_s = 60.0
    started = time.monotonic()

    def check() -> None:
        if time.monotonic() - started > 0.2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(sampler.generate(prompts, num_samples=4, settings=SETTINGS, check=check))
    assert time.monotonic() - started < 30
    assert sum(body["max_tokens"] == 16 for _, body in server.bodies) == 2  # the others are not made


def test_nobody_there_is_a_mistake_in_the_config(connect: Any) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ConfigError, match=r"rollout\.server\.url=.*no vLLM server answers there"):
        connect(url)


@pytest.mark.parametrize(
    "options",
    [
        {"sampler": "vllm-server"},
        {"server": {"url": "http://x"}},
        {"num_engines": 2, "placement": "in_process"},
    ],
)
def test_sampler_and_server_go_together(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"rollout\.(server|placement)"):
        RolloutConfig.model_validate(options)


def test_a_server_that_teaches_must_have_the_policys_tokenizer(
    server: FakeServer, small_run: dict[str, Any], tokenizer: Any
) -> None:
    taught = {"distillation": {"teachers": {"t": {"server": server.url}}}}
    config = validate(TrainConfig, {**small_run, **taught}, source="test")
    with pytest.raises(ConfigError, match=r"distillation.teachers.t=http.* is \[1, 2, 3\] there, \["):
        check_teachers(config, tokenizer)
    gone = {"distillation": {"teachers": {"t": {"server": "http://127.0.0.1:9"}}}}
    with pytest.raises(ConfigError, match=r"distillation.teachers.t.server=http.*: no vLLM server answers"):
        check_teachers(validate(TrainConfig, {**small_run, **gone}, source="test"), tokenizer)


@pytest.mark.parametrize("said", [None, float("nan"), float("-inf"), float("inf")])
@pytest.mark.parametrize("estimate", ["sampled", "top_k"])
def test_a_teacher_that_gives_no_number_is_refused_by_name_row_and_token(
    server: FakeServer, small_run: dict[str, Any], tokenizer: Any, said: float | None, estimate: str
) -> None:
    teacher = {"teachers": {"big": {"server": server.url}}, "estimate": estimate, "top_k": 1}
    config = validate(TrainConfig, {**small_run, "distillation": teacher}, source="test")
    samples = [TrainingSample(prompt_ids=(1, 2), completion_ids=(3, 4), group="train/7")]
    teachers = Teachers(config, tokenizer, None, None)  # type: ignore[arg-type]
    assert teachers._ask("big", samples)[0].logprobs_TK.tolist() == [[-1.0], [-1.0]]
    server.canary = said
    expected = (
        r"distillation\.teachers\.big gives a log-probability of (nan|-?inf) at token 0 of completion 0 "
    )
    with pytest.raises(TrainingError, match=expected + r"\(prompt 'train/7'\)"):
        teachers._ask("big", samples)
    teachers.close()


def test_a_teacher_that_gives_too_few_tokens_says_how_to_start_it(
    server: FakeServer, small_run: dict[str, Any], tokenizer: Any
) -> None:
    teacher = {"teachers": {"big": {"server": server.url}}, "estimate": "top_k", "top_k": 3}
    config = validate(TrainConfig, {**small_run, "distillation": teacher}, source="test")
    samples = [TrainingSample(prompt_ids=(1, 2), completion_ids=(3, 4))]
    teachers = Teachers(config, tokenizer, None, None)  # type: ignore[arg-type]
    with pytest.raises(TrainingError, match="gave 1 of 3 log-probabilities at token 1: start it with --max-"):
        teachers._ask("big", samples)
    teachers.close()


@pytest.mark.parametrize("said", [None, float("nan"), float("-inf")])
def test_a_sampler_that_gives_no_number_is_refused(
    server: FakeServer, connect: Any, prompts: list[PromptRow], said: float | None
) -> None:
    sampler = connect(server.url)
    server.sampled = said
    with pytest.raises(
        TrainingError, match=r"gives a log-probability of (nan|-inf) at token 0 of completion"
    ):
        list(sampler.generate(prompts, num_samples=1, settings=SETTINGS))
