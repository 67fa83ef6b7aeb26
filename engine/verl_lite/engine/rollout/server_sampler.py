"""Rollouts from a `vllm serve` process: one HTTP request per completion.

Up to `rollout.sequences_in_flight` requests are open at once. The server must report the sampling policy's
log-probabilities (`--logprobs-mode processed_logprobs`), except at temperature 1 without top-p and top-k,
where they equal the model's.
"""

import json
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Thread

from verl_lite.engine.config.cluster import ClusterConfig
from verl_lite.engine.config.rollout import RolloutConfig
from verl_lite.engine.rollout.canary import Canary
from verl_lite.engine.rollout.requests import FinishedSequence, GroupBuilder, SequenceRequest
from verl_lite.engine.rollout.server_client import ServerClient
from verl_lite.engine.rundir.interrupt import next_of
from verl_lite.engine.types import PromptRow, Tokenizer, WeightSource, never_stop
from verl_lite.errors import ConfigError
from verl_lite.plugins import Rollout, SamplerSettings

IN_FLIGHT = 64
HEADLESS = {"Gemma2ForCausalLM"}  # vLLM's class has no output head, and refuses one among the weights


class ServerSampler:
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
        decode = partial(tokenizer.decode, skip_special_tokens=True)
        self._build_groups = partial(GroupBuilder, decode=decode, end_ids=end_ids)
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

    def generate(
        self,
        prompts: Sequence[PromptRow],
        *,
        num_samples: int,
        settings: SamplerSettings,
        check: Callable[[], None] = never_stop,
    ) -> Iterator[list[Rollout]]:
        """See Sampler.generate. Each request's seed is derived from `settings.seed`."""
        is_plain = settings.temperature == 1 and settings.top_p == 1 and settings.top_k == 0
        if not self._processed and not is_plain and settings.temperature > 0:
            raise ConfigError(
                f"{self.client.url} reports log-probabilities before temperature, top-p and top-k: start it "
                "with --logprobs-mode processed_logprobs, or sample with temperature 1, top_p 1, top_k 0"
            )
        groups = self._build_groups(prompts, num_samples=num_samples, settings=settings)
        waiting = deque(groups.requests)
        answers: SimpleQueue[FinishedSequence | Exception] = SimpleQueue()
        complete = partial(self.client.complete, version=self.version)
        for _ in range(min(self._in_flight, len(waiting))):
            # daemons, so that exit does not wait for cancelled requests
            Thread(target=_complete_all, args=(waiting, complete, answers), daemon=True).start()
        try:
            for _ in groups.requests:
                answer = next_of(answers, check)
                if isinstance(answer, Exception):
                    raise answer
                if (group := groups.add(answer)) is not None:
                    yield group
        finally:
            waiting.clear()

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


def _complete_all(
    waiting: deque[SequenceRequest],
    complete: Callable[[SequenceRequest], FinishedSequence],
    answers: "SimpleQueue[FinishedSequence | Exception]",
) -> None:
    """A thread's work: one request after another until none is left."""
    while True:
        try:
            request = waiting.popleft()
        except IndexError:
            return
        try:
            answers.put(complete(request))
        except Exception as error:  # noqa: BLE001 - raised again by whoever waits for the answers
            answers.put(error)
            return
