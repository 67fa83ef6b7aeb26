"""What a reward is checked on: the rollouts and options of its golden files, or our own samples."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import BaseModel, ValidationError

from verl_lite.errors import ConfigError, PluginError
from verl_lite.lab.golden import SUFFIX, read_golden
from verl_lite.lab.reading import open_rollouts
from verl_lite.plugins import (
    Component,
    Message,
    RewardCatalog,
    RewardDefinition,
    Rollout,
    load_rewards_config,
)
from verl_lite.plugins.composite import build_composite
from verl_lite.plugins.execution.spec import spec_of

COMPONENT = "reward"  # the component name of the reward under test
_SKIPPED_FOLDERS = ("node_modules", "site-packages", "dist", "build")

_SAMPLES = ("4", "The answer is 4.", "<think>2 + 2</think><answer>4</answer>", r"So it is \boxed{4}.", "five")
_ODD = {
    "nothing": "",
    "blanks": " \n\t ",
    "a long text": "word " * 20_000,
    "one long word": "a" * 100_000,
    "a long number": "9" * 10_000,
    "nested brackets": "(" * 2_000 + ")" * 2_000,
    "open LaTeX": r"\boxed{\frac{1}{" * 500,
    "control characters": "\x00\x1b[31m\r\x7f",
    "other scripts": "四 ÷ ٤ 🎉 e\u0301 \u202e4",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The reward with one set of options, and the rollouts to score; `golden` is the file they are from.

    The component runs in a worker process even if it declares `isolate=False`, so that a hanging reward
    cannot stop the check. One that cannot be sent there runs here, and `stays_because` says why.
    """

    component: Component
    rollouts: Sequence[Rollout]
    golden: Path | None
    stays_because: str = ""


def subjects_of(
    definition: RewardDefinition, catalog: RewardCatalog, golden_files: Sequence[Path]
) -> list[Subject]:
    """One subject per use of the reward in the golden files; without any, our samples with default options.

    Raises ConfigError for a golden file that does not use the reward, and for a reward with required
    options but no golden file.
    """
    subjects = [subject for path in golden_files for subject in _golden_subjects(definition, catalog, path)]
    if subjects:
        return subjects
    try:
        options = definition.options_model()
    except ValidationError as error:
        needed = ", ".join(".".join(map(str, item["loc"])) for item in error.errors())
        raise ConfigError(
            f"reward {definition.name!r} needs the options {needed}: pin scores of a config that gives them "
            "(`verl-lite score ROLLOUTS -c REWARDS.yaml --golden NAME.golden.json`) and name that file "
            "with --golden"
        ) from None
    rollouts = [_sample(index, text) for index, text in enumerate(_SAMPLES)]
    return [_subject(definition, options, definition.timeout_s, rollouts, None)]


def _sample(index: int, completion: str) -> Rollout:
    prompt = (Message(role="user", content="What is 2 + 2?"),)
    return Rollout(
        id=f"sample-{index}",
        group="sample",
        sample_index=index,
        prompt=prompt,
        completion=completion,
        reference="4",
        columns={"reference": "4"},
    )


def odd_rollouts(subject: Subject) -> list[Rollout]:
    """One of the subject's rollouts with each odd completion in turn."""
    like = subject.rollouts[0]
    return [
        replace(like, id=name, sample_index=i, completion=text, completion_ids=(), logprobs=(), group="odd")
        for i, (name, text) in enumerate(_ODD.items())
    ]


def find_golden_files(definition: RewardDefinition, catalog: RewardCatalog, folder: Path) -> list[Path]:
    """The readable golden files below `folder` whose config uses the reward."""
    found = []
    for path in sorted(_walk(folder)):
        try:
            uses = any(True for _ in _components(definition, catalog, path))
        except (ConfigError, PluginError):  # another reward's, or broken; --golden FILE explains
            uses = False
        if uses:
            found.append(path)
    return found


def _walk(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name[0] != "." and name not in _SKIPPED_FOLDERS]
        yield from (Path(root, name) for name in names if name.endswith(SUFFIX))


def _components(definition: RewardDefinition, catalog: RewardCatalog, path: Path) -> Iterator[Component]:
    golden = read_golden(path)
    composite = build_composite(load_rewards_config(path.parent / golden.config), catalog)
    return (part for part in composite.components if part.definition.call is definition.call)


def _golden_subjects(definition: RewardDefinition, catalog: RewardCatalog, path: Path) -> Iterator[Subject]:
    components = list(_components(definition, catalog, path))
    if not components:
        raise ConfigError(f"--golden {path}: its config does not use the reward {definition.name!r}")
    with open_rollouts(path.parent / read_golden(path).rollouts) as opened:
        rollouts = [record.rollout for group in opened.groups() for record in group]
    rollouts = [replace(row, id=row.id or f"row-{i}") for i, row in enumerate(rollouts, start=1)]
    for part in components:
        yield _subject(definition, part.options, part.timeout_s, rollouts, path)


def _subject(
    definition: RewardDefinition,
    options: BaseModel,
    timeout_s: float,
    rollouts: Sequence[Rollout],
    golden: Path | None,
) -> Subject:
    isolated = replace(definition, isolate=True)
    component = Component(name=COMPONENT, definition=isolated, options=options, timeout_s=timeout_s)
    try:
        spec_of(component)
    except PluginError as error:
        here = replace(component, definition=replace(definition, isolate=False))
        return Subject(component=here, rollouts=rollouts, golden=golden, stays_because=str(error))
    return Subject(component=component, rollouts=rollouts, golden=golden)
