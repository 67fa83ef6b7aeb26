"""Quantities: a value with a unit, a currency or a label."""

import re
from dataclasses import dataclass
from fractions import Fraction

from verl_lite.verifiers.math.algebra.normal_form import exact_value
from verl_lite.verifiers.math.answers.answer import Answer, read_answer
from verl_lite.verifiers.math.answers.assignments import assignment, unassigned
from verl_lite.verifiers.math.answers.grammar import AnswerParser
from verl_lite.verifiers.math.answers.same_value import same_value
from verl_lite.verifiers.math.answers.texts import is_prose
from verl_lite.verifiers.math.answers.units import (
    ANGLES,
    CURRENCIES,
    CURRENCY_COMMANDS,
    MAGNITUDES,
    Unit,
    convert,
    unit_name,
)
from verl_lite.verifiers.math.answers.words import unread
from verl_lite.verifiers.math.comparer import Comparer, Decision, decided
from verl_lite.verifiers.math.expressions import Expr, Unreadable, is_value, node, num, symbols
from verl_lite.verifiers.math.reading.tokens import Token, tokenize
from verl_lite.verifiers.math.reading.words import number_in_words

MAX_QUANTITY_TOKENS = 60


@dataclass(frozen=True, slots=True)
class Quantity:
    """`unit` is empty for a plain number or a label; `label` holds words that name no unit."""

    value: Expr
    unit: Unit = ()
    label: str = ""
    is_certain: bool = True  # False: "5m" may also be five times m


def read_quantity(answer: Answer) -> Quantity | None:
    """The quantity an answer states; None if it states none, as a bare number."""
    if len(answer.text) > 400:
        return None
    try:
        tokens = list(tokenize(_plain_units(answer.text)))
    except Unreadable:
        return None
    tokens = tokens[1:] if tokens and tokens[0].text == "approx" else tokens
    if any(token.text == "approx" for token in tokens):
        return None
    if not 1 < len(tokens) <= MAX_QUANTITY_TOKENS:
        return None
    tokens, currency = _leading_currency(tokens)
    parts = _parts(tokens)
    if not parts:
        value = _value(tokens) if currency else None
        return None if value is None else Quantity(value, ((currency, 1),))
    total = parts[0]
    if currency:
        if len(parts) == 1 and total.unit and all(power < 0 for _, power in total.unit):  # $15/hr
            return Quantity(total.value, tuple(sorted(((currency, 1), *total.unit))), total.label)
        if total.unit or len(parts) > 1:
            is_same = [name for name, _ in total.unit] == [currency]
            return total if is_same and len(parts) == 1 else None
        return Quantity(total.value, ((currency, 1),), total.label)
    for part in parts[1:]:
        added = _added(total, part)
        if added is None:
            return None
        total = added
    return total


_TEXT = re.compile(  # with exponents in braces: \\mathrm{m s^{-1}}
    r"\\(?:text|textrm|textbf|mathrm|mbox|operatorname|rm|mathit|textit)\s*\{((?:[^{}\\]|\\cdot|\{[^{}\\]*\})*+)\}"
)
_FONT = r"\\(?:text|textrm|mathrm|rm)\s*\{"
_WITH_GREEK = (  # \text{k}\Omega, \mathrm{k\Omega}, \mu\text{F}, \mathrm{\mu F}
    (re.compile(rf"(?:{_FONT}\s*)?(?<![A-Za-z])([kM])\s*\}}?\s*\\Omega(?![A-Za-z])\s*\}}?"), r" \1ohm"),
    (re.compile(rf"(?:{_FONT}\s*)?\\mu\s*(?:{_FONT}\s*)?([FCsmgAVTHLJWN])(?![A-Za-z])\s*\}}?"), r" u\1"),
)
_COUNTED = re.compile(r"([a-z][a-z -]+) ([a-z]{3,})\Z", re.IGNORECASE)
_DIVISOR = re.compile(r"/\s*+\(\s*+([A-Za-z]++(?:\s*+(?:\\cdot|\*)?+\s*+[A-Za-z]++)*+)\s*+\)")  # J/(kg K)
_UNIT_FRACTION = re.compile(r"\\frac\s*\{\s*([A-Za-z]+)\s*\}\s*\{\s*([A-Za-z]+\s*(?:\^\s*\{?[0-9]\}?)?)\s*\}")


def _plain_units(text: str) -> str:
    """Units without `\\text`; 5'6" as five feet six inches."""
    if "\\" in text:
        if "\\Omega" in text or "\\mu" in text:
            for pattern, unit in _WITH_GREEK:
                text = pattern.sub(unit, text)
        text = _UNIT_FRACTION.sub(r"\1/\2", _TEXT.sub(r" \1 ", text).replace("{ ", "{").replace(" }", "}"))
    if (counted := _COUNTED.match(text)) and number_in_words(text.casefold()) is None:
        count = number_in_words(counted[1].casefold())
        text = text if count is None else f"{count} {counted[2]}"  # five apples
    if text.startswith("Rs."):
        text = text.replace("Rs.", "\\rupee ", 1)
    if "/" in text and "(" in text:
        text = _DIVISOR.sub(lambda match: "/" + "/".join(re.split(r"\\cdot|[*\s]+", match[1])), text)
    if "cent" in text:
        text = re.sub(r"\bper\s?cent\b", "%", text)
    if "'" in text:
        text = re.sub(r"(?<![0-9.])([0-9.]++)\s*+'\s*+([0-9.]++)\s*+(?:\"|'')", r"\1 feet \2 inches", text)
    return text


def _leading_currency(tokens: list[Token]) -> tuple[list[Token], str]:
    first = tokens[0]
    sign = []
    if first.text == "-" and len(tokens) > 1:
        sign, first = [first], tokens[1]
    code = None
    if first.kind == "cmd":
        code = CURRENCY_COMMANDS.get(first.text)
    elif first.kind in ("word", "text"):
        known = CURRENCIES.get(first.text.lower())
        code = known[0] if known and known[1] == 1 else None
    return (sign + tokens[len(sign) + 1 :], code) if code else (tokens, "")


def _added(total: Quantity, part: Quantity) -> Quantity | None:
    """2 hours + 30 minutes, in the first part's unit."""
    if not (total.value.is_number and part.value.is_number and total.unit and part.unit):
        return None
    more = convert(part.value.fraction, part.unit, total.unit)
    if more is None or total.unit == part.unit:
        return None
    return Quantity(num(total.value.fraction + more), total.unit)


def _parts(tokens: list[Token]) -> list[Quantity] | None:
    """value unit [and] value unit ...: the parts; None if a value has no unit after it."""
    parts: list[Quantity] = []
    position = 0
    while position < len(tokens):
        if parts and tokens[position].text in ("and", ","):
            position += 1
        found = None
        for start in range(position + 1, len(tokens)):
            read = _unit(tokens, start) if tokens[start].kind != "num" else None
            if read is not None and (amount := _value(tokens[position:start])) is not None:
                found = (amount, *read, tokens[start])
                break
        if found is None:
            return None
        value, scale, unit, label, position, first = found
        certain = first.spaced or first.kind != "word" or len(first.text) > 1
        if scale != 1:
            value = num(value.fraction * scale) if value.is_number else node("mul", value, num(scale))
        parts.append(Quantity(value, unit, label, certain))
        if label and position < len(tokens):
            return None
    return parts


def _value(tokens: list[Token]) -> Expr | None:
    if not tokens:
        return None
    try:
        parser = AnswerParser(tokens)
        expr = parser.expression()
    except Unreadable:
        return None
    is_read = parser.is_done() and (is_value(expr) or expr.head == "pm")
    return expr if is_read and not symbols(expr) else None


def _unit(tokens: list[Token], start: int) -> tuple[Fraction, Unit, str, int] | None:
    """(scale, unit, label, end) of the unit that starts there: factors joined by blank, * and /."""
    powers: dict[str, int] = {}
    labels: list[str] = []
    scale, position, sign = Fraction(1), start, 1
    while position < len(tokens):
        token = tokens[position]
        if token.text == "/" or (token.text in ("per", "a") and position > start):
            sign, position = -1, position + 1
            continue
        if token.text in ("cdot", "*", "times") and position > start:
            position += 1
            continue
        factor = _factor(tokens, position)
        if factor is None:
            break
        name, power, amount, position = factor
        scale *= amount
        is_word = name and name.islower() and "/" not in name and "_" not in name
        if name in labels or (is_word and amount == 1 and unit_name(name) is None):
            labels.append(name)
        elif name:
            powers[name] = powers.get(name, 0) + sign * power
        if not name and labels:
            return None
        sign = 1 if sign == 1 else -1
    if position == start or not (powers or labels or scale != 1):
        return None
    if labels and powers:
        labels = []
    unit = tuple(sorted((name, power) for name, power in powers.items() if power))
    return scale, unit, " ".join(labels), position


_TEMPERATURES = {
    "c": "degree_Celsius", "celsius": "degree_Celsius",
    "f": "degree_Fahrenheit", "fahrenheit": "degree_Fahrenheit",
}  # fmt: skip
_OF_LABELS = {2: "squared", 3: "cubed"}
_SQUARES = {"square": 2, "sq": 2, "squared": 2, "cubic": 3, "cu": 3, "cubed": 3}


def _factor(tokens: list[Token], position: int) -> tuple[str, int, Fraction, int] | None:
    """(name, power, amount, end) of one unit with its power; magnitudes have no name."""
    token = tokens[position]
    if token.text == "^" and position + 1 < len(tokens) and tokens[position + 1].text == "circ":
        scale = tokens[position + 2].text if position + 2 < len(tokens) else ""
        return (_TEMPERATURES[scale.lower()], 1, Fraction(1), position + 3) if scale in ("C", "F") else None
    if token.kind == "cmd":
        if token.text == "cents":
            return "USD_cent", 1, Fraction(1), position + 1
        if token.text in CURRENCY_COMMANDS:
            return CURRENCY_COMMANDS[token.text], 1, Fraction(1), position + 1
        return ("ohm", 1, Fraction(1), position + 1) if token.text == "Omega" else None
    if token.kind not in ("word", "text"):
        return None
    word, prefix_power = token.text.rstrip("."), 1
    if word.lower() in ("square", "sq", "cubic", "cu"):
        prefix_power = _SQUARES[word.lower()]
        position += 2 if position + 1 < len(tokens) and tokens[position + 1].text == "." else 1
        if position >= len(tokens) or tokens[position].kind != "word":
            return None
        word = tokens[position].text
    if word in ("degree", "degrees", "deg") and position + 1 < len(tokens):
        temperature = _TEMPERATURES.get(tokens[position + 1].text.lower())
        if temperature is not None:
            return temperature, 1, Fraction(1), position + 2
    named = _named(word)
    if named is None:
        return None
    name, amount = named
    power, end = _written_power(tokens, position + 1)
    if unit_name(word) is None and prefix_power * power in _OF_LABELS:
        return f"{name} {_OF_LABELS[prefix_power * power]}", 1, amount, end
    return name, prefix_power * power, amount, end


def _named(word: str) -> tuple[str, Fraction] | None:
    lowered = word.lower().rstrip(".")
    if lowered in MAGNITUDES:
        return "", Fraction(MAGNITUDES[lowered])
    if lowered in CURRENCIES:
        code, amount = CURRENCIES[lowered]
        return code if amount == 1 else f"{code}_cent", Fraction(1)
    name = unit_name(word)
    if name is not None:
        return name, Fraction(1)
    is_label = len(lowered) >= 3 and lowered.isalpha() and lowered not in _NO_LABELS
    return (lowered, Fraction(1)) if is_label else None


_NO_LABELS = frozenset(
    "and the not but for with from than then are was has had can may might could either neither both maybe "
    "possibly perhaps mod modulo base plus minus times over percent squared cubed sin cos tan cot sec "
    "csc log exp arcsin arccos arctan sqrt pi infinity alpha beta gamma theta lambda where when union yes "
    "max min gcd lcm such that all real numbers wrong incorrect false invalid error guess impossible".split()
)


def _written_power(tokens: list[Token], position: int) -> tuple[int, int]:
    """A power written after a unit: ^2, ^{2}, squared; (power, end)."""
    texts = [token.text for token in tokens[position : position + 5]]
    if texts[:1] == ["^"] or texts[:1] == ["**"]:
        inner = texts[2:] if texts[1:2] == ["{"] else texts[1:]
        braces = 2 if texts[1:2] == ["{"] else 0
        sign, width = (-1, 2) if inner[:1] == ["-"] else (1, 1)
        digits = inner[width - 1 : width]
        if digits and digits[0].isdigit() and len(digits[0]) == 1:
            return sign * int(digits[0]), position + 1 + width + braces
    if texts[:1] and texts[0] in ("squared", "cubed"):
        return _SQUARES[texts[0]], position + 1
    return 1, position


def compare(comparer: Comparer, reference: Answer, response: Answer) -> Decision | None:
    """Only for a reference that states a quantity and cannot be an expression as well."""
    ours = reference.read(named_quantity)
    if ours is None or not (ours.is_certain or reference.expr is None):
        return None
    return compare_read(comparer, reference, response)


def named_quantity(answer: Answer) -> Quantity | None:
    """`read_quantity`, also of "r = 3 cm"."""
    stated = answer.read(read_quantity)
    return quantity_of(answer) if stated is None and "=" in answer.text else stated


def compare_read(comparer: Comparer, reference: Answer, response: Answer) -> Decision:
    """The same value after conversion; a bare number where the unit may be implied."""
    ours, theirs = reference.read(named_quantity), quantity_of(response)
    assert ours is not None
    units = comparer.options.units
    given = unassigned(response.expr) if response.expr is not None else None
    if given is not None and given.head == "percent" and ours.value.head != "percent":
        return decided(False, "", "a percentage for a quantity")
    if theirs is None:
        if response.expr is None:
            return unread(response)
        if units == "require" and ours.unit:
            return decided(False, "", "the answer has no unit")
        return decided(_same_bare(comparer, ours, unassigned(response.expr)), "units", "another number")
    if units != "strip" and ours.unit and theirs.unit:
        return _converted(comparer, ours, theirs)
    if units == "require" and ours.unit:
        return decided(False, "", "the answer has another unit")
    if units != "strip" and ours.unit and theirs.label and not _NEUTRAL_LABELS & set(theirs.label.split()):
        return decided(False, "", f"expected a unit, got {theirs.label}")
    stems = [{word.rstrip("s") for word in label.split()} for label in (ours.label, theirs.label)]
    powers = [stem & set(_OF_LABELS.values()) for stem in stems]
    if all(stems) and (not stems[0] & stems[1] or (all(powers) and powers[0] != powers[1])):
        return decided(False, "", f"expected {ours.label}, got {theirs.label}")
    return decided(same_value(comparer, ours.value, theirs.value), "units", "another number")


_NEUTRAL_LABELS = frozenset(
    "unit units total altogether long tall wide high deep apart away old more less".split()
)


def quantity_of(answer: Answer) -> Quantity | None:
    """The quantity of a response, also of "x = 5 cm", "30^\\circ" and "5 cm or so"."""
    if (stated := answer.read(read_quantity)) is not None:
        return stated
    if "=" in answer.text:
        left, _, right = answer.text.rpartition("=")
        tail = read_answer(right).read(read_quantity)
        if tail is not None and _is_named(left, tail.value):
            return tail
    if answer.expr is not None:
        value = unassigned(answer.expr)
        if value.head == "deg":
            return Quantity(value.args[0], (("degree", 1),))
    return None


def _is_named(left: str, value: Expr) -> bool:
    """Whether the text before "=" is a name or a calculation of the value, rather than an equation."""
    head = read_answer(left)
    if head.expr is None:
        return head.read(is_prose)
    if is_value(head.expr) and not symbols(head.expr):
        return exact_value(head.expr) is not None and exact_value(head.expr) == exact_value(value)
    return assignment(node("rel", head.expr, num(0), value="=")) is not None


def _same_bare(comparer: Comparer, ours: Quantity, value: Expr) -> bool:
    """A bare number for a quantity: the unit is implied; radians where the value holds pi."""
    if not is_value(value) and value.head != "pm":
        return False
    if ours.unit == (("degree", 1),):
        return same_value(comparer, node("deg", ours.value), value)
    return same_value(comparer, ours.value, value)


def _converted(comparer: Comparer, ours: Quantity, theirs: Quantity) -> Decision:
    if ours.unit == theirs.unit:
        is_same = same_value(comparer, ours.value, theirs.value)
        return decided(is_same, "units", "another number of the same unit")
    if len(ours.unit) == len(theirs.unit) == 1 and {ours.unit[0][0], theirs.unit[0][0]} == ANGLES:
        angles = [node("deg", q.value) if q.unit[0][0] == "degree" else q.value for q in (ours, theirs)]
        return decided(comparer.same(*angles), "units", "another angle")
    if {ours.unit, theirs.unit} == {(("GBP", 1),), (("pound", 1),)}:
        return decided(same_value(comparer, ours.value, theirs.value), "units", "another number")
    value = exact_value(theirs.value)
    if value is None:
        slope = convert(Fraction(1), theirs.unit, ours.unit)
        if slope is None:
            return decided(False, "", "another unit")
        is_same = same_value(comparer, ours.value, node("mul", theirs.value, num(slope)))
        return decided(is_same, "units", "another number")
    converted = convert(value, theirs.unit, ours.unit)
    if converted is None:
        return decided(False, "", "a unit of another kind")
    is_same = same_value(comparer, ours.value, num(converted, 3 if theirs.value.places >= 0 else -1))
    return decided(is_same, "units", "another number after conversion")


def bare_value(tree: Expr, quantity: Quantity) -> Expr:
    """The number of a quantity; degrees stay degrees, and radians for degrees are converted."""
    if quantity.unit == (("degree", 1),):
        return node("deg", quantity.value)
    if quantity.unit == (("radian", 1),) and tree.head == "deg":
        return node("deg", node("div", node("mul", quantity.value, num(180)), Expr("const", (), "pi")))
    return quantity.value
