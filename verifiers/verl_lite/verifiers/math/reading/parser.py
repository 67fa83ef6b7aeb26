"""Tokens -> expression tree: a Pratt parser for LaTeX, plain and unicode notation alike.

Reading decisions: "2\\frac{1}{3}" and "2 1/3" are mixed numbers; `\\frac12` takes single digits;
"sin 2x" takes the product; f, g, h, P before "(" are functions, other letters are factors;
"1/2x" is (1/2)x. What it cannot read raises Unreadable; nothing is evaluated.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from verl_lite.verifiers.math.expressions import Expr, Unreadable, call, neg, node, num, sym
from verl_lite.verifiers.math.reading.cursor import Cursor
from verl_lite.verifiers.math.reading.names import FUNCTIONS, GREEK, letter, math_name, split_word
from verl_lite.verifiers.math.reading.numerals import in_base, is_fraction, mixed, ways
from verl_lite.verifiers.math.reading.tokens import Token

MAX_DEPTH = 60
MAX_STEPS = 20_000  # of one parser; a grammar that reads each token a few times needs under 8 per token
UNION, INTERSECT, SUM, PRODUCT, SIGN, POWER, POSTFIX = 5, 7, 10, 20, 25, 30, 35
_CLOSERS = {"(": (")", "]"), "[": ("]", ")"), "\\{": ("\\}",), "{": ("}",)}
_SET_OPERATORS = {"cup": ("union", UNION), "setminus": ("minus", UNION), "cap": ("intersect", INTERSECT)}
_DIVIDING = {"over": "div", "choose": "binom"}
_STARTS = frozenset(
    "frac sqrt usqrt binom pi infty lfloor lceil vert overline bar mathbb langle begin emptyset circ lbrace "
    "angle triangle partial nabla sum prod int lim".split()
)


class ExpressionParser(Cursor):
    """One pass over `tokens`. The grammar of whole answers adds relations and lists on top.

    `commands` maps the name of a command or function to what reads it.
    """

    commands: ClassVar[Mapping[str, Callable[["ExpressionParser"], Expr]]] = {}

    def __init__(self, tokens: Sequence[Token]) -> None:
        super().__init__(tokens)
        self.depth = 0
        self.steps = 0
        self.open_bars = 0

    # Pratt core

    def expression(self, binding: int = 0, *, left: Expr | None = None) -> Expr:
        """What binds tighter than `binding`; `left` is its first operand where that has been read."""
        self.descend()
        left = self.prefix() if left is None else left
        while True:
            following = self.infix(left, binding)
            if following is None:
                break
            left = following
        self.depth -= 1
        return left

    def descend(self) -> None:
        """One level deeper; raises Unreadable before Python's stack is full, or past the budget."""
        self.depth += 1
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise Unreadable(f"more than {MAX_STEPS} steps to read")
        if self.depth > MAX_DEPTH:
            raise Unreadable(f"nested deeper than {MAX_DEPTH}")

    def infix(self, left: Expr, binding: int) -> Expr | None:
        token = self.peek()
        text = token.text
        if token.kind in ("op", "cmd"):
            head, level = _SET_OPERATORS.get(text, ("", 0))
            if binding < level:
                self.take()
                return node(head, left, self.expression(level))
            if binding < SUM and text == "-" and left.head in ("named", "interval", "union"):
                self.take()
                return node("minus", left, self.expression(SUM))
            if binding < SUM and text in ("+", "-", "pm", "mp"):
                return self.sum(left)
            if binding < PRODUCT and text in ("*", "/", "cdot", "times", "div"):
                return self.product(left)
            if binding < POWER and text in ("^", "**"):
                return self.power(left)
            if binding < POSTFIX and text in ("!", "%"):
                self.take()
                if text == "!" and self.at("!") and not self.peek().spaced:
                    self.take()
                    return call("fact2", left)
                return node("fact" if text == "!" else "percent", left)
            if text == "_" and left.head == "sym" and "_" not in left.name:  # {g}_{k}
                self.take()
                return sym(f"{left.name}_{self.subscript()}")
            if text == "bmod" and binding < PRODUCT and not self.has_relation():
                self.take()
                return call("mod", left, self.expression(PRODUCT))
            if text in _DIVIDING and binding == 0:  # \over and \choose take the whole group
                self.take()
                return node(_DIVIDING[text], left, self.expression())
        if binding < PRODUCT and self.starts_factor() and not self.at_another_number(left):
            return self.juxtaposed(left)
        return None

    def has_relation(self) -> bool:
        """Whether a relation stands before: n = 3 mod 5 is a congruence."""
        return any(token.text in ("=", "equiv") for token in self.tokens[: self.position])

    def sum(self, left: Expr) -> Expr:
        text = self.take().text
        if text == "+" and self.at("-") and self.peek(1).kind == "op":
            self.take()  # "+-" is plus a negative; plus-minus is only \pm
            return node("add", left, neg(self.expression(SUM)))
        right = self.expression(SUM)
        if text in ("pm", "mp"):
            return node("pm", left, right, value="+-" if text == "pm" else "-+")
        return node("add", left, right if text == "+" else neg(right))

    def product(self, left: Expr) -> Expr:
        head = "div" if self.take().text in ("/", "div") else "mul"
        return node(head, left, self.expression(PRODUCT))

    def power(self, left: Expr) -> Expr:
        self.take()
        if self.accept("circ"):
            return node("deg", left)
        if self.at("{") and self.peek(1).text == "circ" and self.peek(2).text == "}":
            self.position += 3
            return node("deg", left)
        if self.peek().kind == "num" and self.peek(1).text == "_" and left.head == "sym":
            exponent = self.take().expr or left  # v^2_0
        else:
            exponent = self.group() if self.at("{") else self.expression(SIGN)
        if self.at("_") and left.head == "sym" and "_" not in left.name:
            self.take()
            left = sym(f"{left.name}_{self.subscript()}")
        return self.counted(left, exponent) or node("pow", left, exponent)

    def counted(self, left: Expr, exponent: Expr) -> Expr | None:
        """C_5^2 and A_5^2 with numbers: combinations and arrangements, as many textbooks write them."""
        letter, _, total = left.name.partition("_")
        return ways(letter, [num(int(total[:6])), exponent]) if total.isdigit() else None

    def juxtaposed(self, left: Expr) -> Expr:
        """`left` and what follows without a sign: a mixed number or a product."""
        before, first = self.peek(-1), self.peek()
        literal = before.kind == "num" and left.head == "num"
        fresh = literal and left.places < 0 and left.fraction.denominator == 1
        if fresh and first.text == "frac":
            right = self.prefix()
            is_proper = is_fraction(right) and right.args[0].fraction < right.args[1].fraction
            if is_proper and not self.at("^", "**"):
                return mixed(left, right)
            return node("mul", left, self.expression(PRODUCT, left=right))
        if first.kind == "num":
            if fresh and first.spaced and self.peek(1).text == "/" and self.peek(2).kind == "num":
                top, bottom = first.expr, self.peek(2).expr
                fraction = node("div", top, bottom) if top is not None and bottom is not None else left
                if is_fraction(fraction):
                    self.position += 3
                    return mixed(left, fraction)
            if before.kind == "num" and (left.is_number or self.peek(-2).text == "/" or not first.spaced):
                raise Unreadable("two numbers side by side")
            return node("mul", left, self.expression(PRODUCT))
        is_power_of_ten = self.peek(1).text == "10" and self.peek(2).text in ("^", "**")
        if literal and first.text in ("x", "X") and is_power_of_ten:
            self.take()  # 3x10^8
        return node("mul", left, self.expression(PRODUCT))

    def at_another_number(self, left: Expr) -> bool:
        """Whether a plain number follows a plain number: 2 3, but not the mixed number 2 1/3."""
        token, before = self.peek(), self.peek(-1)
        is_mixed = self.peek(1).text == "/" and self.peek(2).kind == "num" and token.spaced
        return token.kind == before.kind == "num" and left.is_number and not is_mixed

    def starts_factor(self) -> bool:
        """Whether the next token can begin a factor written without a multiplication sign."""
        token = self.peek()
        if token.kind == "num":
            return True
        if token.kind == "word":
            return not self.is_connective(token)
        if token.text in ("|", "vert"):
            return self.open_bars == 0
        if token.kind == "cmd":
            known = token.text in _STARTS or token.text in FUNCTIONS or token.text in GREEK
            return known or token.text.startswith("board")
        if token.kind == "text":
            return math_name(token.text) is not None
        if token.text == "(":
            return self.peek(1).text not in ("mod", "bmod", "pmod")
        return token.text in ("[", "{", "\\{")

    @staticmethod
    def is_connective(token: Token) -> bool:
        return token.kind in ("word", "text") and token.text.lower().strip(" ,") in (
            "and", "or", "where", "with", "for", "if", "when", "union", "intersection", "in", "is",
            "to", "such",
        )  # fmt: skip

    # prefix forms

    def prefix(self) -> Expr:
        token = self.take()
        if token.kind == "num":
            assert token.expr is not None
            return self.based(token) if self.at("_") else token.expr
        if token.kind == "word":
            return self.word(token.text)
        if token.kind == "text":
            return self.text(token.text)
        if token.kind == "cmd":
            return self.command(token.text)
        return self.operator(token.text)

    def operator(self, text: str) -> Expr:
        if text == "-":
            if self.at("-"):
                raise Unreadable("two signs in a row")
            return neg(self.expression(SIGN))
        if text == "+":
            return self.expression(SIGN)
        if text == "{":
            items, _ = self.items(("}",))
            if not items:
                raise Unreadable("an empty group")
            return items[0] if len(items) == 1 else node("set", *items)
        if text in ("(", "["):
            return self.bracket(text)
        if text == "\\{":
            return self.braces()
        if text == "|":
            return self.absolute("|")
        raise Unreadable(f"unexpected {text!r}" if text else "it ends in the middle")

    def group(self) -> Expr:
        """A LaTeX group `{...}`, which shows no bracket."""
        self.expect("{")
        bars, self.open_bars = self.open_bars, 0
        inner = self.expression()
        self.open_bars = bars
        self.expect("}")
        return inner

    def argument(self) -> Expr:
        r"""What `\frac` and `\sqrt` take: a group, one digit, one letter or one command."""
        token = self.peek()
        if token.text == "{":
            return self.group()
        if token.kind == "num" and len(token.text) > 1 and token.text.isdigit():
            digit, rest = token.text[0], token.text[1:]
            self.tokens[self.position] = Token("num", rest, False, num(int(rest)))
            return num(int(digit))
        if token.kind == "word" and len(token.text) == 1 and self.peek(1).kind == "num":
            self.take()  # \frac x2: the digit is the other argument
            return letter(token.text)
        if token.kind == "word" and len(token.text) > 1:
            self.tokens[self.position] = Token("word", token.text[1:])
            return self.word(token.text[0])
        self.descend()
        inner = self.prefix()
        self.depth -= 1
        return inner

    def bracket(self, opener: str) -> Expr:
        """( ) and [ ]: a grouped expression, a tuple, an interval or a list."""
        items, closer = self.items(_CLOSERS[opener])
        if len(items) == 1 and opener == "(" and closer == ")":
            return items[0]
        if len(items) == 1 and opener == "[" and closer == "]":
            return items[0] if items[0].head not in ("rel", "tuple") else node("row", *items)
        if len(items) == 2 and (opener + closer) != "()":
            return node("interval", *items, value=opener + closer)
        if opener + closer in ("()", "[]"):
            return node("tuple" if opener == "(" else "row", *items)
        raise Unreadable("brackets that do not match")

    def items(self, closers: tuple[str, ...]) -> tuple[list[Expr], str]:
        bars, self.open_bars = self.open_bars, 0
        items: list[Expr] = []
        if not self.at(*closers):
            items.append(self.item())
            while self.accept(",", ";"):
                items.append(self.item())
        self.open_bars = bars
        return items, self.expect(*closers)

    def item(self) -> Expr:
        """One member inside brackets; AnswerParser reads relations here too."""
        return self.expression()

    def braces(self) -> Expr:
        items, _ = self.items(("\\}", "rbrace"))
        return node("set", *items) if items else node("named", value="empty")

    def absolute(self, closer: str) -> Expr:
        self.open_bars += 1
        inner = self.expression()
        self.open_bars -= 1
        self.expect(closer, "|", "vert")
        return node("abs", inner)

    # names

    def word(self, word: str) -> Expr:
        parts = split_word(word)
        if parts is None:
            raise Unreadable(f"the word {word!r}")
        self.tokens[self.position : self.position] = [
            Token("cmd", part) if isinstance(part, str) else Token("word", part.name) for part in parts[1:]
        ]
        first = parts[0]
        return self.command(first) if isinstance(first, str) else self.symbol(first)

    def symbol(self, symbol: Expr) -> Expr:
        """A letter with its subscript and primes, and its arguments where it names a function."""
        name = symbol.name
        following = self.peek()
        if following.kind == "num" and not following.spaced and len(name) == 1 and following.text.isdigit():
            exponent = self.peek(2)
            is_factor = self.peek(1).text in ("^", "**") and not (
                exponent.kind == "num" and exponent.text < "3"
            )
            if not is_factor and symbol.head == "sym":  # x1 is the first x, N2^{-N} a product
                name += "_" + self.take().text
        if self.at("_"):
            self.take()
            name += "_" + self.subscript()
        while self.at("'"):
            self.take()
            name += "'"
        symbol = symbol if name == symbol.name else sym(name)
        if self.at("(") and not self.peek().spaced and self._is_called(name):
            self.take()
            items, _ = self.items((")",))
            return ways(name, items) or Expr("call", tuple(items), name)
        return symbol

    def _is_called(self, name: str) -> bool:
        """Whether the bracket behind a letter holds its arguments: f(x + 1), T(10), y(0), but not n(2)."""
        letter = name.rstrip("'")
        if letter[:1] in tuple("fghFGP"):
            return True
        argument, closing = self.peek(1), self.peek(2)
        if letter == "C" and argument.kind == "num" and closing.text == "," and self.peek(4).text == ")":
            return True
        if closing.text != ")" or argument.kind not in ("num", "word") or letter[:1] == "\\":
            return False
        if len(letter) > 1 and "_" not in letter:
            return False
        is_upper = letter[:1].isupper() and (argument.kind == "num" or len(argument.text) == 1)
        return is_upper or argument.text == "0" or (argument.kind == "num" and self.peek(3).text == "=")

    def subscript(self) -> str:
        token = self.take()
        if token.kind in ("num", "word", "cmd", "text"):
            return token.text
        if token.text != "{":
            raise Unreadable("a subscript without a name")
        parts = []
        while not self.at("}"):
            if self.is_done() or self.at("{"):
                raise Unreadable("an unfinished subscript")
            parts.append(self.take().text)
        self.take()
        return "".join(parts).strip("()")

    def text(self, text: str) -> Expr:
        name = math_name(text)
        if name is None:
            raise Unreadable(f"the words {text!r}")
        return self.word(name)

    def based(self, token: Token) -> Expr:
        """1010_2, 1F_{16}: digits in a base."""
        self.take()
        return in_base(token.text, self.subscript().lower())

    def command(self, name: str) -> Expr:
        if name in GREEK:
            return self.symbol(sym(name))
        read = self.commands.get(name)
        if read is None:
            raise Unreadable(f"the command \\{name}")
        return read(self)
