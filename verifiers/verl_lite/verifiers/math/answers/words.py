"""Answers in words with a mathematical meaning: yes and no, no solution, undefined, infinity."""

import re

from verl_lite.verifiers.math.answers.answer import Answer, read_answer
from verl_lite.verifiers.math.answers.assignments import unassigned
from verl_lite.verifiers.math.answers.datetimes import read_datetime
from verl_lite.verifiers.math.answers.texts import is_prose, same_text
from verl_lite.verifiers.math.comparer import Comparer, Decision, decided
from verl_lite.verifiers.math.expressions import INFINITY, Unreadable, neg, node
from verl_lite.verifiers.verdict import Outcome

_CLASSES = {
    "yes": "yes|true|correct|right|affirmative|it is true|it does|y",
    "no": "no|false|incorrect|not true|it is false|it does not|n",
    "nothing": (
        "no solutions?|no real solutions?|no solutions? exists?|there (?:is|are) no (?:real |such )?solutions?|none|"
        "no roots?|no real roots?|empty set|no such .*|no answer|has no solutions?|no integer solutions?|"
        "no real values?|no values?|no real numbers?|null set|nothing|impossible|not possible|inconsistent|the system has no solutions?"
    ),
    "undefined": (
        "does not exist|dne|d\\.n\\.e|undefined|do not exist|doesn't exist|not defined|limit does not exist|"
        "is undefined|nonexistent|no limit|the limit does not exist|is not defined|not exist|no such limit"
    ),
    "diverges": "diverges|divergent|does not converge|it diverges|is divergent|the series diverges|series diverges",
    "converges": "converges|convergent|it converges|the series converges|series converges",
    "infinitely many": "infinitely many|infinite solutions?|infinitely many solutions?|infinite number(?: of solutions?)?",
    "infinity": "(?:it )?(?:diverges|tends|goes) to infinity|infinity|infinite|positive infinity|unbounded|plus infinity",
    "minus infinity": "negative infinity|minus infinity|-infinity",
    "never": "never|never true",
    "always": "always|always true",
}
_CLASS_PATTERNS = [(name, re.compile(rf"(?:{pattern})\Z")) for name, pattern in _CLASSES.items()]
_SYMBOL_CLASSES = {
    "\\emptyset": "nothing", "\\{\\}": "nothing", "\\lbrace\\rbrace": "nothing", "{}": "nothing",
    "\\infty": "infinity", "+\\infty": "infinity", "-\\infty": "minus infinity", "oo": "infinity",
    "inf": "infinity", "-inf": "minus infinity", "-oo": "minus infinity", "\\{\\emptyset\\}": "",
    "x\\in\\emptyset": "nothing", "无解": "nothing", "无实数解": "nothing", "空集": "nothing", "不存在": "undefined",
    "是": "yes", "正确": "yes", "对": "yes", "否": "no", "错误": "no", "不是": "no", "错": "no",
}  # fmt: skip
_TREE_CLASSES = {
    node("named", value="empty"): "nothing", INFINITY: "infinity", neg(INFINITY): "minus infinity",
}  # fmt: skip
_LEADING = re.compile(r"(?:\\text\s*\{)?\s*(yes|no)\s*\}?\s*[,.;:-]", re.IGNORECASE)


def read_word_class(answer: Answer) -> str:
    """The class of a worded answer ("yes", "nothing", "undefined", ...), "" for none."""
    key, words = answer.key, answer.words
    if key in _SYMBOL_CLASSES:
        return _SYMBOL_CLASSES[key]
    if not words or len(words) > 80 or not any(letter.isalpha() for letter in words) or len(words) == 1:
        return ""
    if "\\" in key and not key.startswith("\\text") and not key.startswith("\\math"):
        return ""
    if (leading := _LEADING.match(answer.text)) is not None:
        return leading[1].lower()
    return next((name for name, pattern in _CLASS_PATTERNS if pattern.match(words)), "")


def compare(comparer: Comparer, reference: Answer, response: Answer) -> Decision | None:
    """The same class, also where the response writes it as a symbol."""
    ours = reference.read(read_word_class)
    if not ours:
        return None
    theirs = response.read(read_word_class)
    if ours == "nothing" and response.key == "\\phi":
        theirs = ours  # how many write the empty set
    elif not theirs and response.expr is not None:
        theirs = _TREE_CLASSES.get(unassigned(response.expr), "")
    if not theirs and ours in ("yes", "no"):
        said = {word for word in response.words.replace(".", " ").split() if word in ("yes", "no")}
        theirs = response.words.split(" ", 1)[0].strip(".") if len(said) == 1 else ""
    if ours == theirs and ours in ("yes", "no") and (claim := _claim(reference)):
        inner = comparer.compare_texts(comparer, claim, _claim(response))
        return decided(inner.outcome is Outcome.CORRECT, "boolean", f"what follows {ours!r} is not the same")
    if ours == theirs or {ours, theirs} == {"infinitely many", "infinity"}:
        matched = "boolean" if ours in ("yes", "no") else "infinity" if "infinity" in ours else "words"
        return Decision(Outcome.CORRECT, matched)
    both_prose = reference.read(is_prose) and response.read(is_prose)
    return decided(both_prose and same_text(reference, response), "text", f"expected {ours!r}")


_CLAIM = re.compile(
    r"(?:\\text\s*\{)?\s*(?:yes|no|true|false)\b[\s.,;:!}\\]*+(?!since\b|because\b|as\b|for\b|by\b|due\b)(.*)\Z",
    re.IGNORECASE | re.DOTALL,
)


def _claim(answer: Answer) -> str:
    """The formula behind "Yes, p = 3"; "" where there is none, or only a reason in words."""
    match = _CLAIM.match(answer.text)
    content = match[1].strip() if match is not None else ""
    return content if content and (read_answer(content).expr is not None or "=" in content) else ""


def unread(response: Answer) -> Decision:
    """The decision when the reference is an expression and the response is not."""
    if response.read(read_word_class) or response.read(read_datetime) is not None:
        return decided(False, "", "an answer of another kind")
    why = response.tree if isinstance(response.tree, Unreadable) else "not an expression"
    return Decision(Outcome.UNPARSED, "", f"the answer cannot be read: {why}")
