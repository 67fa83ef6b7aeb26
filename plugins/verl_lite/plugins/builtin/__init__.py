"""The rewards that come with verl-lite, registered through the same entry points as everyone else's."""
