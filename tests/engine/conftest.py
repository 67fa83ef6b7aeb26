"""A tiny Qwen3 and ragged training samples; one thread, so that sums come in one order."""

import copy
import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import GenerationConfig, PreTrainedTokenizerFast

from verl_lite.engine import PromptRow, TrainingSample
from verl_lite.engine.config import TinyModelConfig
from verl_lite.engine.model import (
    ChatTemplate,
    end_token_ids,
    in_checkpoint_format,
    named_weights,
    tiny,
)
from verl_lite.engine.rollout import TurnsSampler
from verl_lite.engine.rollout.turns.rendering import TurnRenderer
from verl_lite.engine.rollout.turns.tool_calls import choose_tool_parser
from verl_lite.engine.rollout.turns.trajectory import TurnBudgets, TurnKit
from verl_lite.plugins import Rollout, SamplerSettings, Step
from verl_lite.plugins.testing import FakeEnvironments

VOCAB = 61
SMALL = TinyModelConfig(
    hidden_size=64, num_layers=2, num_heads=2, num_kv_heads=1, intermediate_size=128, max_context_tokens=128
)


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a very small model of the quickstart's kind."""
    folder = tmp_path_factory.mktemp("model") / "small"
    tiny.build_tiny_model(folder, SMALL, seed=0)
    return folder


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The proofs of how models run go to a cache of this session."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return tiny.build_tiny_tokenizer()


@pytest.fixture(scope="session")
def trajectories(tokenizer: Any) -> Callable[..., dict[str, Rollout]]:
    """Samples trajectories over any sampler; the environment says "1+1=" after each turn that ends."""
    end_ids = (tokenizer.eos_token_id,)
    kit = TurnKit(
        renderer=TurnRenderer(ChatTemplate(tokenizer), end_ids=end_ids),
        parser=choose_tool_parser("pythonic", tokenizer),
        budgets=TurnBudgets(context_tokens=110, max_turns=3, max_tool_s=60.0),
        max_failed=0.0,
    )
    settings = SamplerSettings(max_new_tokens=96, seed=5)

    def again(message: object) -> Step:
        return Step(messages=[{"role": "user", "content": "1+1="}])

    def sample(inner: Any, prompts: Sequence[PromptRow]) -> dict[str, Rollout]:
        sampler = TurnsSampler(inner, FakeEnvironments(reply=again), kit)
        groups = sampler.generate(prompts, num_samples=3, settings=settings)
        found = {rollout.id: rollout for group in groups for rollout in group}
        assert max(len(rollout.turns) for rollout in found.values()) >= 3, "no answer of the environment"
        return found

    return sample


class ModelSource:
    """The learner's side of a weight sync: a model that can be changed by `move`."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModelForCausalLM

        self.model: Any = AutoModelForCausalLM.from_pretrained(folder)

    def named_weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        return named_weights(self.model)

    def checkpoint_weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        return in_checkpoint_format(self.model, self.named_weights())

    @torch.no_grad()
    def token_logprobs(self, token_ids: Sequence[int], temperature: float = 1.0) -> list[float]:
        logits = self.model(torch.tensor([list(token_ids)])).logits[0, :-1]
        logprobs = (logits / temperature).log_softmax(-1)
        chosen: list[float] = logprobs.gather(1, torch.tensor(token_ids[1:])[:, None])[:, 0].tolist()
        return chosen

    def logprob_noise(self, token_ids: Sequence[int], dtype: str) -> float:
        return 0.0

    @torch.no_grad()
    def move(self, seed: int, *, scale: float = 0.02, only: str = "") -> None:
        """Add noise to every weight whose name contains `only`."""
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.model.named_parameters():
            if only in name:
                parameter.add_(scale * torch.randn(parameter.shape, generator=generator))


@pytest.fixture
def source(small_model: Path) -> ModelSource:
    return ModelSource(small_model)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def build_tiny_model(dtype: torch.dtype = torch.float64, seed: int = 0, **options: object) -> torch.nn.Module:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(seed)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    shape |= {"num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256, "vocab_size": VOCAB}
    return Qwen3ForCausalLM(Qwen3Config(**{**shape, "pad_token_id": 0, **options})).to(dtype)


@pytest.fixture
def tiny_model() -> Callable[..., torch.nn.Module]:
    return build_tiny_model


@pytest.fixture
def make_samples() -> Callable[..., list[TrainingSample]]:
    def make(
        *, num_groups: int = 4, group_size: int = 4, prompt=(5, 20), completion=(1, 24), seed: int = 0
    ) -> list[TrainingSample]:
        rng = random.Random(seed)
        samples = []
        for group in range(num_groups):
            prompt_ids = [rng.randrange(1, VOCAB) for _ in range(rng.randint(*prompt))]
            for _ in range(group_size):
                ids = [rng.randrange(1, VOCAB) for _ in range(rng.randint(*completion))]
                advantage = rng.uniform(-2, 2)
                samples.append(
                    TrainingSample(
                        prompt_ids=prompt_ids,
                        completion_ids=ids,
                        sampler_logprobs_T=[-4.0 + rng.uniform(-0.3, 0.3) for _ in ids],
                        advantages_T=[advantage] * len(ids),
                        loss_mask_T=[1] * len(ids),
                        group=f"g{group}",
                    )
                )
        return samples

    return make


REWARD_FILE = '''
from verl_lite.plugins import reward

@reward("digits")
def digits(rollout):
    """The part of the completion that is digits."""
    text = rollout.completion
    return sum(c.isdigit() for c in text) / len(text) if text else 0.0
'''


@pytest.fixture(scope="session")
def small_tree(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A config, before validation, whose run takes seconds: tiny model, `transformers`, reward for digits."""
    rewards = tmp_path_factory.mktemp("rewards") / "digits.py"
    rewards.write_text(REWARD_FILE)
    sizes = {"hidden_size": 64, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1, "intermediate_size": 128}
    return {
        "name": "small",
        "steps": 4,
        "model": {"tiny": {**sizes, "max_context_tokens": 64}},
        "data": {"train": {"task": "arithmetic", "num_rows": 20}},
        "rewards": {"digits": {"use": f"{rewards}:digits"}},
        "rollout": {
            "sampler": "transformers",
            "num_prompts": 6,
            "num_samples": 4,
            "max_prompt_tokens": 16,
            "max_new_tokens": 16,
        },
        "learner": {"optimizer": {"learning_rate": 3e-3}},
        "logging": {"trackers": []},
    }


@pytest.fixture
def small_run(small_tree: dict[str, Any]) -> dict[str, Any]:
    """`small_tree`, to be changed at will."""
    return copy.deepcopy(small_tree)


FAMILIES = Path(__file__).parents[1] / "fixtures" / "chat_templates"
SPECIAL = re.compile(r"<[|｜][^<>]+[|｜]>|<(?:start|end)_of_\w+>|\[/?[A-Z_]{3,}\]|\[gMASK\]|<sop>|<image>")


@dataclass(frozen=True, kw_only=True)
class ChatFamily:
    """A model family's template and a tokenizer with its special tokens; `about` is from families.json."""

    name: str
    tokenizer: Any
    about: dict[str, Any]

    @property
    def end_ids(self) -> tuple[int, ...]:
        named = self.about.get("ends", [self.about["eos"]])
        model = SimpleNamespace(generation_config=GenerationConfig(eos_token_id=self.ids(named)))
        return end_token_ids(self.tokenizer, model, self.about.get("named", ()))  # type: ignore[arg-type]

    def ids(self, tokens: Sequence[str]) -> list[int]:
        return [int(self.tokenizer.convert_tokens_to_ids(token)) for token in tokens]

    def template(self, **options: Any) -> ChatTemplate:
        return ChatTemplate(self.tokenizer, **{"arguments": self.about.get("arguments", {}), **options})


def make_family(name: str) -> ChatFamily:
    about = json.loads((FAMILIES / "families" / "families.json").read_text(encoding="utf-8"))[name]
    source = (FAMILIES / "families" / f"{about.get('template', name)}.jinja").read_text(encoding="utf-8")
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(FAMILIES / "tokenizer.json"))
    tokenizer.chat_template = source
    named = [about[key] for key in ("bos", "eos") if key in about]
    found = dict.fromkeys(
        [*SPECIAL.findall(source), *about.get("ends", []), *about.get("tokens", []), *named]
    )
    tokenizer.add_special_tokens({"additional_special_tokens": list(found)})
    tokenizer.eos_token = about["eos"]
    if "bos" in about:
        tokenizer.bos_token = about["bos"]
    return ChatFamily(name=name, tokenizer=tokenizer, about=about)


def make_families() -> dict[str, ChatFamily]:
    names = json.loads((FAMILIES / "families" / "families.json").read_text(encoding="utf-8"))
    return {name: make_family(name) for name in names}


@pytest.fixture(scope="session")
def chat_families() -> dict[str, ChatFamily]:
    """Templates in the shapes of the families people train, by name."""
    return make_families()


@pytest.fixture(scope="session")
def trials(load_script: Callable[[str], ModuleType]) -> ModuleType:
    """benchmarks/family_trials.py: one family of models, tried on the learner or on vLLM."""
    return load_script("benchmarks/family_trials.py")


class Waits(TorchDispatchMode):
    """Counts operations after which a GPU's host has to wait: their result is a number or a size."""

    NAMES = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select")

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        indexes_by_mask = name == "index" and any(x is not None and x.dtype == torch.bool for x in args[1])
        if name in self.NAMES or indexes_by_mask:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


@pytest.fixture
def waits() -> Waits:
    return Waits()
