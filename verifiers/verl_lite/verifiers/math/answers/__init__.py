"""The types of answers: one file per type, with how it is read and how two of them are compared.

From text (answer.py): datetimes, words, choices, quantities (with units.py), texts, plain_numbers.
From the tree that grammar.py reads (trees.py): values (with same_value.py and rounding.py), collections,
vectors, real_sets, ratios, congruences, functions, assignments, equations.
The tables of compare.py say which type is asked first.
"""
