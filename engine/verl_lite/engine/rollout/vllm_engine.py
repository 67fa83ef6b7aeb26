"""One vLLM engine, stepped manually, one request per sequence: in this process or a Ray actor.

New weights go through `reload_weights`, which repacks them as if loaded from disk. They may arrive while
sequences run: these continue from their tokens, and every token carries the version that sampled it.
"""

import os

# vLLM reads these once, when it is imported. The user's own settings win.
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # the engine lives in this process
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr
from dataclasses import dataclass, field
from typing import Any

import torch

from verl_lite.engine.config.gpu_settings import NEED_A_GPU, changed
from verl_lite.engine.config.learner import LoraConfig
from verl_lite.engine.config.rollout import RolloutConfig
from verl_lite.engine.rollout.requests import FinishedSequence, SequenceRequest
from verl_lite.engine.rollout.vllm_adapters import VllmAdapters, takes_adapters
from verl_lite.engine.rollout.vllm_classes import classes_of_its_own, clear_start_errors
from verl_lite.engine.rollout.vllm_cpu import repack_heads, use_kernels, use_router_bias
from verl_lite.engine.rollout.vllm_models import arguments_for_model
from verl_lite.errors import ConfigError

CANARY_ID = "canary"
NO_COMPILING = "TORCHDYNAMO_DISABLE"
BEFORE_ALL = -1  # vLLM starts the smallest priority first; within one, in order of arrival
FIRST_PROMPT = [0, 1, 2]
TOKENS_PER_STEP = 8192  # on the CPU, where prompts are not split
CACHED_BLOCK = 32  # tokens; the CPU's attention wants multiples of 32


@dataclass(slots=True)
class _Running:
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)


class VllmEngine:
    """`model_path` is loaded once; later weights come through `load`. `options` are those of vLLM's `LLM`.

    `loads_midway` allows new weights while sequences run. Without it, vLLM returns each sequence once, at
    its end, which saves Python overhead. With `lora`, and a model for which vLLM supports adapters, `load`
    takes only the adapters.
    """

    def __init__(
        self,
        model_path: str,
        config: RolloutConfig,
        *,
        seed: int,
        loads_midway: bool = True,
        options: Mapping[str, Any] | None = None,
        lora: LoraConfig | None = None,
    ) -> None:
        self._loads_midway = loads_midway
        self._on_gpu = torch.cuda.is_available()
        self._sleeps = config.engines_sleep and self._on_gpu
        with _starting(self._on_gpu):
            can_adapt = lora is not None and takes_adapters(model_path)
        if lora is not None and not can_adapt and config.lora_sync == "adapters":
            raise ConfigError(
                f"rollout.lora_sync=adapters: vLLM has no adapters for the model {model_path!r}"
            )
        self._adapters = VllmAdapters(lora) if lora is not None and can_adapt else None
        started_with = {**(options or {}), **(self._adapters.options if self._adapters else {})}
        self.llm = _start(model_path, config, on_gpu=self._on_gpu, seed=seed, options=started_with)
        self._is_eight_bit = config.vllm.quantization == "fp8"
        self._running: dict[str, _Running] = {}
        self._finished: list[FinishedSequence] = []
        self._asleep: set[str] = set()  # vLLM's names for what it freed
        self.version = 0

    @property
    def dtype(self) -> str:
        """The least exact dtype it computes in: "float32", "bfloat16", "float16" or "float8_e4m3fn"."""
        if self._is_eight_bit:
            return "float8_e4m3fn"
        return str(self.llm.llm_engine.model_config.dtype).removeprefix("torch.")

    @property
    def places(self) -> int:
        """The maximum number of sequences decoded at once; the KV cache may hold fewer."""
        return int(self.llm.llm_engine.vllm_config.scheduler_config.max_num_seqs)

    @property
    def takes_adapters(self) -> bool:
        """Whether `load` takes LoRA adapters (PEFT's names) instead of full weights."""
        return self._adapters is not None

    @property
    def num_unfinished(self) -> int:
        """Sequences that no step has returned yet."""
        return len(self._running) + len(self._finished)

    def add(self, requests: Iterable[SequenceRequest]) -> None:
        """Queue sequences to sample; vLLM runs as many at once as its KV cache holds."""
        for request in requests:
            parameters = _parameters(request, each_token=self._loads_midway)
            self._add(request.id, request.prompt_ids, parameters)
            self._running[request.id] = _Running()

    def _add(self, id: str, prompt_ids: Sequence[int], parameters: Any, *, priority: int = 0) -> None:
        adapter = self._adapters.request if self._adapters else None
        prompt = {"prompt_token_ids": list(prompt_ids)}
        self.llm.llm_engine.add_request(id, prompt, parameters, lora_request=adapter, priority=priority)

    def step(self) -> list[FinishedSequence]:
        """One token for every running sequence; returns those that ended."""
        self._step()
        finished, self._finished = self._finished, []
        return finished

    def _step(self) -> Any:
        """One engine step; returns the canary's output if there is one."""
        canary = None
        for output in self.llm.llm_engine.step():
            if output.request_id == CANARY_ID:
                canary = output
                continue
            running, (completion,) = self._running[output.request_id], output.outputs
            ids = completion.token_ids
            assert len(completion.logprobs.logprobs) == len(ids)  # logprobs=0: one per token
            running.token_ids += ids
            running.logprobs += completion.logprobs.logprobs
            running.versions += [self.version] * len(ids)
            if output.finished:
                del self._running[output.request_id]
                self._finished.append(
                    FinishedSequence(
                        id=output.request_id,
                        token_ids=running.token_ids,
                        logprobs=running.logprobs,
                        token_versions=running.versions,
                        finish_reason=completion.finish_reason or "",
                    )
                )
        return canary

    def abort(self, ids: Iterable[str]) -> None:
        """Drop these sequences; unknown ids are ignored."""
        known = [id for id in ids if self._running.pop(id, None) is not None]
        if known:
            self.llm.llm_engine.abort_request(known)

    def abort_all(self) -> None:
        self.abort(list(self._running))
        self._finished.clear()

    def token_logprobs(self, token_ids: Sequence[int]) -> list[float]:
        """log p(token t | tokens before t) for t >= 1; running sequences advance meanwhile."""
        from vllm import SamplingParams

        parameters = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False)
        self._add(CANARY_ID, token_ids, parameters, priority=BEFORE_ALL)
        while True:
            output = self._step()
            if output is not None and output.finished:
                steps = output.prompt_logprobs[1:]
                return [step[token].logprob for step, token in zip(steps, token_ids[1:], strict=True)]

    def load(self, weights: Iterable[tuple[str, torch.Tensor]], *, version: int) -> None:
        """Replace the weights before the next step.

        Names of the checkpoint format and full tensors; if `takes_adapters`, those of the adapters alone.
        """
        named = dict(weights)
        if self._adapters is not None:
            self._adapters.load(self.llm, named)
            self.weights_arrived(version=version)
            return
        from verl_lite.engine.rollout.vllm_reload import CopiesAreLoaded

        with CopiesAreLoaded():
            self.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": list(named.items())})
        if not self._on_gpu and in_this_process():
            self.llm.apply_model(repack_heads)
        self.weights_arrived(version=version)

    def weights_arrived(self, *, version: int) -> None:
        """Call after new weights: resets caches, and later tokens get this version."""
        assert self._loads_midway or not self._running, "versions of running sequences are not kept"
        self._wake(*self._asleep)
        caches = self.llm.llm_engine.vllm_config.cache_config.enable_prefix_caching
        # recomputes the blocks of running sequences
        if caches and not self.llm.reset_prefix_cache(reset_running_requests=bool(self._running)):
            raise RuntimeError("vLLM kept the prefix cache of the old weights")
        self.version = version

    def sleep(self) -> None:
        """Free the GPU. Only adapters need the old weights again; without them vLLM drops its copy."""
        if self._sleeps:
            self.llm.sleep(level=1 if self._adapters is not None else 2)
            self._asleep = {"weights", "kv_cache"}

    def wake(self) -> None:
        """Take memory for the weights; that of the KV cache is taken when they have arrived."""
        if "weights" in self._asleep:
            torch.cuda.empty_cache()  # vLLM takes from the driver what torch may hold in reserve
            self._wake("weights")

    def _wake(self, *parts: str) -> None:
        for part in sorted(parts, reverse=True):  # weights before kv_cache
            self.llm.wake_up(tags=[part])
            self._asleep.discard(part)

    def close(self) -> None:
        """Free the engine."""
        import gc

        llm = self.__dict__.pop("llm", None)
        if llm is not None:
            llm.llm_engine.engine_core.shutdown()
            del llm
            gc.collect()
        if self._adapters is not None:
            self._adapters.close()


def _parameters(request: SequenceRequest, *, each_token: bool) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    settings = request.settings
    return SamplingParams(
        temperature=settings.temperature,
        top_p=settings.top_p,
        top_k=settings.top_k,
        max_tokens=settings.max_new_tokens,
        seed=settings.seed,
        ignore_eos=request.ignore_end,
        stop_token_ids=[] if request.ignore_end else list(request.end_ids),
        logprobs=0,  # the sampled token's own
        flat_logprobs=True,
        detokenize=False,
        # token by token, so that each gets the version of its step
        output_kind=RequestOutputKind.DELTA if each_token else RequestOutputKind.FINAL_ONLY,
    )


def _start(
    model_path: str, config: RolloutConfig, *, on_gpu: bool, seed: int, options: Mapping[str, Any]
) -> Any:
    arguments = (_gpu_arguments if on_gpu else _cpu_arguments)(config)
    with _starting(on_gpu):
        from vllm import LLM

        # a vLLM worker in another process does not see what is registered here
        if not on_gpu and in_this_process():
            arguments |= use_kernels()
        caches = config.vllm.prefix_caching
        arguments |= arguments_for_model(model_path, on_gpu=on_gpu) | {
            "model": model_path,
            "max_model_len": config.context_tokens,
            "enable_prefix_caching": on_gpu if caches is None else caches,
            # the sampling policy's own: after temperature, top-p and top-k
            "logprobs_mode": "processed_logprobs",
            "scheduling_policy": "priority",
            "generation_config": "vllm",
            "disable_log_stats": True,
            "use_tqdm_on_load": False,
            "seed": seed % 2**31,
        }
        with clear_start_errors(model_path), classes_of_its_own() as separate:
            llm = LLM(**arguments, **options)
            if in_this_process():
                llm.apply_model(separate)
                if not on_gpu:
                    llm.apply_model(use_router_bias)
            _sample_once(llm)
        return llm


def _sample_once(llm: Any) -> None:
    """A first token: there are models that vLLM loads and fails at when they compute."""
    from vllm import SamplingParams

    once = SamplingParams(max_tokens=1, temperature=0.0, detokenize=False)
    llm.generate({"prompt_token_ids": FIRST_PROMPT}, once, use_tqdm=False)


def _gpu_arguments(config: RolloutConfig) -> dict[str, Any]:
    vllm = config.vllm
    return {
        "gpu_memory_utilization": vllm.gpu_memory_utilization,
        "enable_sleep_mode": config.engines_sleep,
        "enforce_eager": bool(vllm.enforce_eager),
        "dtype": vllm.dtype,
        "tensor_parallel_size": vllm.tensor_parallel_size,
        "quantization": vllm.quantization,
    }


def _cpu_arguments(config: RolloutConfig) -> dict[str, Any]:
    """Raises ConfigError for settings that need a GPU."""
    vllm = config.vllm
    if needed := changed(config, NEED_A_GPU, section="rollout"):
        raise ConfigError(f"{' and '.join(needed)} needs a GPU, and there is none here: leave it out")
    return {
        "enforce_eager": True,
        "dtype": "float32" if vllm.dtype == "auto" else vllm.dtype,
        "kv_cache_memory_bytes": int(vllm.kv_cache_gib * 2**30),
        # on the CPU a prompt split over two steps fails if its request has a seed ("CPU Generator does
        # not use offset"), so whole prompts must fit into a step
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(config.context_tokens, TOKENS_PER_STEP),
        # whole blocks are reused: of 128 tokens, vLLM's default, few turns fill one
        **({"block_size": CACHED_BLOCK} if vllm.prefix_caching else {}),
    }


def in_this_process() -> bool:
    """Whether vLLM's worker runs in this process, as it does unless the user's environment says otherwise."""
    return os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"


@contextmanager
def _starting(on_gpu: bool) -> Iterator[None]:
    """Capture stderr while vLLM is imported and starts, and show it if that fails in an unknown way.

    Without a GPU vLLM's own compiled functions are not compiled: 10 s for the one that returns
    log-probabilities, and nothing gained. torch looks when they are defined; the learner's may be compiled.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as aside, ExitStack() as undone:
        if not on_gpu and NO_COMPILING not in os.environ:
            os.environ[NO_COMPILING] = "1"
            undone.callback(os.environ.pop, NO_COMPILING)
        os.dup2(aside.fileno(), 2)
        # a live display has put its own stream in the place of sys.stderr
        undone.enter_context(redirect_stderr(open(2, "w", buffering=1, closefd=False)))  # noqa: SIM115
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except BaseException as error:
            if not isinstance(error, ConfigError):  # which says itself what is wrong
                aside.seek(0)
                os.write(kept, aside.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
