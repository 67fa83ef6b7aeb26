"""Equality of expressions: exact normal forms, floats that refute, and what sympy is asked."""
