"""Model folders that cannot be trained: one message each, before anything loads."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from verl_lite.engine.config import LearnerConfig, ModelConfig
from verl_lite.engine.config.algorithm import CriticConfig
from verl_lite.engine.learner.critic import make_critic
from verl_lite.engine.model import build_tiny_tokenizer, end_token_ids, load_policy, load_tokenizer, shape_of
from verl_lite.engine.model.compatibility import check_config, check_vocabulary
from verl_lite.engine.model.folder import pad_token_id
from verl_lite.engine.preference.reward_model import load_scoring_model
from verl_lite.engine.testing import FAMILIES, family_config
from verl_lite.errors import ConfigError, DataError


def written(folder: Path, **config: Any) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return str(folder)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"model_type": "qwen3", "architectures": ["Qwen3ForSequenceClassification"]},
            r"ForSequenceClassification, which classifies sequences \(or is a reward model\); expected a c",
        ),
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "which fills masked tokens"),
        ({"model_type": "llama", "architectures": ["LlamaForTokenClassification"]}, "classifies tokens"),
        (
            {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True},
            "t5 is an encoder and a decoder; expected a model with a decoder alone",
        ),
        ({"model_type": "bart", "is_encoder_decoder": True}, "bart is an encoder and a decoder"),
        ({"model_type": "vit", "architectures": ["ViTModel"]}, "vit is no causal language model in transf"),
        ({"model_type": "clip", "architectures": ["CLIPModel"]}, "clip is no causal language model"),
        ({"model_type": "qwen9"}, r"has no model_type 'qwen9'\. verl-lite runs no code from model folders"),
        (
            {"model_type": "mymodel", "auto_map": {"AutoConfig": "configuration_mymodel.MyConfig"}},
            r"has no model_type 'mymodel', whose code is in the folder \(auto_map\)\. verl-lite runs no code",
        ),
        ({"architectures": ["LlamaForCausalLM"]}, "its config.json names no model_type"),
        ({}, "it has no config.json; is this the folder"),
        *(
            (
                {"model_type": "qwen3", "quantization_config": {"quant_method": name}},
                rf"are quantised \({name}\)",
            )
            for name in ("fp8", "gptq", "awq", "mxfp4", "compressed-tensors")
        ),
    ],
)
def test_another_kind_of_model(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    path = written(tmp_path / "model", **config)
    with pytest.raises(ConfigError, match=message) as caught:
        check_config(path)
    assert str(caught.value).startswith(f"model.path={path!r}: ")
    assert "\n" not in str(caught.value)


def test_quantised_weights_can_be_sampled_from(tmp_path: Path) -> None:
    path = written(tmp_path, model_type="qwen3", quantization_config={"quant_method": "fp8"})
    check_config(path, trains=False)


def test_adapters_are_not_a_model(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "org/base"}))
    with pytest.raises(ConfigError, match=r"adapters of 'org/base', not a model: merge them .*learner\.lora"):
        check_config(str(tmp_path))


def test_a_copy_that_is_not_whole(tmp_path: Path) -> None:
    path = written(tmp_path, model_type="qwen3")
    shards = {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-3.safetensors"}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": shards}))
    (tmp_path / "model-1.safetensors").write_bytes(b"weights")
    with pytest.raises(DataError, match=r"lacks model-2\.safetensors and 1 more, which its model\.saf"):
        check_config(path)
    index.unlink()
    check_config(path)
    (tmp_path / "model-1.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"
    )
    with pytest.raises(DataError, match=r"model-1\.safetensors is a pointer of Git LFS"):
        check_config(path)


def test_a_config_that_is_no_json(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"config\.json is not JSON"):
        check_config(str(tmp_path))
    (tmp_path / "config.json").write_text("[]", encoding="utf-8")
    with pytest.raises(DataError, match=r"config\.json holds \[\], expected an object"):
        check_config(str(tmp_path))


def test_code_in_a_folder_whose_model_transformers_has_is_not_run(tmp_path: Path, small_model: Path) -> None:
    config = json.loads((small_model / "config.json").read_text(encoding="utf-8"))
    check_config(written(tmp_path / "own", **config, auto_map={"AutoConfig": "evil.Config"}))


def test_a_config_that_contradicts_itself_is_one_line_where_it_is_first_read(tmp_path: Path) -> None:
    """transformers reads the model's configuration for its tokenizer too."""
    build_tiny_tokenizer().save_pretrained(tmp_path)
    written(tmp_path, model_type="llama", hidden_size=128, num_attention_heads=3)
    for read in (load_tokenizer, shape_of):
        with pytest.raises(
            DataError, match=r"hidden size \(128\) is not a multiple of .* heads \(3\)"
        ) as caught:
            read(ModelConfig(path=str(tmp_path)))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_passes(family: str, tmp_path: Path) -> None:
    family_config(family).save_pretrained(tmp_path)
    check_config(str(tmp_path))


def test_hub_ids_and_missing_folders_are_left_to_what_loads_them() -> None:
    check_config("")  # a tiny model has no path
    check_config("org/model")
    check_config("/no/such/folder")


def copy_with(folder: Path, source: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> str:
    folder.mkdir()
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    weights = load_file(source / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


def load(path: str) -> Any:
    return load_policy(path, dtype="float32", device=torch.device("cpu"))


NORM = "model.layers.1.input_layernorm.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop(NORM), rf"lack {NORM}, which would be random"),
        (lambda w: [w.pop(n) for n in list(w) if "layers.1." in n], r"lack model\.layers\.1.* and \d+ more"),
        (lambda w: w.update({NORM: torch.ones(7)}), rf"other shapes than the configuration: {NORM} .*7.*64"),
        (
            lambda w: w.update({NORM.replace("1", "2"): torch.ones(64)}),
            r"have model\.layers\.2\.input_layernorm\.weight, which the model of the configuration has",
        ),
        (
            lambda w: w.update({"model.layers.0.self_attn.q_proj.bias": torch.ones(64)}),
            r"have .*q_proj\.bias",
        ),
    ],
)
def test_weights_that_are_not_the_configuration_s(
    tmp_path: Path, small_model: Path, change: Callable[[dict[str, torch.Tensor]], None], message: str
) -> None:
    path = copy_with(tmp_path / "model", small_model, change)
    with pytest.raises(DataError, match=message) as caught:
        load(path)
    assert str(caught.value).startswith(f"the weights in {path!r} ")
    assert str(caught.value).endswith(
        "config.json and weights are not of one model, or the copy is not whole"
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", [NORM, "model.embed_tokens.weight"])
def test_a_weight_that_is_no_number_is_named_by_whatever_loads_the_model(
    tmp_path: Path, small_model: Path, name: str, bad: float
) -> None:
    def spoil(weights: dict[str, torch.Tensor]) -> None:
        weights[name].view(-1)[-1] = bad

    path, cpu = copy_with(tmp_path / "model", small_model, spoil), torch.device("cpu")
    with pytest.raises(DataError, match=f"the model '{path}' has a weight that is nan or inf, in {name}"):
        load(path)
    with pytest.raises(DataError, match=f"nan or inf, in {name}"):
        load_scoring_model(path, dtype="float32", device=cpu, pad_token_id=0)
    critic = CriticConfig(model=path)
    with pytest.raises(ConfigError, match=rf"algorithm\.critic\.model=.*nan or inf, in {name}"):
        make_critic(critic, LearnerConfig(), load(str(small_model)), pad_token_id=0, total_steps=1)


def test_weights_of_other_parts_are_passed_over(tmp_path: Path, small_model: Path) -> None:
    def add(weights: dict[str, torch.Tensor]) -> None:
        weights["v_head.summary.weight"] = torch.ones(1, 64)
        weights["visual.blocks.0.attn.qkv.weight"] = torch.ones(2, 2)
        weights["model.rotary_emb.inv_freq"] = torch.ones(4)

    load(copy_with(tmp_path / "model", small_model, add))


@pytest.mark.parametrize("keep", [0, 100, 0.5])
def test_a_file_that_is_cut_off(tmp_path: Path, small_model: Path, keep: float) -> None:
    path = copy_with(tmp_path / "model", small_model, lambda w: None)
    file = Path(path) / "model.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[: int(keep if keep != 0.5 else len(data) / 2)])
    with pytest.raises(DataError, match=r"^cannot load the model '") as caught:
        load(path)
    assert "\n" not in str(caught.value)


class Vocabulary:
    """What `check_vocabulary` reads of a tokenizer: 10 tokens, of which `added` were added."""

    bos_token_id = None

    def __init__(self, *, added: int = 0, eos: int = 1, pad: int | None = 0) -> None:
        self.added, self.eos_token_id, self.pad_token_id = added, eos, pad

    def __len__(self) -> int:
        return 10

    def get_vocab(self) -> dict[str, int]:
        return {f"t{i}": i for i in range(10)}

    def get_added_vocab(self) -> dict[str, int]:
        return {f"t{i}": i for i in range(10 - self.added, 10)}


@pytest.mark.parametrize(
    ("rows", "tokenizer", "token"),
    [
        (10, Vocabulary(), None),
        (64, Vocabulary(), None),  # a head larger than the tokenizer, as most are
        (9, Vocabulary(), "t9"),
        (7, Vocabulary(), "t7"),
        (9, Vocabulary(added=1), None),  # Gemma 3 1B's token for images
        (9, Vocabulary(added=1, pad=9), "t9"),
        (9, Vocabulary(added=1, eos=9), "t9"),
        (9, Vocabulary(pad=None), "t9"),
    ],
)
def test_a_tokenizer_larger_than_the_model(
    tmp_path: Path, rows: int, tokenizer: Any, token: str | None
) -> None:
    path = written(tmp_path / "model", model_type="llama", vocab_size=rows)
    if token is None:
        check_vocabulary(tokenizer, ModelConfig(path=path))
        return
    with pytest.raises(
        ConfigError, match=f"has 10 tokens, its model {rows}: '{token}' is token {token[1:]}, "
    ):
        check_vocabulary(tokenizer, ModelConfig(path=path))


@pytest.mark.parametrize(
    "wrong", [{"vocab_size": "many"}, {"rope_parameters": {"rope_type": "bogus"}}, {"hidden_act": "zelu"}]
)
def test_a_configuration_with_wrong_values(tmp_path: Path, wrong: dict[str, Any]) -> None:
    path = written(tmp_path / "model", model_type="qwen3", **wrong)
    with pytest.raises(DataError, match=r"model\.path=.*(many|bogus|zelu)") as caught:
        shape_of(ModelConfig(path=path))
    assert "\n" not in str(caught.value)


def test_a_head_that_the_configuration_ties(tmp_path: Path, small_model: Path) -> None:
    """transformers would compute with it, vLLM with the embedding; a copy of that is no other head."""

    def add(weights: dict[str, torch.Tensor]) -> None:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"] + 1

    with pytest.raises(DataError, match="have a head of their own, although tie_word_embeddings is true"):
        load(copy_with(tmp_path / "other", small_model, add))

    def same(weights: dict[str, torch.Tensor]) -> None:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()

    load(copy_with(tmp_path / "same", small_model, same))


def test_a_generation_config_that_cannot_be_read(tmp_path: Path, small_model: Path) -> None:
    """Its end tokens would be missing without a word."""
    path = Path(copy_with(tmp_path / "model", small_model, lambda w: None))
    tokenizer = load_tokenizer(ModelConfig(path=str(path)))
    (path / "generation_config.json").write_text("{")
    with pytest.raises(DataError, match=r"cannot read generation_config\.json of "):
        end_token_ids(tokenizer, str(path))


def test_a_folder_without_a_tokenizer(tmp_path: Path, small_model: Path) -> None:
    """transformers makes an empty one of the model's type, which knows no word."""
    path = Path(copy_with(tmp_path / "model", small_model, lambda w: None))
    for file in path.glob("token*"):
        file.unlink()
    with pytest.raises(
        DataError, match=r"cannot load the tokenizer of .*: the folder has none \(tokenizer\.json"
    ):
        load_tokenizer(ModelConfig(path=str(path)))


def test_a_tokenizer_without_a_padding_token_pads_with_eos(tmp_path: Path, small_model: Path) -> None:
    tokenizer = load_tokenizer(ModelConfig(path=str(small_model)))
    tokenizer.pad_token = None
    assert pad_token_id(tokenizer) == tokenizer.eos_token_id
    tokenizer.save_pretrained(tmp_path)
    again = load_tokenizer(ModelConfig(path=str(tmp_path)))
    assert again.pad_token_id is None
    assert pad_token_id(again) == again.eos_token_id
