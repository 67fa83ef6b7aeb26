"""One spelling for what can be written in many ways: unicode, LaTeX spacing, dollar signs, markdown.

`clean` gives text the tokenizer reads; `string_key` a form in which equal answers are equal strings.
"""

import re
import unicodedata

from verl_lite.verifiers.math.reading.chinese import without_chinese

_PLAIN = re.compile(r"[A-Za-z0-9 .,/+\-()=%]*\Z")
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u00ad\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]"
)
_SUPERSCRIPT = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱˣʸ", "0123456789+-()nixy")
_SUBSCRIPT = str.maketrans("₀₁₂₃₄₅₆₇₈₉₊₋ₙₓ", "0123456789+-nx")
_SUPERSCRIPT_RUN = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱˣʸ]+")
_SUBSCRIPT_RUN = re.compile("[₀₁₂₃₄₅₆₇₈₉₊₋ₙₓ]+")
_SLASHED = re.compile(r"(?<![A-Za-z0-9)}])\^\{?([0-9]+)\}?\s*/\s*_\{?([0-9]+)\}?")  # ³⁄₇
_CIRCLED = re.compile("([①-⑳])[\\s、,，和]*(?=[①-⑳])")  # ①③: two of several statements
_COMBINING_OVERLINE = re.compile("((?:[0-9][\u0305\u0304])+)")
_FRACTIONS = {
    "½": (1, 2), "⅓": (1, 3), "⅔": (2, 3), "¼": (1, 4), "¾": (3, 4), "⅕": (1, 5), "⅖": (2, 5),
    "⅗": (3, 5), "⅘": (4, 5), "⅙": (1, 6), "⅚": (5, 6), "⅐": (1, 7), "⅛": (1, 8), "⅜": (3, 8),
    "⅝": (5, 8), "⅞": (7, 8), "⅑": (1, 9), "⅒": (1, 10),
}  # fmt: skip
_SYMBOLS = {
    "−": "-", "–": "-", "—": "-", "―": "-", "‐": "-", "‑": "-", "﹣": "-", "－": "-",
    "×": r"\times ", "✕": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "∙": r"\cdot ", "•": r"\cdot ",
    "÷": "/", "∕": "/", "⁄": "/", "∗": "*", "√": r"\usqrt ", "∛": r"\usqrt[3] ", "∜": r"\usqrt[4] ",
    "∞": r"\infty ", "≤": r"\le ", "⩽": r"\le ", "≥": r"\ge ", "⩾": r"\ge ", "≠": r"\ne ", "≈": r"\approx ",
    "≡": r"\equiv ", "≃": r"\approx ", "≅": r"\approx ", "±": r"\pm ", "∓": r"\mp ", "∪": r"\cup ",
    "∩": r"\cap ", "△": r"\triangle ", "∥": r"\parallel ", "⊥": r"\perp ", "∀": r"\forall ", "∃": r"\exists ",
    "¬": r"\neg ", "⊂": r"\subset ", "⊆": r"\subseteq ", "⇒": r"\Rightarrow ",
    "⇔": r"\Leftrightarrow ", "∴": "", "∵": "",
    "∈": r"\in ", "∉": r"\notin ", "∅": r"\emptyset ", "⌀": r"\emptyset ", "∖": r"\setminus ",
    "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}", "ℂ": r"\mathbb{C}",
    "→": r"\to ", "↦": r"\mapsto ", "⟨": r"\langle ", "⟩": r"\rangle ", "〈": r"\langle ", "〉": r"\rangle ",
    "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ", "°": r"^\circ ", "º": r"^\circ ",
    "∠": r"\angle ", "∧": r"\land ", "∨": r"\lor ", "∣": "|", "‖": "|", "′": "'", "″": "''", "’": "'",
    "‘": "'", "“": '"', "”": '"', "…": "...", "⋯": "...", "，": ",", "。": ".", "；": ";", "：": ":",
    "（": "(", "）": ")", "％": "%", "¢": r"\cents ", "€": r"\euro ", "£": r"\pounds ", "¥": r"\yen ",
    "￥": r"\yen ", "₹": r"\rupee ", "＄": "$", "𝑒": "e", "ℯ": "e", "ⅈ": "i", "ℓ": r"\ell ", "∶": ":",
    "℃": r"^\circ C ", "℉": r"^\circ F ", "、": ",",
    "\u00a0": " ", "\u2009": " ", "\u202f": " ", "\u2003": " ", "\u3000": " ", "µ": r"\mu ", "∆": r"\Delta ",
}  # fmt: skip
_GREEK_NAMES = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho . sigma tau "
    "upsilon phi chi psi omega"
).split()
for _offset, _name in enumerate(_GREEK_NAMES):
    if _name != ".":
        _SYMBOLS[chr(0x3B1 + _offset)] = f"\\{_name} "
        _SYMBOLS[chr(0x391 + _offset)] = f"\\{_name.capitalize()} "
_SYMBOLS |= {
    "Ω": r"\Omega ",
    "Å": r"\text{ angstrom}",
    "ς": r"\sigma ",
    "ϕ": r"\phi ",
    "ϵ": r"\epsilon ",
    "ϑ": r"\theta ",
}
_SYMBOLS |= {char: f"\\frac{{{top}}}{{{bottom}}}" for char, (top, bottom) in _FRACTIONS.items()}
_SYMBOL_TABLE = str.maketrans(_SYMBOLS)

_LATEX_NOISE = re.compile(
    r"(?<!\\)(?:\\(?:left|right)\s*\.(?![0-9])|\\(?:left|right|middle|[bB]igg?[lrm]?|displaystyle|textstyle|scriptstyle|limits|nolimits|mathstrut|"
    r"phantom\{[^{}]*\}|hspace\*?\{[^{}]*\}|vspace\*?\{[^{}]*\}|color\{[^{}]*\}|nonumber|notag|centering|"
    r"mathopen|mathclose|mathrel|mathbin|mathpunct|boldmath|hline|tag\*?\{[^{}]*\}|label\{[^{}]*\}|"
    r"pmb|bf|it|sf|underline|ensuremath|(?:mathbf|boldsymbol|bm|mathit|mathsf)(?=\s*\{[^{}]*[\\{])|rm(?=\s*[0-9])|"
    r"tiny|small|large|Large|LARGE|huge|Huge|normalsize|textcolor\s*\{[^{}]*\})(?![A-Za-z])|\\!|\\/)"
)
_LATEX_SPACE = re.compile(
    r"(?<!\\)\\(?:[,;:> ]|q?quad(?![A-Za-z])|thinspace|enspace|space(?![A-Za-z]))|(?<!\\)\\\Z|~"
)
_FONTS = (
    r"text|textbf|textit|textrm|textsf|texttt|mathrm|mathbf|mathit|mathsf|boldsymbol|bm|mbox|operatorname"
)
_WRAPPED = re.compile(rf"\\(?:{_FONTS})\s*\{{([^{{}}\\]*)\}}\Z")
_WRAPPED_DIGITS = re.compile(rf"\\(?:{_FONTS})\s*\{{([^A-Za-z{{}}\\]*)\}}")
_LATEX_NAMES = {
    "dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "nicefrac": "frac", "sfrac": "frac",
    "dbinom": "binom", "tbinom": "binom",
    "leq": "le", "leqslant": "le", "geq": "ge", "geqslant": "ge", "neq": "ne", "not=": "ne",
    "varnothing": "emptyset", "imath": "i ", "jmath": "j ", "cr": "\\\\",
    "vee": "lor", "wedge": "land", "backslash": "setminus",
    "lvert": "vert", "rvert": "vert", "mid": "vert", "lbrack": "[", "rbrack": "]", "cdotp": "cdot",
    "varepsilon": "epsilon", "varphi": "phi", "vartheta": "theta", "longmapsto": "mapsto",
    "rightarrow": "to", "longrightarrow": "to", "sim": "approx", "doteq": "approx", "simeq": "approx",
    "percent": "%", "lt": "<", "gt": ">", "ldots": "...", "dots": "...", "cdots": "...",
    "colon": ":", "textdollar": "dollar", "cent": "cents", "pound": "pounds", "arcctg": "arccot",
    "infin": "infty", "oslash": "emptyset", "textcirc": "circ", "nleq": "nle", "overset": "overset",
    "top": "T ", "intercal": "T ", "implies": "Rightarrow", "iff": "Leftrightarrow",
    "tg": "tan", "ctg": "cot", "lg": "log_{10}", "asymp": "approx",
}  # fmt: skip
_COMMAND = re.compile(r"\\([A-Za-z]+)")
# A letter that needs to be seen, and what stands for it; in this order.
_REWRITES = tuple(
    (needle, re.compile(pattern), replacement)
    for needle, pattern, replacement in (
        ("{", r"(?<=[0-9])\{([:.])\}(?=[0-9])", r"\1"),  # 10{:}30, 0{.}75
        ("{}", r"\{\}\s*+(?=\^\s*+\{?\s*+\\circ)", ""),
        ("math", r"\\mathbb\s*+\{?+\s*+([PE])(?![A-Za-z])\s*+\}?+", r"\1"),
        ("math", r"(?<=\\in)\s*+\\mathbf\s*+\{?+\s*+([RZNQC])(?![A-Za-z])\s*+\}?+", r" \\mathbb{\1}"),
        ("math", r"\A\s*+\\mathbf\s*+\{?+\s*+([RZ])\s*+\}?+\s*+\Z", r"\\mathbb{\1}"),
        ("rm", r"\{\s*+\\rm\s++([A-Za-z][A-Za-z /^0-9]*+)\}", r"\\mathrm{\1}"),  # {\rm cm}
        ("_", r"\\(?:text|textrm|mathrm)\s*+\{([0-9A-F]++)\}(?=[0-9A-F]*_)", r"\1"),  # \mathrm{2B3}_{16}
        ("dollar", r"\\text\s*+\{\s*+(\\dollar)\s*+\}", r"\1 "),
        ("eg", r"(?<!\^)(?<!\^\{)\\(?:text)?degree(?![A-Za-z])", r"^\\circ "),
        ("root", r"\\root\s*+\{?+\s*+([0-9n])\s*+\}?+\s*+\\of(?![A-Za-z])", r"\\sqrt[\1]"),
        ("\\\\[", r"\\\\\s*+\[[0-9.]+\s*+(?:pt|em|ex|mm|cm)\]", r"\\\\"),
        ("&", r"&\s*+(?=[=<>]|\\(?:[lg]e(?:q|qslant)?|approx|equiv)(?![A-Za-z]))|(?<=[=<>])\s*+&", ""),
        ("\\\\", r"\\\\\s*+(?==)", " "),  # a calculation over several lines
        ("end", r"(?:\\\\|[.,;])\s*+(?=\\end\{)", ""),
    )
)  # fmt: skip
_SYSTEM = re.compile(  # \left\{ \begin{array}{l} ... \end{array} \right.
    r"\\\{\s*+\\(begin)\{(?:array|aligned|matrix|split|gathered)\}(?:\s*+\{[lcr| ]*+\})?+"
    r"|\\(end)\{(?:array|aligned|matrix|split|gathered)\}"
)
_DOLLAR_MONEY = re.compile(r"\$(?=\s*-?(?:[0-9]|\.[0-9]))")


def clean(text: str) -> str:
    r"""`text` in one spelling: LaTeX commands for unicode, no `$`, no spacing commands, no markdown.

    >>> clean(" $\\left( √2 , \\dfrac{1}{2} \\right)$. ")
    '( \\usqrt 2 , \\frac{1}{2} )'
    """
    text = text.strip()
    if _PLAIN.match(text) and "...." not in text:
        return _strip_ends(text)
    if not text.isascii():
        text = _from_unicode(text)
    elif _INVISIBLE.search(text):
        text = _INVISIBLE.sub("", text)
    if "$" in text:
        text = _without_dollars(text)
    if "\\" in text or "~" in text or "{" in text:
        text = _plain_latex(text)
    if "^" in text:
        text = _marks(text)
    if "...." in text:
        text = re.sub(r"\.{4,}", "...", text)
    return _strip_ends(text)


_DECIMAL_COMMA = re.compile(r"(?<![0-9.,])([0-9]{1,3}(?:\.[0-9]{3})+|[0-9]+),([0-9]+)(?![0-9]*[.,][0-9])")


def with_decimal_points(text: str) -> str:
    """`text` with every comma between digits read as a decimal point, and points before it as separators.

    >>> with_decimal_points("1.000,99 and (0,5; 2)")
    '1000.99 and (0.5; 2)'
    """
    return _DECIMAL_COMMA.sub(lambda match: f"{match[1].replace('.', '')}.{match[2]}", text)


def _from_unicode(text: str) -> str:
    text = _CIRCLED.sub(r"\1, ", text)
    text = without_chinese(_INVISIBLE.sub("", text))
    text = _COMBINING_OVERLINE.sub(lambda run: "\\overline{" + re.sub("[^0-9]", "", run[1]) + "}", text)
    text = _SUPERSCRIPT_RUN.sub(lambda run: "^{" + run[0].translate(_SUPERSCRIPT) + "}", text)
    text = _SUBSCRIPT_RUN.sub(lambda run: "_{" + run[0].translate(_SUBSCRIPT) + "}", text)
    text = _SLASHED.sub(r"\\frac{\1}{\2}", text.translate(_SYMBOL_TABLE))
    return text if text.isascii() else unicodedata.normalize("NFKC", text)


def _without_dollars(text: str) -> str:
    """Drop math delimiters; a `$` that opens no math and stands before a number is money."""
    text = text.replace("\\$", "\\dollar ")
    text = text.replace("$$", "$") if text.count("$$") % 2 == 0 else text
    if text.count("$") % 2 == 1:
        text = _DOLLAR_MONEY.sub(r"\\dollar ", text, count=1)
    return text.replace("$", " ")


def _plain_latex(text: str) -> str:
    text = text.replace("\\%", "%").replace("\\#", "#")
    text = re.sub(r"(?<!\\)\\&", "&", text)
    if text.count("\\]") > text.count("\\["):
        text = text.replace("\\]", "]")  # [1, 2\] was meant as an interval
    text = re.sub(r"(?<!\\)\\[()\[\]]", " ", text)
    text = re.sub(r",\s*\\!\s*(?=[0-9]{3})", "{,}", text)
    text = _LATEX_NOISE.sub("", text)
    for needle, pattern, replacement in _REWRITES:
        if needle in text:
            text = pattern.sub(replacement, text)
    if "\\begin" in text and "\\{" in text and "\\}" not in text:
        text = _SYSTEM.sub(lambda match: f"\\{match[1] or match[2]}{{cases}}", text)
    text = _LATEX_SPACE.sub(" ", text)
    text = _COMMAND.sub(_rename, text)
    if (wrapped := _WRAPPED.match(text.strip())) is not None:
        return wrapped[1]
    return _WRAPPED_DIGITS.sub(r" \1 ", text)


def _rename(match: re.Match[str]) -> str:
    name = _LATEX_NAMES.get(match[1])
    if name is None:
        return match[0]
    return f"\\{name}" if name.isalnum() else f"{name} "


_PRIMES = re.compile(r"\^\s*+(?:\{\s*+((?:\\prime\s*+)++)\}|(\\prime)(?![A-Za-z]))")
_DEGREE = re.compile(
    r"\^\s*+(?:\{\s*+)?+(?:\\(?:text|mathrm|rm)\s*+\{?\s*+)?+(?:\\circ\b|o(?![a-z]))\s*+\}*+"
    r"|(?<=[0-9])\^\s*+\Z"
)


def _marks(text: str) -> str:
    """Primes, degree signs and the ends of ordinals, however they are raised."""
    if "\\prime" in text:
        text = _PRIMES.sub(lambda match: "'" * (match[1] or match[2]).count("\\prime"), text)
    return _DEGREE.sub(_degree, text)


def _degree(match: re.Match[str]) -> str:
    """The sign alone, with as many closing braces as it did not open."""
    opened, closed = match[0].count("{"), match[0].count("}")
    before = match.string[: match.start()].rstrip()
    if "circ" not in match[0] and not before[-1:].isdigit():
        return match[0]
    return "^\\circ " + "}" * max(0, closed - opened)


_EDGES = re.compile(
    r"\A\s*+(?:\\(?:therefore|because|implies|Rightarrow|Longrightarrow|to)(?![A-Za-z])|:(?!=))\s*+"
    r"|\s*+\\(?:square|blacksquare|Box|checkmark|qed|qedhere)\s*+[.]?\Z"
)


def _strip_ends(text: str) -> str:
    """Without surrounding blanks, markdown emphasis, quotes and the full stop of a sentence."""
    if "\\" in text or text.startswith(":"):
        text = _EDGES.sub("", text)
    previous, stops = None, 0
    while text != previous:
        previous = text
        text = text.strip(" \t\r\n`")
        if text.endswith("\\\\"):
            text = text[:-2]
        if text.endswith((".", ",", ";", ":")) and not text.endswith("...") and stops == 0:
            text, stops = text[:-1], 1
        if len(text) > 4 and text.startswith("**") and text.endswith("**"):
            text = text[2:-2]
        elif len(text) > 1 and text[0] == text[-1] and text[0] in '"*':
            text = text[1:-1]
    return text


_INNER_SPACE = re.compile(r"\s+")
_REMOVABLE_SPACE = re.compile(r"(?<![A-Za-z0-9]) | (?![A-Za-z0-9])")
_SINGLE_BRACE = re.compile(r"([\^_])\{([A-Za-z0-9])\}")


def string_key(cleaned: str) -> str:
    """`cleaned` without blanks that carry no meaning: the blank of "1 1/4" does, that of "x + 1" does not."""
    key = _REMOVABLE_SPACE.sub("", _INNER_SPACE.sub(" ", cleaned))
    if "{" in key:
        key = _SINGLE_BRACE.sub(r"\1\2", key)
    return key
