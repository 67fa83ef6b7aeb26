"""The types of answers: one file per type, with how it is read and how two of them are compared."""
