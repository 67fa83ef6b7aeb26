"""A saved model is loaded again, as users of transformers would, and must be the model that was trained."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn

from verl_lite.engine.model.checkpoint_names import in_checkpoint_format
from verl_lite.engine.model.folder import default_device, load_policy, save_policy
from verl_lite.engine.model.machine import local_ram
from verl_lite.engine.model.precision import largest_difference, model_noise
from verl_lite.engine.model.weights import base_model, named_weights
from verl_lite.engine.types import Tokenizer
from verl_lite.errors import CheckpointError, DataError

TOKENS, STRIDE = 64, 7919  # what a model without prompts is compared on: ids all over its vocabulary
ROOM = 1.5  # memory that a second model needs, as a multiple of its files


def save_checked(model: nn.Module, tokenizer: "Tokenizer | None", folder: Path) -> None:
    """`save_policy`, then `check_saved_policy` on the same tokens, with the limit that the dtype explains."""
    save_policy(model, tokenizer, folder)
    model.eval()
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    rows = base_model(model).get_input_embeddings().weight.shape[0]
    ids = [(at * STRIDE) % rows for at in range(1, TOKENS + 1)]
    check_saved_policy(
        folder,
        ids,
        _token_logprobs(model, ids),
        dtype=dtype,
        limit=largest_difference(model_noise(model, ids)),
        names=lambda: (name for name, _ in in_checkpoint_format(model, named_weights(model))),
    )


def check_saved_policy(
    folder: Path,
    token_ids: Sequence[int],
    logprobs: Sequence[float],
    *,
    dtype: str,
    limit: float,
    names: Callable[[], Iterable[str]],
) -> None:
    """Raise CheckpointError unless the model in `folder` gives `token_ids` the `logprobs` of the trained one.

    In nats per token, computed in `dtype`, each within `limit`. Where memory does not hold a second model,
    the weights in the files are compared with those of `names` instead, by name alone. A folder without
    weights (of a sharded learner) is passed over.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        return
    device = _device_with_room(sum(file.stat().st_size for file in files))
    if device is None:
        _compare_names(folder, files, set(names()))
        return
    try:
        loaded = load_policy(str(folder), dtype=dtype, device=device).eval()
    except DataError as error:
        raise CheckpointError(
            f"the model saved in {folder} is not the one that was trained: {error}"
        ) from None
    found = _token_logprobs(loaded, token_ids)
    differences = [abs(a - b) for a, b in zip(found, logprobs, strict=True)]
    worst = max(range(len(differences)), key=lambda at: (differences[at] != differences[at], differences[at]))
    if not differences[worst] <= limit:  # nan must fail too
        raise CheckpointError(
            f"the model saved in {folder} is not the one that was trained: loaded again, its log-probability "
            f"of token {worst + 1} is {found[worst]:.4f}, in training {logprobs[worst]:.4f}; allowed is "
            f"{limit:g}. The learner's state beside it is whole, so nothing is lost; this combination of "
            "architecture and transformers cannot be saved correctly, please report it"
        )


@torch.no_grad()
def _token_logprobs(model: nn.Module, token_ids: Sequence[int]) -> list[float]:
    """log p(token t | tokens before t) for t >= 1, by the model's own forward pass."""
    ids_1T = torch.tensor([list(token_ids)], device=next(model.parameters()).device)
    logits_TV = model(input_ids=ids_1T, use_cache=False).logits[0, :-1].float()
    chosen: list[float] = logits_TV.log_softmax(-1).gather(1, ids_1T[0, 1:, None])[:, 0].tolist()
    return chosen


def _device_with_room(size: int) -> torch.device | None:
    if torch.cuda.is_available() and torch.cuda.mem_get_info()[0] > ROOM * size:
        return default_device()
    ram = local_ram()
    return torch.device("cpu") if ram is None or ram.free_bytes > ROOM * size else None


def _compare_names(folder: Path, files: Sequence[Path], wanted: set[str]) -> None:
    found: set[str] = set()
    for file in files:
        with safe_open(file, framework="pt") as opened:
            found.update(opened.keys())
    if lacking := sorted(wanted - found):
        raise CheckpointError(
            f"the model saved in {folder} lacks {len(lacking)} weights of the trained one: {lacking[0]}, ..."
        )
