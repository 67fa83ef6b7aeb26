"""Phrases replaced by the notation they stand for: "is at most 5" as \\le 5, {1, 2} as a set."""

import re
from collections.abc import Callable

# Letters without which a pattern cannot match, the pattern, and what it stands for.
_PHRASES: list[tuple[list[str], re.Pattern[str], str | Callable[[re.Match[str]], str]]] = [
    (needles.split(), re.compile(pattern, re.IGNORECASE), replacement)
    for needles, pattern, replacement in (
        ("plus +/- +-", r"\bplus\s*(?:or|/)\s*minus\b|\+/-|\+-(?=\s*[0-9\\(a-zA-Z])", r"\\pm "),
        ("square", r"\b(?:the\s+)?square\s+root\s+of\b", r"\\usqrt "),
        ("cube", r"\b(?:the\s+)?cube\s+root\s+of\b", r"\\usqrt[3] "),
        (
            "than most",
            r"\b(?:is\s+)?(?:less|smaller)\s+than\s+or\s+equal\s+to\b|\bis\s+at\s+most\b",
            r"\\le ",
        ),
        (
            "than least",
            r"\b(?:is\s+)?(?:greater|more|larger)\s+than\s+or\s+equal\s+to\b|\bis\s+at\s+least\b",
            r"\\ge ",
        ),
        ("than", r"\b(?:is\s+)?(?:less|smaller)\s+than\b", "<"),
        ("than", r"\b(?:is\s+)?(?:greater|more|larger)\s+than\b", ">"),
        ("equal", r"\b(?:is\s+)?not\s+equal\s+to\b", r"\\ne "),
        ("equal", r"\b(?:is\s+)?equals?(?:\s+to)?\b", "="),
        (
            "real numbers",
            r"\b(?:the\s+set\s+of\s+)?(?:all|any)\s+(?:real\s+)?(?:numbers|values)\s+(?:(?:that|which)\s+are\s+)?"
            r"(?=\\[lg]e\b|[<>])",
            "x ",
        ),
        ("divided", r"\bdivided\s+by\b", "/"),
        ("times", r"(?<=[0-9])\s*\btimes\s*\Z", ""),
        ("times multiplied", r"\bmultiplied\s+by\b|(?<=[0-9)])\s*\btimes\b", "*"),
        ("cent", r"(?<=[0-9)}])\s*\bper\s?cent\b", "%"),
        ("squared", r"\bsquared\b", "^2"),
        ("cubed", r"\bcubed\b", "^3"),
        ("negative minus", r"\b(?:negative|minus)\s+(?=[0-9a-z\\(])", "-"),
        ("positive", r"\b(?:positive)\s+(?=infinity|\\infty|[0-9])", ""),
        ("positive", r"\b(?:all\s+|any\s+)?positive\s+(?:real\s+numbers?|reals?)\b", r"\\mathbb{R}^+ "),
        ("negative", r"\b(?:all\s+|any\s+)?negative\s+(?:real\s+numbers?|reals?)\b", r"\\mathbb{R}^- "),
        ("negative", r"\b(?:all\s+|any\s+)?non-?negative\s+(?:real\s+numbers?|reals?)\b", r"[0,\\infty) "),
        (  # of a long number only the last 65 digits are matched; the others stay in front
            "base",
            r"([0-9][0-9A-Fa-f]{0,64})\s*+(?:\(\s*+)?+(?:in\s+)?base[\s-]*+([0-9]{1,2}|[a-z]+)\s*+\)?",
            r"\1_{\2}",
        ),
        (
            "real",
            r"\b(?:the\s+set\s+of\s+)?(?:all|any)\s+(?:the\s+)?real\s+numbers?\b|\ball\s+reals?\b",
            r"\\mathbb{R} ",
        ),
        ("real", r"\b(?:the\s+)?real\s+numbers\b|\breals\b", r"\\mathbb{R} "),
        ("integers", r"\b(?:all|any)\s+(?:positive\s+)?integers\s+(?=[a-z]\s*(?:\\[lg]e\b|[<>]))", ""),
        ("const", r"(?<=[+-])\s*\bconst(?:ant|\.)?(?![a-z])", " C"),
        ("integers", r"\b(?:all|any)\s+integers\b", r"\\mathbb{Z} "),
        (
            "except exclud other but",
            r"\b(?:except|excluding|other\s+than|but\s+not)\s*(?:for|when|where|at)?\b",
            r"\\setminus ",
        ),
        ("10", r"(?<=[0-9)])\s*[xX]\s*(?=10\s*\^)", "*"),
        (
            "st nd rd th",
            r"(?<=[0-9])(?:\s*+\^\s*+)?+(?:\{\s*+)?+(?:\\(?:text|textsuperscript|mathrm|rm)\s*+\{?\s*+)?+"
            r"(?:st|nd|rd|th)\b\s*+\}*+",
            lambda match: " " + "}" * (match[0].count("}") - match[0].count("{")),
        ),
        (
            "circ",
            r"([0-9.]+)\s*+\^\\circ\s*+([0-9.]+)\s*+'(?!')(?:\s*+([0-9.]+)\s*+(?:''|\"))?+",
            lambda match: f"({match[1]}+{match[2]}/60+{match[3] or 0}/3600)^\\circ ",
        ),
        (
            "degree",
            r"([0-9.]+)\s*degrees?\s*(?:and\s+)?([0-9.]+)\s*(?:arc)?minutes?",
            r"(\1+\2/60)^\\circ ",
        ),
        (")_", r"\(\s*+([0-9A-F]{1,64})\s*+\)\s*+(?=_)", r"\1"),  # (1011)_2
        ("base", r"_\s*+\{\s*+base\s*+([0-9a-z]+)\s*+\}", r"_{\1}"),
        (  # m = 0, \pm 1, \pm 2, ...
            "...",
            r"\b([a-z])\s*=\s*0\s*,\s*\\pm\s*1\s*,\s*(?:\\pm\s*2\s*,\s*)?\.\.\.",
            r"\1 \\in \\mathbb{Z}",
        ),
        (
            "dx dt dy",
            r"\A\\frac\s*\{\s*d\s*([a-z])\s*\}\s*\{\s*d\s*([a-z])\s*\}\s*(?==)|\Ad([a-z])/d[a-z]\s*(?==)",
            lambda match: f"{match[1] or match[3]}'",
        ),
        (
            "c p",
            r"(?:\{\}\s*|(?<![A-Za-z0-9})]))[_^]\s*\{?\s*([0-9]{1,5})\s*\}?\s*((?-i:[CP]))\s*_\s*\{?\s*([0-9]{1,5})\s*\}?(?![0-9])"
            r"|(?<![A-Za-z0-9_^{.])([0-9]{1,3})((?-i:[CP]))([0-9]{1,3})(?![A-Za-z0-9.])",
            lambda match: f" {match[2] or match[5]}({match[1] or match[4]},{match[3] or match[6]})",
        ),
        ("\\in", r"[,;]?\s*\(\s*([a-zA-Z])\s*\\in\s*(\\mathbb\s*\{?\s*[ZN]\s*\}?|Z)\s*\)", r" , \1 \\in \2 "),
        ("\\in", r"(?<=\\in)\s*([RZNQ])(?![A-Za-z_'0-9({])", r" \\mathbb{\1}"),
        ("r^", r"(?<![A-Za-z\\{])((?-i:R))\s*\^\s*\{?\s*([+-])\s*\}?(?![0-9a-z])", r"\\mathbb{\1}^\2 "),
        ("mathbf", r"\\mathbf\s*\{\s*([RZNQC])\s*\}", r"\\mathbb{\1}"),
        ("union u", r"\bunion\b|(?<=[)\]])\s*U\s*(?=[(\[])", r"\\cup "),
        ("intersection", r"\bintersection\b", r"\\cap "),
    )
]
_TEXT_COMMAND = re.compile(r"\\(?:text|textrm|mathrm|mbox|textbf)\s*\{([^{}]*)\}")


def with_notation(text: str) -> str:
    """A cleaned answer with its phrases and plain brackets written as LaTeX."""
    if text.startswith(("{", "<")) and text[-1:] in "}>":
        text = _with_plain_brackets(text)
    if "[" in text or "]" in text:
        text = _with_turned_brackets(text)
    if re.search(r"[A-Za-z]{2}|[UCPR(]|\+/?-|'", text):
        text = _with_phrases(text)
    return text


def _with_plain_brackets(text: str) -> str:
    """{1, 2} without backslashes is a set, <1, 2> a vector."""
    inner = text[1:-1]
    if text[0] == "<" and text[-1] == ">" and "," in inner and not re.search("[<>]", inner):
        return f"\\langle {inner} \\rangle "
    if text[0] == "{" and text[-1] == "}" and re.search("[,|:]|vert", inner) and not re.search("[{}]", inner):
        return f"\\{{{inner}\\}}"
    return text


_BETWEEN_SQUARES = re.compile(r"([\[\]])([^\[\]()]*+)([\[\]])")
_TURNED = re.compile(r"\s*(?:[a-zA-Z]\s*\\in\s*)?\]|.*\[\s*\Z", re.DOTALL)


def _with_turned_brackets(text: str) -> str:
    """]1, 5] and [1, 5[ with the round brackets that they stand for."""
    if not _TURNED.match(text):
        return text
    return _BETWEEN_SQUARES.sub(
        lambda match: ("(" if match[1] == "]" else "[") + match[2] + (")" if match[3] == "[" else "]"), text
    )


def _with_phrases(text: str) -> str:
    if "\\text" in text or "\\m" in text:
        text = _TEXT_COMMAND.sub(lambda match: _inline_words(match[1], match[0]), text)
    lowered = text.casefold()
    for needles, pattern, replacement in _PHRASES:
        if any(needle in lowered for needle in needles):
            text = pattern.sub(replacement, text)
    return text


def _inline_words(words: str, command: str) -> str:
    r"""Prose in `\text{...}` is read like prose outside it; a name such as `\mathrm{e}` stays."""
    bare = words.strip()
    is_prose = len(bare.split()) > 1 or len(bare) > 3 or bare in ("or", "and", "if")
    return f" {words} " if is_prose else command
