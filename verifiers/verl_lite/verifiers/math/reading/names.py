"""The names of mathematics: functions, constants, greek letters, relations."""

from verl_lite.verifiers.math.expressions import Expr, call, num, sym

FUNCTIONS = {
    "sin": "sin", "cos": "cos", "tan": "tan", "cot": "cot", "sec": "sec", "csc": "csc", "cosec": "csc",
    "arcsin": "asin", "arccos": "acos", "arctan": "atan", "asin": "asin", "acos": "acos", "atan": "atan",
    "arccot": "acot", "acot": "acot", "arcsec": "asec", "arccsc": "acsc",
    "sinh": "sinh", "cosh": "cosh", "tanh": "tanh", "coth": "coth", "sech": "sech", "csch": "csch",
    "arcsinh": "asinh", "arccosh": "acosh", "arctanh": "atanh", "arsinh": "asinh", "arcosh": "acosh",
    "artanh": "atanh", "asinh": "asinh", "acosh": "acosh", "atanh": "atanh",
    "ln": "ln", "log": "log", "log10": "log10", "log2": "log2", "exp": "exp", "sqrt": "sqrt", "cbrt": "cbrt",
    "abs": "abs", "floor": "floor", "ceil": "ceil", "ceiling": "ceil", "gcd": "gcd", "lcm": "lcm",
    "max": "max", "min": "min", "sgn": "sgn", "sign": "sgn", "binomial": "binom", "binom": "binom",
    "factorial": "fact", "det": "det", "Re": "re", "Im": "im", "cis": "cis",
}  # fmt: skip
INVERSES = {
    "sin": "asin", "cos": "acos", "tan": "atan", "cot": "acot", "sec": "asec", "csc": "acsc",
    "sinh": "asinh", "cosh": "acosh", "tanh": "atanh",
}  # fmt: skip
_OTHER_NAMES = {"tg": "tan", "ctg": "cot", "cotg": "cot", "arctg": "arctan", "arcctg": "arccot"}
GREEK = frozenset(
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau upsilon phi chi "
    "psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega ell hbar Alpha Beta "
    "Epsilon Zeta Eta Iota Kappa Mu Nu Rho Tau Chi".split()
)
CONSTANTS = {
    "pi": "pi", "e": "e", "i": "i",
    "infty": "inf", "infinity": "inf", "inf": "inf", "Infinity": "inf", "oo": "inf",
}  # fmt: skip
RELATIONS = {
    "=": "=", "==": "=", "<": "<", ">": ">", "<=": "<=", ">=": ">=", "!=": "!=", "=/=": "!=", ":=": "=",
    "~": "~", "le": "<=", "ge": ">=", "ne": "!=", "approx": "~", "in": "in", "notin": "notin",
    "equiv": "=", "triangleq": "=", "coloneqq": "=",
}  # fmt: skip


def constant(name: str) -> Expr:
    return Expr("const", (), CONSTANTS[name])


def letter(name: str) -> Expr:
    return constant(name) if name in ("e", "i") else sym(name)


def math_name(text: str) -> str | None:
    r"""The name in `\mathrm{e}` or `\text{sin}`: a single letter or a function; None for words."""
    text = _OTHER_NAMES.get(text.strip(), text.strip())
    is_name = len(text) == 1 or text in FUNCTIONS or text in ("pi", "infinity")
    return text if is_name and text.isalpha() and text.isascii() else None


def split_word(word: str) -> list[Expr | str] | None:
    """A run of letters as factors: symbols, constants and function names (as str); None for a word.

    >>> [part if isinstance(part, str) else part.value for part in split_word("xsin")]
    ['x', 'sin']
    """
    parts: list[Expr | str] = []
    position = 0
    while position < len(word):
        size = next(
            (n for n in range(min(9, len(word) - position), 1, -1) if _named(word[position : position + n])),
            1,
        )
        piece = word[position : position + size]
        if size == 1:
            parts.append(letter(piece))
        else:
            parts.append(_named_expr(piece))
        position += size
    letters = sum(1 for part in parts if isinstance(part, Expr) and len(part.name) == 1)
    if letters == len(word):
        return None if letters > 4 or (letters > 2 and _is_like_english(word)) else parts
    return None if letters > 3 else parts


def _named(piece: str) -> bool:
    return piece in FUNCTIONS or piece in GREEK or (piece in CONSTANTS and len(piece) > 1)


def _named_expr(piece: str) -> Expr | str:
    if piece in FUNCTIONS:
        return piece
    return constant(piece) if piece in CONSTANTS else sym(piece)


def _is_like_english(word: str) -> bool:
    """Three or more letters with a vowel and a consonant read as a word, not as a product."""
    vowels = sum(1 for letter in word.lower() if letter in "aeiou")
    return 0 < vowels < len(word) and len(set(word)) > 1


def root(degree: Expr, radicand: Expr) -> Expr:
    return call("root", radicand, degree) if degree != num(2) else call("sqrt", radicand)
