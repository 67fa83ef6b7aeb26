from .attention import packed_attention as packed_attention
from .attention_buckets import LayerRule as LayerRule
from .attention_plans import AttentionMetadata as AttentionMetadata
from .checkpoint import saved_state as saved_state, start_saving as start_saving
from .critic import (
    explained_variance as explained_variance,
    make_critic as make_critic,
    value_loss as value_loss,
)
from .learner import Learner as Learner
from .logprobs import (
    token_logprobs as token_logprobs,
    token_logprobs_and_entropy as token_logprobs_and_entropy,
)
from .optimizer import (
    PolicyOptimizer as PolicyOptimizer,
    decay_start as decay_start,
    learning_rate_factor as learning_rate_factor,
)
from .packing import (
    Segment as Segment,
    balance_ranks as balance_ranks,
    pack as pack,
    pack_padded as pack_padded,
    split_micro_batches as split_micro_batches,
)
from .policy import Policy as Policy, shared_tokens as shared_tokens
from .ranks import SINGLE_RANK as SINGLE_RANK, Ranks as Ranks
from .sharded_checkpoint import distribute_like as distribute_like, write_sharded as write_sharded
from .tiles import LogitRule as LogitRule
