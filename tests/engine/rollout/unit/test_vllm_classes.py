"""What vLLM patches for itself is undone for the learner, and what it cannot run is said in one line."""

from typing import Any

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from torch import nn

from verl_lite.engine.rollout.vllm_classes import classes_of_its_own, clear_start_errors
from verl_lite.engine.testing import family_model
from verl_lite.errors import ConfigError, TrainingError

IDS = torch.arange(6, 26)[None]


class _Compiled:
    """What vLLM adds to the bases of a class that it compiles."""


def _patch(cls: Any) -> None:
    cls.__bases__ = (*cls.__bases__, _Compiled)
    cls.compiled = True
    cls.__call__ = lambda self, *args, **kwargs: self.only_vllm_has_this
    cls.forward_before = cls.forward
    cls.forward = lambda self, *args, **kwargs: "patched"


def test_the_learners_class_is_restored_and_vllms_modules_keep_the_patch() -> None:
    model, served = family_model("olmo2"), family_model("olmo2")
    cls: Any = type(model.model)
    before, bases = model(input_ids=IDS).logits, cls.__bases__
    with classes_of_its_own() as separate:
        _patch(cls)
        separate(nn.ModuleList([served.model]))
    assert cls.__bases__ == bases
    assert not hasattr(cls, "compiled")
    assert torch.equal(model(input_ids=IDS).logits, before)
    assert isinstance(served.model, (cls, _Compiled))
    assert served.model.forward() == "patched"
    with pytest.raises(AttributeError, match="only_vllm_has_this"):
        served.model()


def test_a_failed_start_leaves_no_patch() -> None:
    cls: Any = type(family_model("olmo2").model)
    forward = cls.forward

    def start() -> None:
        with classes_of_its_own():
            _patch(cls)
            raise ValueError("no start")

    with pytest.raises(ValueError, match="no start"):
        start()
    assert cls.forward is forward


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (KeyError("factor"), r"cannot run the model 'm' here: KeyError: 'factor'\. Set rollout\.sampler"),
        (ValueError("1 error\n  Value error, no such class\n more"), r"ValueError: no such class\. Set"),
        (
            ValueError(f"no XGLM. Known: {['Llama'] * 400}"),
            r"ValueError: no XGLM\. Known: \['Llama', .* …\. Set",
        ),
        (RuntimeError("shapes cannot be multiplied (6x64)"), r"shapes cannot be multiplied \(6x64\)\. Set"),
        (OSError("Can't load image processor"), "OSError: Can't load image processor"),
        (
            StrictDataclassClassValidationError("validate_layer_type", ValueError("got ['hash_moe']")),
            r"validator 'validate_layer_type': ValueError: got \['hash_moe'\]\. Set",
        ),
        (
            AssertionError("CPU GDN attention requires BF16."),
            r"BF16.*rollout\.vllm\.dtype: bfloat16",
        ),
        (  # as the sources of 0.24.0 and 0.32.0 have it
            AssertionError("CuMem allocator can only be used for one instance per process."),
            r"one engine per process alone.*start a new process, or set rollout\.vllm\.sleep: false",
        ),
    ],
)
def test_what_vllm_cannot_run_is_one_line(raised: Exception, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught, clear_start_errors("m"):
        raise raised
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("raised", [RuntimeError("CUDA out of memory"), TrainingError("ours")])
def test_memory_and_our_own_errors_pass(raised: Exception) -> None:
    with pytest.raises(type(raised), match=str(raised)), clear_start_errors("m"):
        raise raised
