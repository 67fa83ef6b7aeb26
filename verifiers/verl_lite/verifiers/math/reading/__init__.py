"""Text to expressions: the answer in a response, one spelling, tokens, a parser. Knows no answer type."""
