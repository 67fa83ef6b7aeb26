"""A run beyond one process: Ray places learner ranks, vLLM engines and reward workers."""
