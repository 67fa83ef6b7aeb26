"""A position in a list of tokens."""

from collections.abc import Sequence

from verl_lite.verifiers.math.expressions import Unreadable
from verl_lite.verifiers.math.reading.tokens import Token

END = Token("op", "")


class Cursor:
    """What a recursive parser needs of its tokens; `position` is that of the next one."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self.tokens = list(tokens)
        self.position = 0

    def peek(self, ahead: int = 0) -> Token:
        index = self.position + ahead
        return self.tokens[index] if index < len(self.tokens) else END

    def take(self) -> Token:
        token = self.peek()
        self.position += 1
        return token

    def at(self, *texts: str) -> bool:
        token = self.peek()
        return token.kind in ("op", "cmd") and token.text in texts

    def accept(self, *texts: str) -> bool:
        if self.at(*texts):
            self.position += 1
            return True
        return False

    def expect(self, *texts: str) -> str:
        if not self.at(*texts):
            raise Unreadable(f"expected {' or '.join(texts)}, got {self.peek().text!r}")
        return self.take().text

    def is_done(self) -> bool:
        return self.position >= len(self.tokens)
