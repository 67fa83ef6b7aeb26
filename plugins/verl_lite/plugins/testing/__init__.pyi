from .assertions import (
    assert_any_order as assert_any_order,
    assert_group_scores as assert_group_scores,
    assert_score as assert_score,
)
from .chat_server import ChatRequest as ChatRequest, FakeChatServer as FakeChatServer
from .environments import FakeEnvironments as FakeEnvironments
from .fakes import (
    component_for as component_for,
    fake_group as fake_group,
    fake_rollout as fake_rollout,
    score_rollouts as score_rollouts,
)
from .playing import play as play
