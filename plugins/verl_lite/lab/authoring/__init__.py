"""For people who write rewards: start a package (template), describe a reward, check it (checks).

Imports nothing: worker processes load purity.py, and should load no more.
"""
