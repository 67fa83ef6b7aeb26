"""Data sets in: rows become prompts, in an order that resumes exactly; and what is wrong with the rows.

`answers`, `quality` and `page` import without torch.
"""
