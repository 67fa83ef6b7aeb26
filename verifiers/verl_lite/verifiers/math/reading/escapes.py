r"""LaTeX that was damaged on its way through JSON, Python and CSV files, put back as it was written.

A backslash that a program took for an escape left a control character (TAB + "ext{m}" for `\text{m}`);
one that was escaped twice is doubled (`\\frac{1}{2}`); a list was stored as Python prints it (`['2']`).
"""

import html
import re

# The rest of a command whose backslash and first letter became one character.
_RESTS = {
    "\a": "lpha ngle pprox rccos rcsin rctan",
    "\b": "ar begin egin eta ig igg inom mod oxed oldsymbol ullet uildrel f",
    "\t": "ext extbf extit extrm frac heta imes an au o riangle ilde herefore op",
    "\n": "e eq eg otin abla u leq geq exists i",
    "\v": "ec ee arepsilon arphi ert",
    "\f": "rac orall box lat",
    "\r": "ight angle floor ceil m oot ightarrow ho",
}
_LETTERS = {"\a": "a", "\b": "b", "\t": "t", "\n": "n", "\v": "v", "\f": "f", "\r": "r"}
_MARKS = ("\t", "\f", "\b", "\r", "\a", "\v", "\ne", "\notin")  # what is left of some command
_ESCAPED = re.compile(
    "|".join(f"{re.escape(char)}(?=(?:{'|'.join(rests.split())})(?![a-z]))" for char, rests in _RESTS.items())
)
_DOUBLED = re.compile(
    r"\\\\(?=(?:[dt]?frac|sqrt|text|textbf|mathrm|mathbb|mathbf|operatorname|left|right|boxed|le|ge|leq|geq|leqslant|"
    r"geqslant|ne|neq|in|notin|infty|pi|cdot|times|pm|mp|cup|cap|sin|cos|tan|ln|log|theta|alpha|beta|gamma|circ|"
    r"overline|overrightarrow|vec|exists|forall|angle|sum|prod|int|lim|binom|quad|emptyset|varnothing|"
    r"subset|subseteq|setminus|approx|equiv|pmod|perp|parallel|cdots|ldots|dots|neg|vee|wedge|sim|to|"
    r"rightarrow|Rightarrow|triangle|omega|phi|lambda|mu|sigma|rho|Delta|hat|mid|lvert|rvert|lfloor|rfloor|displaystyle|mathcal)"
    r"(?![A-Za-z])|[{},;!%$])"
)
_UNICODE = re.compile(r"\\u([0-9A-Fa-f]{4})(?![0-9A-Fa-f])")
_ENTITY = re.compile(r"&(?:nbsp|lt|gt|amp|le|ge|ne|times|minus|deg|pi|quot|#[0-9]{2,5});")
_OPENED_BY_CLOSER = re.compile(r"[\s$]*(?:[a-zA-Z]\s*(?:\\in|∈)\s*)?(?:\\left\s*)?\]")  # ]1, 5]
_LIST = re.compile(r"\s*\[\s*(['\"])(.*)\1\s*,?\s*\]\s*\Z", re.DOTALL)


def with_commands(text: str) -> str:
    r"""`text` with the commands restored whose backslash became a control character.

    >>> with_commands("\text{m} and \frac{1}{2}")
    '\\text{m} and \\frac{1}{2}'
    """
    if text.isprintable() or not any(mark in text for mark in _MARKS):
        return text
    return _ESCAPED.sub(lambda match: "\\" + _LETTERS[match[0]], text)


def restored(text: str) -> str:
    r"""One answer as it was written.

    >>> restored("['\\\\\\\\frac{3}{4}']"), restored("[1,5]}")
    ('\\frac{3}{4}', '[1,5]')
    """
    if text.isalnum():
        return text
    text = with_commands(text)
    if "&" in text and ";" in text:
        text = _ENTITY.sub(lambda match: html.unescape(match[0]), text)
    if "Â" in text:
        text = text.replace("Â°", "°").replace("Â ", " ")  # UTF-8 read as Latin-1
    if text[:2].strip().startswith("[") and (listed := _LIST.match(text)) is not None:
        text = ", ".join(_members(listed[2], listed[1]))
    if "\\" in text:
        text = _single_backslashes(text)
    if text.endswith(("}", ")", "]")) and not _OPENED_BY_CLOSER.match(text):
        text = _without_stray_closers(text)
    return text


def _members(inside: str, quote: str) -> list[str]:
    parts = re.split(rf"{quote}\s*+,\s*+['\"]", inside) if len(inside) < 20_000 else [inside]
    return [part.strip().strip("'\"") for part in parts]


def _single_backslashes(text: str) -> str:
    if "\\u" in text:
        text = _UNICODE.sub(lambda match: chr(int(match[1], 16)), text)
    while "\\\\begin" in text:
        text = text.replace("\\\\", "\\")
    if "\\\\" in text and "\\begin" not in text:
        text = re.sub(r"\\{3,}", r"\\\\", text)
        text = _DOUBLED.sub(r"\\", text)
    return text


def _without_stray_closers(text: str) -> str:
    """Without a bracket at the end that nothing opens."""
    while text and text[-1] in "})]" and text[-2:-1] != "\\":
        group = "{}" if text[-1] == "}" else "([)]"
        opened = sum(text.count(char) for char in group[: len(group) // 2])
        closed = sum(text.count(char) for char in group[len(group) // 2 :])
        if closed <= opened:
            break
        text = text[:-1].rstrip()
    return text
