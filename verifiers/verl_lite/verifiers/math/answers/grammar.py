"""Whole answers: relations, lists, unions, set builders, function definitions, ratios."""

import re
from functools import lru_cache

from verl_lite.verifiers.math.expressions import Expr, Unreadable, node, sym
from verl_lite.verifiers.math.reading.names import GREEK, RELATIONS
from verl_lite.verifiers.math.reading.parser import ExpressionParser
from verl_lite.verifiers.math.reading.tokens import Token, tokenize

__all__ = ["MAX_PARSED_CHARS", "parse_answer"]

MAX_PARSED_CHARS = 8000
MAX_TREE_DEPTH = 120

_INEQUALITIES = frozenset(("<", "<=", ">", ">=", "!=", "in", "notin"))
_PHRASES = [
    (re.compile(pattern, re.IGNORECASE), replacement)
    for pattern, replacement in (
        (r"\bplus\s*(?:or|/)\s*minus\b|\+/-|\+-(?=\s*[0-9\\(a-zA-Z])", r"\\pm "),
        (r"\b(?:the\s+)?square\s+root\s+of\b", r"\\usqrt "),
        (r"\b(?:the\s+)?cube\s+root\s+of\b", r"\\usqrt[3] "),
        (r"\b(?:is\s+)?(?:less|smaller)\s+than\s+or\s+equal\s+to\b|\bis\s+at\s+most\b", r"\\le "),
        (r"\b(?:is\s+)?(?:greater|more|larger)\s+than\s+or\s+equal\s+to\b|\bis\s+at\s+least\b", r"\\ge "),
        (r"\b(?:is\s+)?(?:less|smaller)\s+than\b", "<"),
        (r"\b(?:is\s+)?(?:greater|more|larger)\s+than\b", ">"),
        (r"\b(?:is\s+)?not\s+equal\s+to\b", r"\\ne "),
        (r"\b(?:is\s+)?equals?(?:\s+to)?\b", "="),
        (r"\bdivided\s+by\b", "/"),
        (r"\bmultiplied\s+by\b|(?<=[0-9)])\s*\btimes\b", "*"),
        (r"(?<=[0-9)}])\s*\bpercent\b", "%"),
        (r"\bsquared\b", "^2"),
        (r"\bcubed\b", "^3"),
        (r"\b(?:negative|minus)\s+(?=[0-9a-z\\(])", "-"),
        (r"\b(?:positive)\s+(?=infinity|\\infty|[0-9])", ""),
        (r"\b(?:all\s+|any\s+)?positive\s+(?:real\s+numbers?|reals?)\b", r"\\mathbb{R}^+ "),
        (r"\b(?:all\s+|any\s+)?negative\s+(?:real\s+numbers?|reals?)\b", r"\\mathbb{R}^- "),
        (r"\b(?:all\s+|any\s+)?non-?negative\s+(?:real\s+numbers?|reals?)\b", r"[0,\\infty) "),
        (  # the digits in front of a long number's last 65 stay where they are
            r"([0-9][0-9A-Fa-f]{0,64})\s*+(?:\(\s*+)?+(?:in\s+)?base[\s-]*+([0-9]{1,2}|[a-z]+)\s*+\)?",
            r"\1_{\2}",
        ),
        (
            r"\b(?:the\s+set\s+of\s+)?(?:all|any)\s+(?:the\s+)?real\s+numbers?\b|\ball\s+reals?\b",
            r"\\mathbb{R} ",
        ),
        (r"\b(?:the\s+)?real\s+numbers\b|\breals\b", r"\\mathbb{R} "),
        (r"\b(?:all|any)\s+integers\b", r"\\mathbb{Z} "),
        (r"\b(?:except|excluding|other\s+than|but\s+not)\s*(?:for|when|where|at)?\b", r"\\setminus "),
        (r"(?<=[0-9)])\s*[xX]\s*(?=10\s*\^)", "*"),
        (r"\bunion\b|(?<=[)\]])\s*U\s*(?=[(\[])", r"\\cup "),
        (r"\bintersection\b", r"\\cap "),
    )
]
_CONNECTIVES = {
    "and": "and",
    "or": "or",
    "&": "and",
    "land": "and",
    "lor": "or",
    ",": ",",
    ";": ",",
    "also": "and",
}
_FILLERS = frozenset(
    ("x is", "where", "the", "either", "both", "approximately", "about", "roughly", "exactly", "for")
)
_TEXT_COMMAND = re.compile(r"\\(?:text|textrm|mathrm|mbox|textbf)\s*\{([^{}]*)\}")


@lru_cache(maxsize=4096)
def parse_answer(text: str) -> Expr | Unreadable:
    """The tree of a cleaned answer, or the Unreadable that says why there is none (never raised)."""
    if len(text) > MAX_PARSED_CHARS:
        return Unreadable(f"longer than {MAX_PARSED_CHARS} characters")
    try:
        if text[:1] in "{<" and text[-1:] in "}>":
            text = _with_plain_brackets(text)
        if re.search(r"[A-Za-z]{2}|U|\+/?-", text):
            text = _with_phrases(text)
        tree = AnswerParser(tokenize(text)).answer()
        return (
            tree
            if _depth(tree) <= MAX_TREE_DEPTH
            else Unreadable(f"more than {MAX_TREE_DEPTH} operations deep")
        )
    except Unreadable as reason:
        return Unreadable(str(reason))  # a raised one, cached, keeps the frames of all its callers alive


def _depth(tree: Expr) -> int:
    """The depth of a tree; a long sum is as deep as it is long. Iterative, as everything else recurses."""
    deepest, stack = 0, [(tree, 1)]
    while stack:
        node_, depth = stack.pop()
        deepest = max(deepest, depth)
        stack.extend((arg, depth + 1) for arg in node_.args)
    return deepest


def _with_plain_brackets(text: str) -> str:
    """{1, 2} without backslashes is a set, <1, 2> a vector."""
    inner = text[1:-1]
    if text[0] == "<" and text[-1] == ">" and "," in inner and not re.search("[<>]", inner):
        return f"\\langle {inner} \\rangle "
    if text[0] == "{" and text[-1] == "}" and re.search("[,|:]|vert", inner) and not re.search("[{}]", inner):
        return f"\\{{{inner}\\}}"
    return text


def _with_phrases(text: str) -> str:
    if "\\text" in text or "\\m" in text:
        text = _TEXT_COMMAND.sub(lambda match: _inline_words(match[1], match[0]), text)
    for pattern, replacement in _PHRASES:
        text = pattern.sub(replacement, text)
    return text


def _inline_words(words: str, command: str) -> str:
    r"""Prose in `\text{...}` is read like prose outside it; a name such as `\mathrm{e}` stays."""
    return (
        f" {words} "
        if len(words.split()) > 1 or len(words.strip()) > 3 or words.strip() in ("or", "and", "if")
        else command
    )


class AnswerParser(ExpressionParser):
    """Adds to expressions what stands around them in answers."""

    def answer(self) -> Expr:
        if self.peek().text in ("approx", "=", "~") or self.peek().text.lower() in _FILLERS:
            self.take()
        if self.is_done():
            raise Unreadable("empty")
        definition = self.definition()
        items, joints = [definition or self.item()], []
        while not self.is_done():
            joint = self.connective()
            if joint is None:
                raise Unreadable(f"unexpected {self.peek().text!r}")
            if self.is_done() and joint == ",":
                break
            joints.append(joint)
            items.append(self.item())
        return _joined(items, joints)

    def connective(self) -> str | None:
        """The joint before the next item: "and", "or" or ","; "x, and y" is one joint."""
        token = self.peek()
        found = _CONNECTIVES.get(token.text.lower().strip(" ,."))
        if found is None and token.kind == "op":
            found = _CONNECTIVES.get(token.text)
        if found is None:
            return None
        self.take()
        if found == "," and (after := _CONNECTIVES.get(self.peek().text.lower().strip(" ,"))) in (
            "and",
            "or",
        ):
            self.take()
            return after
        return found

    def item(self) -> Expr:
        """An expression, a chain of relations, `x in S`, a ratio or a set builder's left part."""
        first = self.expression()
        if self.at_ratio() and not self.building_set:
            return self.ratio(first)
        parts, relations = [first], []
        while (relation := self.relation()) is not None:
            relations.append(relation)
            parts.append(self.expression())
        if not relations:
            return first
        links = [
            node("rel", parts[index], parts[index + 1], value=relation)
            for index, relation in enumerate(relations)
        ]
        if self.at("pmod", "mod", "bmod") or (self.at("(") and self.peek(1).text in ("mod", "bmod", "pmod")):
            return self.congruence(links)
        return links[0] if len(links) == 1 else node("chain", *links)

    building_set = False

    def at_ratio(self) -> bool:
        if self.peek().kind == "word" and self.peek().text == "to":
            return self.peek(1).kind == "num"
        return self.at(":") and self.peek(1).kind in ("num", "word", "cmd", "op")

    def congruence(self, links: list[Expr]) -> Expr:
        """n = 3 (mod 5)."""
        in_brackets = self.accept("(")
        self.take()
        modulus = self.argument() if self.at("{") else self.expression()
        if in_brackets:
            self.expect(")")
        if len(links) != 1 or links[0].value != "=":
            raise Unreadable("a congruence of several parts")
        return node("congruence", *links[0].args, modulus)

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

    def ratio(self, first: Expr) -> Expr:
        parts = [first]
        while self.at_ratio():
            self.take()
            parts.append(self.expression())
        return node("ratio", *parts)

    def braces(self) -> Expr:
        """A set, or a set builder `{x | condition}`, which is its condition."""
        start, depth = self.position, self.depth
        bars, self.open_bars = self.open_bars, 1
        was_building, self.building_set = self.building_set, True
        try:
            bound = self.item()
            if self.at("|", "vert", ":"):
                self.take()
                return self.condition(bound)
        except Unreadable:
            if not any(token.text in ("|", "vert", ":") for token in self.tokens[start:]):
                raise
        finally:
            self.open_bars, self.building_set = bars, was_building
        self.position, self.depth = start, depth
        return super().braces()

    def condition(self, bound: Expr) -> Expr:
        self.open_bars = 0
        conditions = [self.item()]
        joints: list[str] = []
        while not self.at("\\}", "rbrace"):
            joint = self.connective()
            if joint is None:
                raise Unreadable("a set builder that does not end")
            joints.append(joint)
            conditions.append(self.item())
        self.take()
        result = conditions[0] if not joints else _conjunction(conditions, joints)
        if bound.head == "rel" and bound.value == "in":
            named = bound.args[1]
            return result if named.value == "R" else node("and", bound, result)
        if bound.head != "sym":
            raise Unreadable("a set builder over a formula")
        return result

    def definition(self) -> Expr | None:
        """`f(x) = ...`, `f: x -> ...`, `x \\mapsto ...`: a function with its variables bound."""
        texts = [token.text for token in self.tokens]
        if any(token.kind in ("cmd", "op") and token.text in ("mapsto", "to", "->") for token in self.tokens):
            return self.arrow_definition()
        if "(" not in texts[1:8] or ")" not in texts or texts[0][:1] == "P":
            return None
        start, close = texts.index("("), texts.index(")")
        inside = self.tokens[start + 1 : close]
        if not all(text in ("'", "^", "{", "}", "-", "1", "_") or text.isalnum() for text in texts[1:start]):
            return None
        names, commas = inside[::2], inside[1::2]
        is_bound = all(_is_name(token) for token in names) and all(token.text == "," for token in commas)
        if not (
            _is_name(self.peek())
            and names
            and is_bound
            and len(inside) % 2 == 1
            and texts[close + 1 : close + 2] == ["="]
        ):
            return None
        if start > 1 and texts[1] not in ("'", "^", "_"):
            return None
        self.position = close + 2
        body = self.expression()
        while self.accept("="):
            body = self.expression()
        return Expr("lambda", (*(sym(token.text) for token in names), body), "".join(texts[:start]))

    def arrow_definition(self) -> Expr:
        name = ""
        if self.peek(1).text == ":" and self.peek().kind == "word":
            name = self.take().text
            self.take()
        parameter = self.expression()
        parameters = parameter.args if parameter.head == "tuple" else (parameter,)
        if any(part.head != "sym" for part in parameters) or not self.accept("mapsto", "to", "->"):
            raise Unreadable("an arrow that defines no function")
        return Expr("lambda", (*parameters, self.expression()), name)


def _is_name(token: Token) -> bool:
    """A variable: one letter that is no constant, or a greek name."""
    if token.kind == "cmd":
        return token.text in GREEK
    return token.kind == "word" and len(token.text) == 1 and token.text not in "ei"


def _joined(items: list[Expr], joints: list[str]) -> Expr:
    if not joints:
        return items[0]
    if len(items) == 2 and _is_index(items[1]) and items[0].head != "rel":
        return Expr("lambda", (items[1].args[0], items[0]), "Z")  # k pi, k in Z: the name k is free
    if any(_is_condition(item) for item in items):
        return _conjunction(items, joints)
    return node("list", *items, value="or" if "or" in joints else "and" if set(joints) == {"and"} else None)


def _is_index(item: Expr) -> bool:
    """k in Z."""
    return (
        item.head == "rel" and item.value == "in" and item.args[0].head == "sym" and item.args[1].value == "Z"
    )


def _is_condition(item: Expr) -> bool:
    if item.head == "chain":
        return any(link.value in _INEQUALITIES for link in item.args)
    return item.head in ("and", "or") or (item.head == "rel" and item.value in _INEQUALITIES)


def _conjunction(items: list[Expr], joints: list[str]) -> Expr:
    """Items joined by "or" are alternatives; those joined by "and" or a comma hold together.

    `x < 2, x > 3` is a contradiction read literally; a comma between one-sided bounds that
    exclude each other therefore stays a plain list, which no condition equals.
    """
    groups: list[list[Expr]] = [[items[0]]]
    for item, joint in zip(items[1:], joints, strict=True):
        if joint == "or":
            groups.append([item])
        else:
            groups[-1].append(item)
    parts = [group[0] if len(group) == 1 else node("and", *group) for group in groups]
    return parts[0] if len(parts) == 1 else node("or", *parts)
