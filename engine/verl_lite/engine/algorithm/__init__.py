"""The mathematics of an update: advantages, policy losses, KL, importance weights and the objective."""
