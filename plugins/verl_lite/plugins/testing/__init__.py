"""For testing rewards: fakes, assertions that explain, and a reward run exactly as in training.

>>> from verl_lite.plugins import reward
>>> @reward("word_count", isolate=False)
... def word_count(rollout):
...     return len(rollout.completion.split())
>>> [timed.score.value for timed in score_rollouts(word_count, [fake_rollout("two words")])]
[2.0]
>>> assert_score(word_count, fake_rollout("two words"), 2.0).value
2.0

The pytest fixture `score_rollouts` (a whole config, installed rewards) comes with verl-lite's pytest
plugin; the function of that name here scores with one reward, installed or not.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
