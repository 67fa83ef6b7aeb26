"""The supervised warm-up: train on the data set's answers only.

rows.py            data set row -> conversation
responses.py       conversation -> text, tokens, the span of each response
examples.py        -> token ids with loss weights; faults.py: faults in them, decoded
data.py            all sources of the config, read and checked; stream.py: the order of their rows
loss.py            token weights -> one number;  training.py: the loop
saved_rollouts.py  records of a teacher -> the same examples
validation.py      loss, perplexity, generated answers

engine/warm_up.py runs it as a stage of a run.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
