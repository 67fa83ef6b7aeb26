from .build import Composite as Composite, build_composite as build_composite
from .combine import Combiner as Combiner
from .config import (
    ComponentConfig as ComponentConfig,
    GroupConfig as GroupConfig,
    Leaf as Leaf,
    RewardNode as RewardNode,
    RewardsConfig as RewardsConfig,
    ScoringConfig as ScoringConfig,
    leaves as leaves,
    load_rewards_config as load_rewards_config,
)
from .gate import Gate as Gate, parse_gate as parse_gate
from .gdpo import gdpo_advantages as gdpo_advantages
from .metrics import METRICS as METRICS, batch_metrics as batch_metrics
from .policies import CircuitBreaker as CircuitBreaker
from .process_rewards import (
    Decode as Decode,
    even_spans as even_spans,
    spans_from_pieces as spans_from_pieces,
    steps_to_tokens as steps_to_tokens,
    token_pieces as token_pieces,
)
from .schedule import Schedule as Schedule, Weight as Weight, weight_at as weight_at, weights_of as weights_of
