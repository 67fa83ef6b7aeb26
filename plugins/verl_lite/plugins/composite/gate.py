"""`when:` expressions over other components' values, parsed by an allow-list, never evaluated by Python.

    correct > 0                      numbers are compared; a comparison is a condition
    correct > 0 and length <= 0.5    conditions are joined by and, or, not
    max(math, code) - 0.1 >= 0       + - * / and min, max, abs compute numbers

Names are components of the same config; their values are those before clip, scale and offset. A
component without a value (error, timeout, abstain) leaves the gate undecided.
"""

import ast
import math
import operator
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

MAX_LENGTH = 300  # characters
FUNCTIONS: Mapping[str, Callable[..., float]] = {"abs": abs, "max": max, "min": min}
_COMPARE: Mapping[type[ast.AST], Callable[[float, float], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_ARITHMETIC: Mapping[type[ast.AST], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}

Values = Mapping[str, float]
Number = Callable[[Values], float]
Condition = Callable[[Values], bool]


@dataclass(frozen=True, slots=True)
class Gate:
    """A parsed condition. `names` are the components it reads."""

    text: str
    names: frozenset[str]
    condition: Condition

    def is_open(self, values: Values) -> bool | None:
        """True or False; None if a name has no value or the arithmetic has no result (x / 0).

        >>> gate = parse_gate("correct > 0 and abs(length - 0.5) < 0.2")
        >>> gate.is_open({"correct": 1.0, "length": 0.6}), gate.is_open({"correct": 1.0})
        (True, None)
        """
        if not self.names <= values.keys():
            return None
        try:
            return self.condition(values)
        except (ZeroDivisionError, OverflowError):
            return None


def parse_gate(text: str) -> Gate:
    """Parse `text`. Raises ValueError quoting the part that is not allowed, and listing what is."""
    if len(text) > MAX_LENGTH:
        raise ValueError(f"the condition has {len(text)} characters, expected at most {MAX_LENGTH}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # `1 is 2` is refused below with a better message
            tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else str(error) or type(error).__name__
        raise ValueError(f"{text!r} is not a condition: {reason}") from None
    parser = _Parser(text.strip())
    condition = parser.condition(tree.body)
    return Gate(text.strip(), frozenset(parser.names), condition)


class _Parser:
    """Turns allowed syntax into closures; everything else raises ValueError."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.names: set[str] = set()

    def condition(self, node: ast.expr) -> Condition:
        if isinstance(node, ast.BoolOp):
            parts = [self.condition(part) for part in node.values]
            if isinstance(node.op, ast.And):
                return lambda values: all(part(values) for part in parts)
            return lambda values: any(part(values) for part in parts)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            inner = self.condition(node.operand)
            return lambda values: not inner(values)
        if isinstance(node, ast.Compare):
            return self._comparison(node)
        if isinstance(node, (ast.Name, ast.BinOp, ast.Call)) or self._is_number(node):
            part = self._quote(node)
            raise ValueError(f"'{part}' is a number, not a condition: compare it, for example {part} > 0")
        raise self._refused(node)

    def _comparison(self, node: ast.Compare) -> Condition:
        operands = [self.number(part) for part in (node.left, *node.comparators)]
        tests = []
        for op in node.ops:
            if type(op) not in _COMPARE:
                raise self._refused(node)
            tests.append(_COMPARE[type(op)])
        if len(tests) == 1:
            left, right, test = operands[0], operands[1], tests[0]
            return lambda values: test(left(values), right(values))

        def chain(values: Values) -> bool:
            numbers = [operand(values) for operand in operands]
            return all(test(a, b) for test, a, b in zip(tests, numbers, numbers[1:], strict=False))

        return chain

    def number(self, node: ast.expr) -> Number:
        if self._is_number(node):
            return self._constant(node)
        if isinstance(node, ast.Name):
            name = node.id
            self.names.add(name)
            return lambda values: values[name]
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
            sign, inner = (-1.0 if isinstance(node.op, ast.USub) else 1.0), self.number(node.operand)
            return lambda values: sign * inner(values)
        if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
            compute, left, right = _ARITHMETIC[type(node.op)], self.number(node.left), self.number(node.right)
            return lambda values: compute(left(values), right(values))
        if isinstance(node, ast.Call):
            return self._call(node)
        raise self._refused(node)

    def _call(self, node: ast.Call) -> Number:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name not in FUNCTIONS or node.keywords or any(isinstance(arg, ast.Starred) for arg in node.args):
            raise self._refused(node)
        least = 1 if name == "abs" else 2
        if len(node.args) < least or (name == "abs" and len(node.args) > 1):
            raise ValueError(
                f"'{self._quote(node)}': {name} takes {'one number' if least == 1 else 'two or more'}"
            )
        function, args = FUNCTIONS[name], [self.number(arg) for arg in node.args]
        return lambda values: function(*(arg(values) for arg in args))

    def _constant(self, node: ast.expr) -> Number:
        assert isinstance(node, ast.Constant)
        try:
            value = float(node.value)  # type: ignore[arg-type]
        except OverflowError:
            value = math.inf
        if not math.isfinite(value):
            raise ValueError(f"'{self._quote(node)}' is not a finite number")
        return lambda values: value

    @staticmethod
    def _is_number(node: ast.expr) -> bool:
        return isinstance(node, ast.Constant) and type(node.value) in (int, float)

    def _quote(self, node: ast.AST) -> str:
        return (ast.get_source_segment(self.text, node) or self.text)[:80]

    def _refused(self, node: Any) -> ValueError:
        return ValueError(
            f"'{self._quote(node)}' is not allowed in a condition; allowed are component names, numbers, "
            f"comparisons, and, or, not, + - * /, {', '.join(FUNCTIONS)}"
        )
