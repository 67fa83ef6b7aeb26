"""`verl-lite eval`: measure a model on data sets, or compare two."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from verl_lite.cli.options import AsJson, ConfigFile, DebugInline, Overrides
from verl_lite.cli.start import calm_threads

if TYPE_CHECKING:
    from verl_lite.engine.evals import Comparison, EvalConfig, EvalResult


def evaluate(
    config: ConfigFile,
    overrides: Overrides = None,
    model: Annotated[str | None, typer.Option(help="A model folder or hub id; default: model.path")] = None,
    compare: Annotated[
        str | None, typer.Option(help="A second model, or the --out folder of an earlier eval")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for results.json and all samples")] = None,
    debug_inline: DebugInline = False,
    as_json: AsJson = False,
) -> None:
    """Measure a model on data sets with the rewards of a config; compare it with another model.

    With a training config, it measures on the held-out rows.

    Example: verl-lite eval examples/eval_gsm8k.yaml --model runs/gsm8k/model --out evals/gsm8k
    """
    calm_threads()
    from verl_lite.cli.terminal import print_json
    from verl_lite.engine.evals import evaluate_model, load_eval_config
    from verl_lite.errors import ConfigError

    checked = load_eval_config(config, overrides or [])
    path = model or (checked.model.path if checked.model else None)
    if path is None:
        raise ConfigError("eval: name the model to measure with --model")
    other = _other(checked, compare, out, debug_inline) if compare else None
    result = evaluate_model(checked, path, out_dir=out, debug_inline=debug_inline)
    comparisons = _comparisons(other, result) if other else {}
    if as_json:
        found = {name: [one.to_json() for one in part] for name, part in comparisons.items()}
        print_json({**result.to_json(), "compared_with": other.model if other else None, "comparison": found})
        return
    _print_result(result)
    if other is not None:
        _print_comparison(other, result, comparisons)


def _other(config: "EvalConfig", compare: str, out: Path | None, debug_inline: bool) -> "EvalResult":
    from verl_lite.engine.evals import RESULTS, evaluate_model, read_result

    if (Path(compare) / RESULTS).is_file():
        return read_result(Path(compare))
    folder = out.with_name(out.name + "-compared") if out else None
    return evaluate_model(config, compare, out_dir=folder, debug_inline=debug_inline)


def _comparisons(first: "EvalResult", second: "EvalResult") -> dict[str, list["Comparison"]]:
    from verl_lite.engine.evals import compare_results
    from verl_lite.errors import DataError

    missing = second.datasets.keys() - first.datasets.keys()
    if missing:
        raise DataError(f"{first.model} was not measured on {', '.join(sorted(missing))}")
    return {
        name: compare_results(first.datasets[name].prompts, part.prompts)
        for name, part in second.datasets.items()
    }


def _print_result(result: "EvalResult") -> None:
    from verl_lite.cli.terminal import print_table

    for name, part in result.datasets.items():
        rows = [
            [
                one.name,
                _shown(one.value, one.is_share),
                ""
                if one.low is None
                else f"{_shown(one.low, one.is_share)} to {_shown(one.high, one.is_share)}",
                f"{one.count:,}",
            ]
            for one in part.measures
        ]
        print_table(f"{name}: {result.model}", ["measure", "value", "95% interval", "of"], rows)


def _print_comparison(
    first: "EvalResult", second: "EvalResult", comparisons: dict[str, list["Comparison"]]
) -> None:
    from verl_lite.cli.terminal import print_table

    for name, part in comparisons.items():
        rows = [
            [
                one.measure,
                _shown(one.first, True),
                _shown(one.second, True),
                f"{one.difference:+.1%}",
                f"{one.low:+.1%} to {one.high:+.1%}",
                "-" if one.p_value is None else f"{one.p_value:.3g}",
                "yes" if one.is_significant else "no",
            ]
            for one in part
        ]
        columns = ["measure", "first", "second", "difference", "95% interval", "McNemar p", "beyond chance"]
        print_table(f"{name}: {first.model} and then {second.model}", columns, rows)


def _shown(value: float | None, is_share: bool) -> str:
    if value is None:
        return "-"
    return f"{value:.1%}" if is_share else f"{value:.2f}"
