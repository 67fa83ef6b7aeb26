"""Measuring models: greedy and sampled answers over data sets, and whether two models really differ."""
