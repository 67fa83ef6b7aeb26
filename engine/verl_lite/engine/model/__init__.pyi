from .chat_template import ChatTemplate as ChatTemplate
from .checkpoint_names import in_checkpoint_format as in_checkpoint_format
from .compatibility import check_critic as check_critic
from .end_tokens import (
    end_of_answer as end_of_answer,
    end_token_ids as end_token_ids,
    note_on_end as note_on_end,
    without_end as without_end,
)
from .fetch import PACKAGED_MODELS as PACKAGED_MODELS, fetch_model as fetch_model
from .folder import (
    load_policy as load_policy,
    load_tokenizer as load_tokenizer,
    open_chat_template as open_chat_template,
    save_policy as save_policy,
)
from .lora import adapters_to_sync as adapters_to_sync, add_adapters as add_adapters
from .quantization import check_bitsandbytes as check_bitsandbytes
from .shape import ModelShape as ModelShape, shape_of as shape_of, shape_of_config as shape_of_config
from .tiny import (
    CHAT_TEMPLATE as CHAT_TEMPLATE,
    build_tiny_model as build_tiny_model,
    build_tiny_tokenizer as build_tiny_tokenizer,
)
from .weights import base_model as base_model, named_weights as named_weights
