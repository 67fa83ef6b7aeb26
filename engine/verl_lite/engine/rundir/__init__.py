"""The folder of a run: who holds it, its checkpoints, its environment; how a run is stopped and resumed."""
