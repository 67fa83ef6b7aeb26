"""Whether a completion keeps to one language: `language`."""

import re
from importlib.util import find_spec

from pydantic import Field, model_validator

from verl_lite.plugins.config_file import ConfigModel
from verl_lite.plugins.contract import reward
from verl_lite.plugins.rollout import Rollout
from verl_lite.plugins.score import Score, ScoreOutcome
from verl_lite.verifiers import detect_language

MISSING = "this reward needs the package langdetect: pip install 'verl-lite[language]'"
MIN_LETTERS = 20  # shorter parts are not told apart
MAX_CHARS = 100_000
_NO_PROSE = re.compile(
    r"```.*?(?:```|\Z)|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]*\$|\\\[.*?\\\]|</?\w+>|https?://\S+", re.DOTALL
)


class LanguageOptions(ConfigModel):
    """Which language: of the row, of the config, or that of the prompt.

    The value is the share of letters in paragraphs of that language. Code, formulas, tags and addresses do
    not count. Paragraphs with fewer than 20 letters are read together.
    """

    language: str = Field(
        default="", pattern=r"^[a-z]{2}(-[a-z]{2})?$|^$", description="ISO 639-1: en, de, zh-cn"
    )
    column: str = Field(default="language", description="the column with a row's language, which comes first")
    threshold: float = Field(default=0.0, ge=0, le=1, description="above 0: 1.0 from this share on, else 0.0")

    @model_validator(mode="after")
    def _has_its_package(self) -> "LanguageOptions":
        if find_spec("langdetect") is None:
            raise ValueError(MISSING)
        return self


@reward("language", options=LanguageOptions)  # isolated: detection takes its time over long texts
def language_reward(rollout: Rollout, options: LanguageOptions) -> Score:
    """The share of the completion that is in the row's, the config's or the prompt's language."""
    wanted = str(
        rollout.columns.get(options.column) or options.language or detect_language(rollout.prompt_text)
    )
    if not wanted:
        return Score.failed(ScoreOutcome.ABSTAIN, "no language is given, and the prompt's is not clear")
    parts = _parts(rollout.completion[:MAX_CHARS])
    if not parts:
        return Score(0.0, reason="there is no prose")
    sizes = [sum(map(str.isalpha, part)) for part in parts]
    found = [detect_language(part) for part in parts]
    fits = [one == wanted or one.split("-")[0] == wanted for one in found]
    share = sum(size for size, fit in zip(sizes, fits, strict=True) if fit) / sum(sizes)
    value = float(share >= options.threshold) if options.threshold else share
    others = sorted({one for one, fit in zip(found, fits, strict=True) if not fit})
    return Score(value, reason=f"also {', '.join(others)}" if others else "", details={"share": share})


def _parts(text: str) -> list[str]:
    """Paragraphs with enough letters to tell; short ones join the next."""
    parts, kept = [], ""
    for line in _NO_PROSE.sub(" ", text).splitlines():
        kept = f"{kept} {line}".strip()
        if sum(map(str.isalpha, kept)) >= MIN_LETTERS:
            parts.append(kept)
            kept = ""
    if any(map(str.isalpha, kept)):
        parts[-1:] = [f"{parts[-1]} {kept}"] if parts else [kept]
    return parts
