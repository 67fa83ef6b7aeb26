"""Runs untrusted programs. A leaf: knows nothing of rewards."""
