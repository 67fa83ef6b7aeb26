r"""Functions: `f(x) = 2x`, `f: x -> 2x`, `x \mapsto 2x`. Their variables are bound."""

from verl_lite.verifiers.math.algebra.normal_form import exact_value
from verl_lite.verifiers.math.answers.assignments import assignment, same_part
from verl_lite.verifiers.math.answers.same_value import same_value
from verl_lite.verifiers.math.comparer import Comparer
from verl_lite.verifiers.math.expressions import (
    Expr,
    Unreadable,
    is_value,
    neg,
    node,
    num,
    substitute,
    sym,
    symbols,
    walk,
)
from verl_lite.verifiers.math.reading.names import GREEK
from verl_lite.verifiers.math.reading.parser import ExpressionParser
from verl_lite.verifiers.math.reading.tokens import Token

INDEXED, NATURAL = "Z", "N"
_INTEGER_NAMES = frozenset("kmnlN")
_ARROWS = ("mapsto", "to", "->")


def read_definition(parser: ExpressionParser) -> Expr | None:
    """The function that the tokens define, as a "lambda"; None, with nothing taken, if they define none."""
    begin = parser.position
    tokens = parser.tokens[begin:]
    commands = {token.text for token in tokens if token.kind in ("cmd", "op")}
    if begin == 0 and "lim" not in commands and commands & set(_ARROWS):
        return _read_arrow(parser)
    texts = [token.text for token in tokens]
    if "(" not in texts[1:8] or ")" not in texts:
        return None
    start, close = texts.index("("), texts.index(")")
    if not all(text in ("'", "^", "{", "}", "-", "1", "_") or text.isalnum() for text in texts[1:start]):
        return None
    if start > 1 and texts[1] not in ("'", "^", "_"):
        return None
    inside = tokens[start + 1 : close]
    names, commas = inside[::2], inside[1::2]
    is_bound = all(_is_name(token) for token in names) and all(token.text == "," for token in commas)
    named = parser.peek()
    is_letter = named.kind == "word" and len(named.text) == 1 and named.text not in "ei"
    is_called = (is_letter or _is_name(named)) and is_bound and len(inside) % 2 == 1
    if not is_called or texts[close + 1 : close + 2] != ["="]:
        return None
    parser.position = begin + close + 2
    body = parser.expression()
    while parser.accept("="):
        body = parser.expression()
    if texts[0] == "P" and not symbols(body) & {token.text for token in names}:
        parser.position = begin
        return None  # a probability
    return Expr("lambda", (*(sym(token.text) for token in names), body), "".join(texts[:start]))


def _read_arrow(parser: ExpressionParser) -> Expr:
    name = ""
    if parser.peek(1).text == ":" and parser.peek().kind == "word":
        name = parser.take().text
        parser.take()
    parameter = parser.expression()
    parameters = parameter.args if parameter.head == "tuple" else (parameter,)
    if any(part.head != "sym" for part in parameters) or not parser.accept(*_ARROWS):
        raise Unreadable("an arrow that defines no function")
    return Expr("lambda", (*parameters, parser.expression()), name)


def _is_name(token: Token) -> bool:
    """A variable: one small letter that is not a constant, or a Greek name. Capitals are random variables."""
    if token.kind == "cmd":
        return token.text in GREEK
    return token.kind == "word" and len(token.text) == 1 and token.text not in "ei" and token.text.islower()


def with_index(item: Expr, index: Expr) -> Expr | None:
    """k pi, k in Z: a "lambda" of the index, whose name is free. Also of x = k pi, as its value."""
    is_named = item.head == "rel" and item.value == "=" and item.args[0].head == "sym"
    body = item.args[1] if is_named else item
    name = INDEXED if index.args[1].name == "Z" else NATURAL
    if body.head == "rel" or index.args[0].name not in symbols(body):
        return None
    return Expr("lambda", (index.args[0], body), name)


def compare(comparer: Comparer, reference: Expr, response: Expr) -> bool | None:
    if reference.head == "lambda":
        if reference.name in (INDEXED, NATURAL):
            return _same_family(comparer, reference, response)
        return same_function(comparer, reference, response)
    named = assignment(reference)
    if response.head != "lambda" or named is None:
        return None
    value = named[1]
    is_closed = is_value(value) and symbols(value) <= symbols(response)
    return is_closed and same_function(comparer, response, value)


def compare_family(comparer: Comparer, reference: Expr, response: Expr) -> bool | None:
    """pi/6 + 2n pi for "pi/6 + 2k pi, k in Z": one side leaves out what its letter is, or both do."""
    is_indexed = response.head == "lambda" and response.name in (INDEXED, NATURAL)
    if not is_indexed and (response.head == "lambda" or not symbols(response) & _INTEGER_NAMES):
        return None
    index = _index_of(reference)
    if index is None or not (is_indexed or _is_renamed(reference, index, response)):
        return None
    return _same_family(comparer, Expr("lambda", (index, _body(reference)), INDEXED), response)


def _body(tree: Expr) -> Expr:
    return tree.args[1] if tree.head == "rel" else tree


def _is_renamed(reference: Expr, index: Expr, response: Expr) -> bool:
    """Whether both sides can only be meant for all integers, in two letters: n = 5k + 2, pi/4 + k pi."""
    both_named = reference.head == response.head == "rel"
    if _index_of(response) in (None, index) or (both_named and reference.args[0] != response.args[0]):
        return False
    body = _body(reference)
    values = [exact_value(substitute(body, {index.name: num(at)})) for at in (0, 1, 2)]
    start, second, third = values
    if start is None or second is None or third is None:
        return Expr("const", (), "pi") in walk(body)
    step = second - start
    is_line = third - second == step and abs(step) > 1 and start.denominator == step.denominator == 1
    named = reference.args[0].name if reference.head == "rel" else ""
    return is_line and (named in ("n", "N") or (named in ("m", "x", "p") and start != 0))


def _index_of(tree: Expr) -> Expr | None:
    """The one letter of a formula, or of the value in "x = k pi", if it is one that integers have."""
    if tree.head == "rel" and tree.value == "=" and tree.args[0].head == "sym":
        tree = tree.args[1]
    names = symbols(tree) if is_value(tree) else frozenset()
    return sym(next(iter(names))) if len(names) == 1 and names <= _INTEGER_NAMES else None


def _same_family(comparer: Comparer, reference: Expr, response: Expr) -> bool:
    """The same values for all integers: equal for k, for -k, or for k shifted by one."""
    index, body = reference.args
    if response.head == "lambda" and len(response.args) == 2:
        other, given = response.args
    else:
        found = _index_of(response)
        if found is None:
            return False
        other, given = found, response.args[1] if response.head == "rel" else response
    if not is_value(body) or not is_value(given):
        return False
    kinds = {side.name for side in (reference, response) if side.head == "lambda"}
    if NATURAL in kinds:
        return len(kinds) == 1 and same_value(comparer, body, substitute(given, {other.name: index}))
    shifts = [index, neg(index)]
    shifts += [node("add", one, num(by)) for one in shifts[:2] for by in (1, -1)]
    return any(same_value(comparer, body, substitute(given, {other.name: shift})) for shift in shifts)


def same_function(comparer: Comparer, reference: Expr, response: Expr) -> bool:
    """f(x) = 2x against f(n) = 2n (bound variables), y = 2x, or the bare 2x in the same variable."""
    *parameters, body = reference.args
    if response.head == "lambda":
        *others, other_body = response.args
        if len(others) != len(parameters):
            return False
        if reference.name and response.name and reference.name != response.name:
            return False
        names, other_names = ({part.name for part in group} for group in (parameters, others))
        if symbols(body) & (other_names - names) or symbols(other_body) & (names - other_names):
            return False  # a free variable of one side is bound on the other
        renamed = {theirs.name: ours for theirs, ours in zip(others, parameters, strict=True)}
        return same_part(comparer, body, substitute(other_body, renamed))
    if response.head == "rel" and response.value == "=" and response.args[0].head == "sym":
        if response.args[0].name in symbols(body):
            return False
        response = response.args[1]
    if not is_value(body):
        return same_part(comparer, body, response)
    return is_value(response) and same_value(comparer, body, response)
