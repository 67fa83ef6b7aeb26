"""The frozen configuration of a training run, and every check that needs nothing but the config.

Importing it never imports torch, and no config reads the environment or the file system.
"""
