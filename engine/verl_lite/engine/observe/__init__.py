"""What is seen of a run: metrics, displays, sample tables, timelines, monitors and rollback."""
