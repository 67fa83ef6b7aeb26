r"""Functions: `f(x) = 2x`, `f: x -> 2x`, `x \mapsto 2x`. Their variables are bound."""

from verl_lite.verifiers.math.answers.same_value import same_value
from verl_lite.verifiers.math.comparer import Comparer
from verl_lite.verifiers.math.expressions import Expr, Unreadable, is_value, substitute, sym, symbols
from verl_lite.verifiers.math.reading.names import GREEK
from verl_lite.verifiers.math.reading.parser import ExpressionParser
from verl_lite.verifiers.math.reading.tokens import Token

_ARROWS = ("mapsto", "to", "->")


def read_definition(parser: ExpressionParser) -> Expr | None:
    """The function that the tokens define, as a "lambda"; None, with nothing taken, if they define none."""
    if any(token.kind in ("cmd", "op") and token.text in _ARROWS for token in parser.tokens):
        return _read_arrow(parser)
    texts = [token.text for token in parser.tokens]
    if "(" not in texts[1:8] or ")" not in texts or texts[0][:1] == "P":
        return None
    start, close = texts.index("("), texts.index(")")
    if not all(text in ("'", "^", "{", "}", "-", "1", "_") or text.isalnum() for text in texts[1:start]):
        return None
    if start > 1 and texts[1] not in ("'", "^", "_"):
        return None
    inside = parser.tokens[start + 1 : close]
    names, commas = inside[::2], inside[1::2]
    is_bound = all(_is_name(token) for token in names) and all(token.text == "," for token in commas)
    is_called = _is_name(parser.peek()) and is_bound and len(inside) % 2 == 1
    if not is_called or texts[close + 1 : close + 2] != ["="]:
        return None
    parser.position = close + 2
    body = parser.expression()
    while parser.accept("="):
        body = parser.expression()
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
    """A variable: one letter that is not a constant, or a Greek name."""
    if token.kind == "cmd":
        return token.text in GREEK
    return token.kind == "word" and len(token.text) == 1 and token.text not in "ei"


def compare(comparer: Comparer, reference: Expr, response: Expr) -> bool | None:
    return same_function(comparer, reference, response) if reference.head == "lambda" else None


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
        return same_value(comparer, body, substitute(other_body, renamed))
    if response.head == "rel" and response.value == "=" and response.args[0].head == "sym":
        if response.args[0].name in symbols(body):
            return False
        response = response.args[1]
    return is_value(response) and is_value(body) and same_value(comparer, body, response)
