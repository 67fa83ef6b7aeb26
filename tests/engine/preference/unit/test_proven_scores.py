"""A reward model runs packed only if its scores and gradients are those of transformers' own class."""

import random

import pytest
import torch

from verl_lite.engine import TrainingSample
from verl_lite.engine.config import LearnerConfig
from verl_lite.engine.learner import attention_buckets, proof
from verl_lite.engine.preference import ScoringHead
from verl_lite.engine.testing import family_config


def classifier(family: str) -> torch.nn.Module:
    from transformers import AutoModelForSequenceClassification

    config = family_config(family)
    config.num_labels = 1
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForSequenceClassification.from_config(config, dtype=torch.float32).eval()


def conversations() -> list[TrainingSample]:
    rng = random.Random(3)
    prompt = rng.choices(range(13, 50), k=15)
    return [
        TrainingSample(
            prompt_ids=prompt,
            completion_ids=rng.choices(range(13, 50), k=length),
        )
        for length in (1, 9, 21)
    ]


@pytest.mark.parametrize(
    ("family", "is_packed"),
    [("mistral-window", True), ("phi3-window", True), ("gpt2", True), ("nemotron", False), ("phimoe", False)],
)
def test_scores_are_those_of_transformers(family: str, is_packed: bool) -> None:
    """Beyond the window of 8 tokens, with a shared prompt; the proof leaves the head as it was."""
    model = classifier(family)
    weight = model.score.weight.detach().clone()
    head = ScoringHead(model, LearnerConfig(share_prompts="auto"), pad_token_id=0)
    assert head.arrangement.is_packed is is_packed, head.arrangement.note
    assert torch.equal(model.score.weight, weight)
    scores = head.score(conversations())
    if model._can_set_attn_implementation():
        model.set_attn_implementation("eager")
    for score, row in zip(scores, conversations(), strict=True):
        ids = torch.tensor([[*row.prompt_ids, *row.completion_ids]])
        expected = model(input_ids=ids, use_cache=False).logits[0, 0]
        assert float(score.detach()) == pytest.approx(float(expected.detach()), abs=1e-5)


def test_a_window_that_packing_ignores_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a new head of zeros too, whose scores are all 0."""
    inner = attention_buckets.Buckets.mask_LK
    monkeypatch.setattr(
        attention_buckets.Buckets,
        "mask_LK",
        lambda self, bucket, window, device: inner(self, bucket, None, device),
    )
    monkeypatch.setattr(proof, "_proven", {})
    monkeypatch.setattr(proof, "_own_sources", lambda: "without windows")
    model = classifier("mistral-window")
    torch.nn.init.zeros_(model.score.weight)
    head = ScoringHead(model, LearnerConfig(), pad_token_id=0)
    assert not head.arrangement.is_packed
    assert not model.score.weight.any()
