from .fakes import FakeSampler as FakeSampler, SlowedLearner as SlowedLearner
