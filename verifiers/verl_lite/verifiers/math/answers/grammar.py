"""Complete answers: relations, lists, unions, set builders, and what each type adds."""

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from string import ascii_uppercase
from typing import ClassVar

from verl_lite.verifiers.math.answers import (
    assignments,
    collections,
    congruences,
    functions,
    ratios,
    real_sets,
    vectors,
)
from verl_lite.verifiers.math.expressions import Expr, Unreadable, is_value, node
from verl_lite.verifiers.math.reading.commands import COMMANDS, refused
from verl_lite.verifiers.math.reading.names import RELATIONS
from verl_lite.verifiers.math.reading.parser import ExpressionParser
from verl_lite.verifiers.math.reading.phrases import with_notation
from verl_lite.verifiers.math.reading.tokens import tokenize

MAX_PARSED_CHARS = 8000
MAX_TREE_DEPTH = 120
MAX_TREE_NODES = 5000

_NESTING = {"(": 1, "[": 1, "\\{": 1, "{": 1, "lbrace": 1, ")": -1, "]": -1, "\\}": -1, "}": -1, "rbrace": -1}
_INEQUALITIES = frozenset(("<", "<=", ">", ">=", "!=", "in", "notin"))
_CONNECTIVES = {
    **dict.fromkeys(("and", "&", "land", "also"), "and"),
    **dict.fromkeys(("or", "lor"), "or"),
    ",": ",",
    "\\\\": ",",
    ";": ";",
}
_LOGICAL = frozenset(("land", "lor"))
_FILLERS = frozenset(
    ("x is", "where", "the", "either", "both", "approximately", "about", "roughly", "exactly", "for")
)
# Commands that the types of answers read.
ANSWER_COMMANDS: dict[str, Callable[[ExpressionParser], Expr]] = {
    "pm": partial(collections.read_plus_minus, signs="+-"),
    "mp": partial(collections.read_plus_minus, signs="-+"),
    "emptyset": lambda _: node("named", value="empty"),
    **{f"board{letter}": partial(real_sets.read_number_set, letter=letter) for letter in ascii_uppercase},
    "langle": vectors.read_tuple,
    "begin": vectors.read_environment,
    "lbrace": lambda parser: parser.braces(),
    **dict.fromkeys(congruences.MODULO, partial(refused, what="a modulus without an equation")),
}


@lru_cache(maxsize=4096)
def parse_answer(text: str) -> Expr | Unreadable:
    """The tree of a cleaned answer, or an Unreadable that says why it has none (returned, not raised)."""
    if len(text) > MAX_PARSED_CHARS:
        return Unreadable(f"longer than {MAX_PARSED_CHARS} characters")
    try:
        tree = AnswerParser(tokenize(with_notation(text))).answer()
    except Unreadable as reason:
        return Unreadable(str(reason))  # a cached exception that was raised keeps its callers' frames alive
    return _oversized(tree) or tree


def _oversized(tree: Expr) -> Unreadable | None:
    """Why a tree is too large. A long sum is as deep as it is long; shared parts count as often as they
    stand in it, because whatever walks the tree meets them as often."""
    seen, stack = 0, [(tree, 1)]
    while stack:
        node_, depth = stack.pop()
        seen += 1
        if depth > MAX_TREE_DEPTH:
            return Unreadable(f"more than {MAX_TREE_DEPTH} operations deep")
        if seen > MAX_TREE_NODES:
            return Unreadable(f"more than {MAX_TREE_NODES} operations")
        stack.extend((arg, depth + 1) for arg in node_.args)
    return None


class AnswerParser(ExpressionParser):
    """Expressions, and what surrounds them in answers."""

    commands: ClassVar[Mapping[str, Callable[[ExpressionParser], Expr]]] = COMMANDS | ANSWER_COMMANDS
    building_set = False

    def answer(self) -> Expr:
        if self.peek().text in ("approx", "=", "~") or self.peek().text.lower() in _FILLERS:
            self.take()
        if self.is_done():
            raise Unreadable("empty")
        items, joints = [self.definition_or_item()], []
        while not self.is_done():
            if self.peek().kind == "num" and self.peek().spaced and items[-1].is_number:
                joints.append(",")  # -2 3 5
                items.append(self.item())
                if not items[-1].is_number:
                    raise Unreadable("two numbers side by side")
                continue
            is_logical = self.at(*_LOGICAL)
            joint = self.connective()
            if joint is None:
                raise Unreadable(f"unexpected {self.peek().text!r}")
            if is_logical and is_value(items[-1]):
                raise Unreadable("a logical formula")
            if self.is_done() and joint in (",", ";"):
                break
            joints.append(joint)
            items.append(self.definition_or_item())
        return _joined(items, joints)

    def definition_or_item(self) -> Expr:
        return functions.read_definition(self) or self.item()

    def connective(self) -> str | None:
        """The joint before the next item: "and", "or" or ","; "x, and y" is one joint."""
        token = self.peek()
        found = _CONNECTIVES.get(token.text.lower().strip(" ,."))
        if found is None and token.kind == "op":
            found = _CONNECTIVES.get(token.text)
        if found is None:
            return None
        self.take()
        after = _CONNECTIVES.get(self.peek().text.lower().strip(" ,"))
        if found in (",", ";") and after in ("and", "or"):
            self.take()
            return after
        return found

    def item(self) -> Expr:
        """An expression, a chain of relations, `x in S`, a ratio or a set builder's left part."""
        first = self.expression()
        if not self.building_set and ratios.at_ratio(self):
            return ratios.read_ratio(self, first)
        parts, relations = [first], []
        while (relation := self.relation()) is not None:
            relations.append(relation)
            parts.append(self.expression())
        if not relations and (point := assignments.named_point(first)) is not None:
            return point
        if not relations and congruences.at_modulus(self) and is_value(first):
            return congruences.read_residue(self, first)
        if not relations:
            return first
        sides = zip(parts, relations, parts[1:], strict=False)
        links = [node("rel", left, right, value=relation) for left, relation, right in sides]
        if congruences.at_modulus(self):
            return congruences.read_congruence(self, links)
        return links[0] if len(links) == 1 else node("chain", *links)

    def relation(self) -> str | None:
        token = self.peek()
        if token.kind in ("op", "cmd") and token.text in RELATIONS:
            self.take()
            if token.text in ("<", ">") and self.peek().text == "=" and not self.peek().spaced:
                self.take()
                return RELATIONS[token.text + "="]
            return RELATIONS[token.text]
        if token.kind in ("word", "text") and token.text.strip() in ("in", "is"):
            self.take()
            return "in" if token.text.strip() == "in" else "="
        if token.kind == "cmd" and token.text in ("not", "neq"):
            self.take()
            self.expect("=")
            return "!="
        return None

    def braces(self) -> Expr:
        """A set, or a set builder `{x | condition}`, which is its condition."""
        if not self._builds_set():
            return super().braces()
        bars, self.open_bars = self.open_bars, 1
        was_building, self.building_set = self.building_set, True
        bound = self.item()
        self.open_bars, self.building_set = bars, was_building
        self.expect("|", "vert", ":")
        return self.condition(bound)

    def _builds_set(self) -> bool:
        """Whether a bar or colon divides what is inside these braces: an odd bar, or not the colon of 1:2."""
        depth, bars, colon = 1, 0, False
        for at in range(self.position, len(self.tokens)):
            token = self.tokens[at]
            depth += _NESTING.get(token.text, 0) if token.kind in ("op", "cmd") else 0
            if depth == 0:
                break
            if depth == 1 and token.text in ("|", "vert"):
                bars += 1
            elif depth == 1 and token.text == ":":
                colon |= self.tokens[at - 1].kind != "num"
        return colon or bars % 2 == 1

    def condition(self, bound: Expr) -> Expr:
        bars, self.open_bars = self.open_bars, 0
        conditions = [self.item()]
        joints: list[str] = []
        while not self.at("\\}", "rbrace"):
            joint = self.connective()
            if joint is None:
                raise Unreadable("a set builder that does not end")
            joints.append(joint)
            conditions.append(self.item())
        self.take()
        self.open_bars = bars
        result = conditions[0] if not joints else _joined(conditions, joints)
        if bound.head == "rel" and bound.value == "in":
            named = bound.args[1]
            return result if named.value == "R" else node("and", bound, result)
        if bound.head != "sym":
            raise Unreadable("a set builder over a formula")
        return result


def _joined(items: list[Expr], joints: list[str]) -> Expr:
    if not joints:
        return items[0]
    if len(items) == 2 and _is_index(items[1]) and (general := functions.with_index(items[0], items[1])):
        return general
    for divider in (";", "or"):
        if divider in joints and (solutions := _solutions(items, joints, divider)) is not None:
            return solutions
    if items[0].head == "minus" and all(map(is_value, [items[0].args[1], *items[1:]])):  # R except 1, 2
        return node("minus", items[0].args[0], node("set", items[0].args[1], *items[1:]))
    if any(_is_condition(item) for item in items):
        return _conjunction(items, joints)
    return node("list", *items, value="or" if "or" in joints else "and" if set(joints) == {"and"} else None)


def _solutions(items: list[Expr], joints: list[str], divider: str) -> Expr | None:
    """p = 5, q = 2; p = 7, q = 2, or with "or" between: a list of tuples; None for other items."""
    groups: list[list[Expr]] = [[]]
    for item, joint in zip(items, (*joints, ""), strict=True):
        groups[-1].append(item)
        if joint == divider:
            groups.append([])
    named = [assignments.systems(node("list", *group)) for group in groups]
    if not named[0] or len({tuple(sorted(names)) if names else None for names in named}) != 1:
        return None
    return node("list", *(node("tuple", *(names[key] for key in sorted(names))) for names in named if names))


def _is_index(item: Expr) -> bool:
    """k in Z, k in N."""
    is_member = item.head == "rel" and item.value == "in"
    return is_member and item.args[0].head == "sym" and item.args[1].value in ("Z", "N")


def _is_condition(item: Expr) -> bool:
    if item.head == "chain":
        return any(link.value in _INEQUALITIES for link in item.args)
    return item.head in ("and", "or") or (item.head == "rel" and item.value in _INEQUALITIES)


def _conjunction(items: list[Expr], joints: list[str]) -> Expr:
    """Items joined by "or" are alternatives; those joined by "and" or a comma hold together.

    Commas alone are kept as the value ",": `x < 2, x > 3` is a contradiction read literally, and means "or".
    """
    groups: list[list[Expr]] = [[items[0]]]
    for item, joint in zip(items[1:], joints, strict=True):
        if joint == "or":
            groups.append([item])
        else:
            groups[-1].append(item)
    by_comma = "," if set(joints) == {","} else None
    if len(groups) == 1 and items[0].value == "!=" and all(map(is_value, items[1:])):  # x \\ne 1, 2
        groups = [[items[0], *(node("rel", items[0].args[0], item, value="!=") for item in items[1:])]]
    parts = [group[0] if len(group) == 1 else node("and", *group, value=by_comma) for group in groups]
    return parts[0] if len(parts) == 1 else node("or", *parts)
