"""Fakes to test and measure with: engines without a model, and a learner that can be slowed down."""
