"""The supervised warm-up: the policy learns to write the data set's answers, and only those.

rows.py            data set row -> conversation
chat_template.py   conversation -> text, tokens, the span of each response
examples.py        -> token ids with a loss weight each; faults.py: what is wrong with them, decoded
data.py            every source of the config, read and checked; stream.py: the order of their rows
loss.py            token weights -> one number;  training.py: the loop
validation.py      loss, perplexity, generated answers

engine/warm_up.py makes a stage of a run of it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
