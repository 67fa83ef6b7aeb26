"""Values that are not numbers are refused by the name of the model that gave them, with row and token."""

import copy
import math
from array import array
from dataclasses import replace

import pytest
import torch

from verl_lite.engine.config import AlgorithmConfig, LearnerConfig
from verl_lite.engine.config.algorithm import CriticConfig, KLConfig
from verl_lite.engine.learner import Learner
from verl_lite.engine.learner.finite import refuse_not_finite
from verl_lite.errors import TrainingError
from verl_lite.plugins import Rollout, ScoredRollout


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("as_row", [list, lambda row: array("d", row), torch.tensor])
def test_the_model_the_row_and_the_token_are_named(make_samples, bad, as_row):
    samples = make_samples(num_groups=2, group_size=1)
    rows = [as_row([-1.0, -2.0]), as_row([-1.0, bad, -1.0])]
    expected = rf"the teacher gives a log-probability of {bad} at token 1 of completion 1 \(prompt '"
    with pytest.raises(TrainingError, match=expected + samples[1].group):
        refuse_not_finite("the teacher", samples, rows)
    refuse_not_finite("the teacher", samples, [rows[0], rows[0]])


def test_an_impossible_token_may_have_no_probability_where_all_tokens_are_given(make_samples):
    samples = make_samples(num_groups=1, group_size=1)
    every_TV = torch.tensor([[0.0, -math.inf], [-1.0, -0.5]])
    refuse_not_finite("t", samples, [every_TV], may_be_impossible=True)
    with pytest.raises(TrainingError, match="of -inf at token 0"):
        refuse_not_finite("t", samples, [every_TV])
    with pytest.raises(TrainingError, match="of nan at token 1"):
        refuse_not_finite("t", samples, [torch.tensor([[0.0], [math.nan]])], may_be_impossible=True)
    with pytest.raises(TrainingError, match="of inf at token 0"):
        refuse_not_finite("t", samples, [torch.tensor([[math.inf], [0.0]])], may_be_impossible=True)


def break_head(model: torch.nn.Module) -> None:
    with torch.no_grad():
        model.get_output_embeddings().weight[3] = math.nan


def test_a_reference_a_critic_and_a_policy_that_broke_are_named(tiny_model, make_samples):
    """Weights are checked when a model loads; what breaks later gives its values to nobody."""
    rollout = Rollout(
        id="a/0", group="a", completion="x", prompt_ids=(1, 2), completion_ids=(3, 4), logprobs=(-1.0, -1.0)
    )
    row = ScoredRollout(rollout=rollout, reward=1.0, components={})
    kl = KLConfig(coefficient=0.1, placement="reward")

    def learner(**algorithm):
        algorithm = AlgorithmConfig(**algorithm)
        return Learner(tiny_model(), LearnerConfig(), algorithm, pad_token_id=0, total_steps=2)

    broken = learner(advantage="reinforce_pp", kl=kl)
    break_head(broken._reference.policy.model)
    with pytest.raises(TrainingError, match="the reference policy gives a log-probability of nan at token 0"):
        broken.token_statistics([row])
    broken = learner(advantage="reinforce_pp", kl=kl)
    broken._reference = replace(broken._reference, policy=copy.deepcopy(broken.policy))
    break_head(broken.policy.model)
    with pytest.raises(TrainingError, match="the policy gives a log-probability of nan at token 0"):
        broken.token_statistics([row])
    broken = learner(advantage="gae", critic=CriticConfig())
    torch.nn.init.constant_(broken._critic._head.weight, math.nan)
    with pytest.raises(TrainingError, match="the critic gives a value of nan at token 0 of completion 0"):
        broken.token_statistics([row])
    in_the_loss = learner(kl=KLConfig(coefficient=0.1))
    break_head(in_the_loss._reference.policy.model)
    with pytest.raises(TrainingError, match="the reference policy gives a log-probability of nan"):
        in_the_loss.update(make_samples())
