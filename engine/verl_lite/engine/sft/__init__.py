"""The supervised warm-up: the policy learns to write the data set's answers, and only those.

rows.py            data set row -> conversation
chat_template.py   conversation -> text, tokens, the span of each response
examples.py        -> token ids with a loss weight each; faults.py: what is wrong with them, decoded
data.py            every source of the config, read and checked; stream.py: the order of their rows
loss.py            token weights -> one number;  training.py: the loop
validation.py      loss, perplexity, generated answers

engine/warm_up.py makes a stage of a run of it.
"""

from verl_lite.engine.sft.chat_template import ChatTemplate, Conversation
from verl_lite.engine.sft.data import SFTData, SFTSource, read_sft
from verl_lite.engine.sft.examples import IGNORED, ExampleBuilder, SFTExample, describe_example
from verl_lite.engine.sft.faults import Fault, FaultKind
from verl_lite.engine.sft.training import SFTStep, train_sft

__all__ = [
    "IGNORED",
    "ChatTemplate",
    "Conversation",
    "ExampleBuilder",
    "Fault",
    "FaultKind",
    "SFTData",
    "SFTExample",
    "SFTSource",
    "SFTStep",
    "describe_example",
    "read_sft",
    "train_sft",
]
