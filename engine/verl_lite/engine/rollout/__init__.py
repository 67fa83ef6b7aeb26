"""From prompts to scored batches: samplers, the canary that checks their weights, batch sources."""
