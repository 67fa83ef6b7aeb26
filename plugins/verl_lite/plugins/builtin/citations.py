"""Citations of numbered sources: `citations`."""

import json
import re
from collections.abc import Mapping, Sequence

from pydantic import Field, field_validator

from verl_lite.plugins.config_file import ConfigModel
from verl_lite.plugins.contract import reward
from verl_lite.plugins.rollout import Rollout
from verl_lite.plugins.score import Score, ScoreOutcome

_QUOTE = re.compile(r"[\"“]([^\"“”\n]{1,2000})[\"”][ \t.,;:]*\Z")


class CitationOptions(ConfigModel):
    """What a citation looks like, where the sources are, and what is asked of them.

    Sources are a list of texts (cited as 1, 2, ...), or a mapping of names to texts, also as JSON.
    """

    sources_column: str = Field(default="sources", description="the column with the sources")
    expected_column: str = Field(
        default="citations",
        description="the column with the names of those that must be cited; with it, the value is the share "
        "of the cited and the expected ones that are both",
    )
    pattern: str = Field(
        default=r"\[(\w+(?:\s*,\s*\w+)*)\]",
        description="a citation, with one group for the names, separated by commas",
    )
    min_citations: int = Field(default=1, ge=0, description="the least different sources to cite")
    check_quotes: bool = Field(
        default=True,
        description='"a quotation" before a citation must stand in one of its sources, whatever the case',
    )

    @field_validator("pattern")
    @classmethod
    def _has_a_group(cls, pattern: str) -> str:
        try:
            groups = re.compile(pattern).groups
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        if groups != 1:
            raise ValueError(f"expected one group, for the names, got {groups}")
        return pattern


@reward("citations", options=CitationOptions)  # isolated: the pattern may run for hours
def citations_reward(rollout: Rollout, options: CitationOptions) -> Score:
    """1.0 when the cited sources exist, are those expected and say what is quoted; else less."""
    try:
        sources = _sources(rollout.columns.get(options.sources_column))
        expected = _names(rollout.columns.get(options.expected_column))
    except ValueError as error:
        return Score.failed(ScoreOutcome.ERROR, f"bad row: {error}")
    if not sources:
        return Score.failed(ScoreOutcome.ABSTAIN, f"the row has no {options.sources_column!r}")
    found = [
        (match.start(), [name.strip() for name in str(match[1]).split(",")])
        for match in re.finditer(options.pattern, rollout.completion)
    ]
    cited = {name for _, names in found for name in names}
    problem = _problem(rollout.completion, found, sources, options)
    if problem:
        return Score(0.0, reason=problem)
    if expected is None:
        return Score(1.0, details={"cited": sorted(cited)})
    either = cited | expected
    value = len(cited & expected) / len(either) if either else 1.0
    reason = "" if value == 1.0 else f"cited {sorted(cited)}, expected {sorted(expected)}"[:300]
    return Score(value, reason=reason, details={"cited": sorted(cited)})


def _problem(
    text: str,
    found: Sequence[tuple[int, Sequence[str]]],
    sources: Mapping[str, str],
    options: CitationOptions,
) -> str:
    cited = {name for _, names in found for name in names}
    invented = sorted(cited - sources.keys())
    if invented:
        return f"there is no source {invented[0]!r}"
    if len(cited) < options.min_citations:
        return f"{len(cited)} sources are cited, expected at least {options.min_citations}"
    for at, names in found if options.check_quotes else ():
        quote = _QUOTE.search(text[max(0, at - 2100) : at].rstrip())
        if quote is not None and not any(_plain(quote[1]) in _plain(sources[name]) for name in names):
            return f"{quote[1][:80]!r} does not stand in {', '.join(names)}"
    prose = re.sub(options.pattern, " ", text)
    return "" if not found or re.search(r"\w", prose) else "nothing but citations"


def _plain(text: str) -> str:
    return " ".join(text.casefold().strip(" .,;:…").split())


def _sources(value: object) -> dict[str, str]:
    if isinstance(value, str):
        text = value
        try:
            value = json.loads(text)
        except ValueError:
            raise ValueError(f"the sources are no JSON: {text[:60]!r}") from None
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return {str(name): str(text) for name, text in value.items()}
    if isinstance(value, (list, tuple)):
        return {str(at): str(text) for at, text in enumerate(value, start=1)}
    raise ValueError(f"the sources are {type(value).__name__}, expected a list or a mapping")


def _names(value: object) -> set[str] | None:
    if value is None:
        return None
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"the expected citations are {value!r:.60}, expected a list of names")
    return {str(name) for name in value}
