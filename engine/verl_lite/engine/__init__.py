"""SFT, rollouts, advantages, losses, learner, weight sync, checkpoints."""
