"""`python -m verl_lite.cli`, for torchrun and accelerate."""

from verl_lite.cli import main

main()
