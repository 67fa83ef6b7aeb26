"""Rollouts from a `vllm serve` process: one HTTP request per completion.

Up to `rollout.sequences_in_flight` requests are open at once. The server must report the sampling policy's
log-probabilities (`--logprobs-mode processed_logprobs`), except at temperature 1 without top-p and top-k,
where they equal the model's.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Thread

from verl_lite.engine.config.cluster import ClusterConfig
from verl_lite.engine.config.rollout import RolloutConfig
from verl_lite.engine.rollout.canary import Canary
from verl_lite.engine.rollout.requests import FinishedSequence, QueueStream, SequenceRequest
from verl_lite.engine.rollout.server_client import ServerClient
from verl_lite.engine.rollout.streams import SequenceStream, StreamSampler
from verl_lite.engine.types import Tokenizer, WeightSource
from verl_lite.errors import ConfigError
from verl_lite.plugins import SamplerSettings

IN_FLIGHT = 64
HEADLESS = {"Gemma2ForCausalLM"}  # vLLM's class has no output head, and refuses one among the weights


class ServerSampler(StreamSampler):
    """A Sampler on the server of `rollout.server`, which must serve the model in `model_path`."""

    def __init__(
        self,
        model_path: str,
        tokenizer: Tokenizer,
        config: RolloutConfig,
        cluster: ClusterConfig,
        *,
        canary_ids: Sequence[int],
        end_ids: Sequence[int] = (),
    ) -> None:
        server = config.server
        assert server is not None  # the config's check
        super().__init__(tokenizer, end_ids)
        self._model_path = Path(model_path)
        self._in_flight = config.sequences_in_flight or IN_FLIGHT
        self._weights_dir = None if server.weights_dir is None else Path(server.weights_dir)
        self.version = 0
        self.canary = Canary(canary_ids, dtype=server.dtype, tolerance=config.canary_tolerance)
        self.client = ServerClient(
            server.url,
            api_key_env=server.api_key_env,
            timeout_s=cluster.call_timeout_s,
            retries=cluster.max_restarts,
        )
        self._processed = self.client.gives_processed_logprobs(canary_ids)
        if self._weights_dir is not None and not self.client.takes_weights():
            self.close()
            raise ConfigError(
                f"rollout.server.weights_dir={server.weights_dir}, but {server.url} takes no new weights: "
                "start it with VLLM_SERVER_DEV_MODE=1 in its environment"
            )

    def stream(self, settings: SamplerSettings, check: Callable[[], None]) -> SequenceStream:
        """Raises ConfigError for a server whose log-probabilities are not those of `settings`."""
        is_plain = settings.temperature == 1 and settings.top_p == 1 and settings.top_k == 0
        if not self._processed and not is_plain and settings.temperature > 0:
            raise ConfigError(
                f"{self.client.url} reports log-probabilities before temperature, top-p and top-k: start it "
                "with --logprobs-mode processed_logprobs, or sample with temperature 1, top_p 1, top_k 0"
            )
        complete = partial(self.client.complete, version=self.version)
        return _ServerStream(complete, check, in_flight=self._in_flight)

    def token_logprobs(self, token_ids: Sequence[int]) -> list[float]:
        return self.client.token_logprobs(token_ids)

    def load_weights(self, source: WeightSource, *, version: int) -> float:
        """See Sampler.load_weights. Raises ConfigError for a server that keeps its own weights."""
        if self._weights_dir is None:
            raise ConfigError(
                f"{self.client.url} keeps its own weights, so it cannot sample for training: name a folder "
                "both sides see in rollout.server.weights_dir (and start it with VLLM_SERVER_DEV_MODE=1)"
            )
        folder = self._weights_dir / f"version_{version % 2}"  # one is read while the other is written
        self._write(source, folder)
        self.client.reload(str(folder))
        self.version = version
        return self.canary.check(source, self.token_logprobs(self.canary.token_ids), version=version)

    def _write(self, source: WeightSource, folder: Path) -> None:
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        config = self._model_path / "config.json"
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in source.checkpoint_weights()}
        if config.is_file():
            shutil.copy(config, folder)
            described = json.loads(config.read_text())
            has_head = not HEADLESS.intersection(described.get("architectures") or ())
            if described.get("tie_word_embeddings") and has_head:
                # vLLM's CPU build keeps a copy of a tied head (see vllm_engine.py); others ignore this one
                for name in [name for name in weights if name.endswith("embed_tokens.weight")]:
                    weights.setdefault("lm_head.weight", weights[name].clone())
        save_file(weights, folder / "model.safetensors")

    def sleep(self) -> None:
        """Nothing to free: the server has its own memory."""

    def wake(self) -> None:
        """See sleep."""

    def close(self) -> None:
        self.client.close()


class _ServerStream(QueueStream):
    """Up to `in_flight` threads, each with one open request."""

    def __init__(
        self,
        complete: Callable[[SequenceRequest], FinishedSequence],
        check: Callable[[], None],
        *,
        in_flight: int,
    ) -> None:
        super().__init__(check)
        self._complete = complete
        self._in_flight = in_flight
        self._waiting: SimpleQueue[SequenceRequest | None] = SimpleQueue()
        self._num_threads = 0

    def send(self, requests: Sequence[SequenceRequest]) -> None:
        for request in requests:
            self._waiting.put(request)
        while self._num_threads < min(self._in_flight, self.num_unfinished):
            self._num_threads += 1
            # daemons, so that exit does not wait for cancelled requests
            Thread(target=self._complete_all, daemon=True).start()

    def drop(self) -> None:
        while not self._waiting.empty():
            self._waiting.get()
        for _ in range(self._num_threads):
            self._waiting.put(None)

    def _complete_all(self) -> None:
        """A thread's work: one request after another."""
        while (request := self._waiting.get()) is not None:
            try:
                self.results.put(self._complete(request))
            except Exception as error:  # noqa: BLE001 - raised again by whoever waits for the answers
                self.results.put(error)
