"""Rollouts from vLLM inside this process: one request a completion, each with a seed of its own.

The engine is stepped by hand, so a prompt's group is handed out as soon as its last completion
ends and rewards are computed while the rest still generates. Weights go in through
`reload_weights`, which repacks them as loading from disk would, without the disk.
"""

import os

# Before vLLM is imported, which reads them once. A user's own setting wins.
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # the engine lives in this process
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from verl_lite.engine.canary import TOLERANCES, Canary
from verl_lite.engine.config import RolloutConfig
from verl_lite.engine.seeds import derive_seed
from verl_lite.engine.stages import PromptRow, WeightSource
from verl_lite.plugins import Rollout, SamplerSettings

__all__ = ["VllmSampler"]


class VllmSampler:
    """The Sampler protocol on vLLM. `model_path` is only loaded once; later weights come from the learner."""

    def __init__(
        self,
        model_path: str,
        tokenizer: Any,
        config: RolloutConfig,
        *,
        canary_ids: Sequence[int],
        seed: int,
    ) -> None:
        self._tokenizer = tokenizer
        self._on_gpu = torch.cuda.is_available()
        self._sleeps = config.vllm.sleep and self._on_gpu
        self._version = 0
        self._llm = _start_engine(model_path, config, on_gpu=self._on_gpu, seed=seed)
        dtype = str(self._llm.llm_engine.model_config.dtype).removeprefix("torch.")
        self.canary = Canary(canary_ids, tolerance=config.canary_tolerance or TOLERANCES[dtype])

    @property
    def version(self) -> int:
        return self._version

    def generate(
        self, prompts: Sequence[PromptRow], *, num_samples: int, settings: SamplerSettings
    ) -> Iterator[list[Rollout]]:
        """See Sampler.generate. `settings.seed` is the batch's: each request's is derived from it."""
        engine = self._llm.llm_engine
        waiting = _submit(engine, prompts, num_samples=num_samples, settings=settings)
        groups: dict[int, list[Rollout]] = {}
        try:
            while waiting:
                for output in engine.step():
                    if not output.finished:
                        continue
                    prompt_index, sample_index, seed = waiting.pop(output.request_id)
                    rollout = self._rollout(
                        prompts[prompt_index], sample_index, output.outputs[0], replace(settings, seed=seed)
                    )
                    group = groups.setdefault(prompt_index, [])
                    group.append(rollout)
                    if len(group) == num_samples:
                        yield sorted(groups.pop(prompt_index), key=lambda r: r.sample_index)
        finally:
            if waiting:  # the caller stopped early (Ctrl-C): leave the engine empty
                engine.abort_request(list(waiting))

    def _rollout(
        self, prompt: PromptRow, sample_index: int, output: Any, settings: SamplerSettings
    ) -> Rollout:
        ids = list(output.token_ids)
        return Rollout(
            id=f"{prompt.id}/{sample_index}",
            group=prompt.id,
            sample_index=sample_index,
            prompt=prompt.messages,
            prompt_ids=prompt.prompt_ids,
            completion=self._tokenizer.decode(ids, skip_special_tokens=True),
            completion_ids=ids,
            logprobs=[step[token].logprob for step, token in zip(output.logprobs, ids, strict=True)],
            finish_reason=output.finish_reason or "",
            reference=prompt.reference,
            columns=prompt.columns,
            policy_version=self._version,
            sampling=settings,
        )

    def token_logprobs(self, token_ids: Sequence[int]) -> list[float]:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        parameters = SamplingParams(
            max_tokens=1,
            temperature=0.0,
            prompt_logprobs=0,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        engine = self._llm.llm_engine
        engine.add_request("canary", {"prompt_token_ids": list(token_ids)}, parameters)
        while True:
            for output in engine.step():
                if output.finished:
                    steps = output.prompt_logprobs[1:]
                    return [step[token].logprob for step, token in zip(steps, token_ids[1:], strict=True)]

    def load_weights(self, source: WeightSource, *, version: int) -> float:
        self._replace_weights(source)
        self._version = version
        return self.canary.check(source, self.token_logprobs(self.canary.token_ids), version=version)

    def _replace_weights(self, source: WeightSource) -> None:
        weights = dict(source.named_weights())
        hf_config = self._llm.llm_engine.model_config.hf_config
        if not self._on_gpu and getattr(hf_config, "tie_word_embeddings", False):
            # vLLM's CPU build repacks a tied output head into a copy of its own, which embed_tokens
            # alone would leave at the old weights (the canary shows it)
            embeddings = next(t for name, t in weights.items() if name.endswith("embed_tokens.weight"))
            weights.setdefault("lm_head.weight", embeddings)
        self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": list(weights.items())})
        self._llm.reset_prefix_cache()

    def sleep(self) -> None:
        if self._sleeps:
            self._llm.sleep(level=1)

    def wake(self) -> None:
        if self._sleeps:
            self._llm.wake_up()

    def close(self) -> None:
        """Free the engine; the sampler cannot be used afterwards."""
        import gc

        llm = self.__dict__.pop("_llm", None)
        if llm is not None:
            llm.llm_engine.engine_core.shutdown()
            del llm
            gc.collect()


def _start_engine(model_path: str, config: RolloutConfig, *, on_gpu: bool, seed: int) -> Any:
    options = config.vllm
    arguments: dict[str, Any] = {
        "gpu_memory_utilization": options.gpu_memory_utilization,
        "enable_sleep_mode": options.sleep,
        "enforce_eager": bool(options.enforce_eager),
        "dtype": options.dtype,
    }
    if not on_gpu:
        # compiling the one op that returns logprobs costs 10 s and gains nothing here
        os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
        arguments = {
            "enforce_eager": True,
            "dtype": "float32" if options.dtype == "auto" else options.dtype,
            "kv_cache_memory_bytes": int(options.kv_cache_gib * 2**30),
        }
    with _quiet_start():
        from vllm import LLM

        return LLM(
            model=model_path,
            max_model_len=config.context_tokens,
            enable_prefix_caching=on_gpu if options.prefix_caching is None else options.prefix_caching,
            # the sampling policy's own: after temperature, top-p and top-k
            logprobs_mode="processed_logprobs",
            generation_config="vllm",
            disable_log_stats=True,
            use_tqdm_on_load=False,
            seed=seed % 2**31,
            **arguments,
        )


@contextmanager
def _quiet_start() -> Iterator[None]:
    """Keep what vLLM's libraries write to stderr while starting; shown only when the start fails."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as aside:
        os.dup2(aside.fileno(), 2)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except BaseException:
            aside.seek(0)
            os.write(kept, aside.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _submit(
    engine: Any, prompts: Sequence[PromptRow], *, num_samples: int, settings: SamplerSettings
) -> dict[str, tuple[int, int, int]]:
    """Queue every request; returns {request id: (prompt index, sample index, seed)}."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    waiting = {}
    for prompt_index, prompt in enumerate(prompts):
        for sample_index in range(num_samples):
            seed = derive_seed(settings.seed, prompt.id, sample_index)
            parameters = SamplingParams(
                temperature=settings.temperature,
                top_p=settings.top_p,
                top_k=settings.top_k,
                max_tokens=settings.max_new_tokens,
                seed=seed,
                logprobs=0,  # the sampled token's own
                detokenize=False,
                output_kind=RequestOutputKind.FINAL_ONLY,
            )
            request_id = f"{prompt_index}/{sample_index}"
            engine.add_request(request_id, {"prompt_token_ids": list(prompt.prompt_ids)}, parameters)
            waiting[request_id] = (prompt_index, sample_index, seed)
    return waiting
