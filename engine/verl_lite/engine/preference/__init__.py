"""Training on preferences: DPO and reward models, one loop for both."""
