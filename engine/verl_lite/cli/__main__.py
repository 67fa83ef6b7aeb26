"""`python -m verl_lite.cli`, which is what torchrun and accelerate start."""

from verl_lite.cli import main

main()
