"""Trajectories of several turns: token-exact rendering, tool calls in the model's text, the loop of turns."""
