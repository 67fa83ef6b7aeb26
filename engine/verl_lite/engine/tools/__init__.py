"""Commands around training: sample only, diagnose, run a pipeline, export a checkpoint."""
