"""Every family of transformers' decoders on the learner's side: what a new release of transformers breaks."""

from typing import Any

import pytest

from verl_lite.engine.testing import FAMILIES


@pytest.mark.slow
# the code of GPT-BigCode in transformers
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated:DeprecationWarning")
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_learned_saved_and_loaded_right(family: str, trials: Any) -> None:
    row = trials.learner_row(family)
    assert row.reload == 0, "the saved model is another one"
    assert row.lora_reload is None or row.lora_reload < 1e-3, "merged adapters are not the adapters"
    assert (row.lora_reload is None) == bool(row.lora_why)
    assert row.form == "refused" or row.logprobs is not None
    assert row.logprobs is None or row.logprobs < 1e-4
    assert row.gradients is None or row.gradients < 1e-4
