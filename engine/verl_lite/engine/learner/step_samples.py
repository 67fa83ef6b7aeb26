"""The samples of one update: which of them are computed, in which mini-batches, and what is added to them."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch

from verl_lite.engine.learner.policy import Policy
from verl_lite.engine.learner.reference import ReferencePolicy
from verl_lite.engine.types import TrainingSample


class StepSamples(list[TrainingSample]):
    """`is_regularised`: a KL or entropy term gives samples without advantages a gradient too."""

    def __init__(self, samples: Sequence[TrainingSample], *, is_regularised: bool) -> None:
        super().__init__(samples)
        self._is_regularised = is_regularised

    def is_active(self, index: int) -> bool:
        """Whether the sample contributes a gradient."""
        sample = self[index]
        if any(any(weights_T) for weights_T in sample.components.values()):
            return True
        return sample.is_in_policy and (self._is_regularised or any(sample.advantages_T))

    @property
    def teaches_sampled_tokens(self) -> bool:
        """Whether some sample with a gradient has tokens of the policy in its loss."""
        return any(any(sample.loss_mask_T) and self.is_active(at) for at, sample in enumerate(self))

    def mini_batches(self, count: int, generator: torch.Generator) -> Iterator[list[int]]:
        """Sample indices per mini-batch: whole groups, reshuffled at each call, as even as groups allow."""
        groups: dict[str, list[int]] = defaultdict(list)
        for index, sample in enumerate(self):
            groups[sample.group or str(index)].append(index)
        members = list(groups.values())
        count = min(count, len(members))
        if count > 1:
            members = [members[at] for at in torch.randperm(len(members), generator=generator).tolist()]
        for part in range(count):
            chunk = members[part * len(members) // count : (part + 1) * len(members) // count]
            yield [index for group in chunk for index in group]

    def add_reference(self, reference: ReferencePolicy, device: torch.device) -> None:
        """The reference's log-probs, for samples in the policy's loss that lack them."""
        needed = [i for i, s in enumerate(self) if s.is_in_policy and not s.ref_logprobs_T]
        if needed:
            found = reference.completion_logprobs([self[i] for i in needed], device=device)
            for index, ref_T in zip(needed, found, strict=True):
                self[index] = replace(self[index], ref_logprobs_T=ref_T)

    def add_old(self, policy: Policy, schedule: Sequence[Sequence[int]]) -> None:
        """Pre-update log-probs for later mini-batches; the first gets its own from its forward pass."""
        needed = {i for members in schedule[1:] for i in members}.difference(*schedule[:1])
        wanted = [i for i in sorted(needed) if self[i].is_in_policy and self.is_active(i)]
        missing = [i for i in wanted if not self[i].old_logprobs_T]
        if missing:
            logprobs = policy.completion_logprobs([self[i] for i in missing])
            self.keep_old(dict(zip(missing, logprobs, strict=True)))

    def keep_old(self, old: Mapping[int, Sequence[float]]) -> None:
        """Add log-probs by sample index where a sample has none."""
        for index, old_T in old.items():
            if not self[index].old_logprobs_T:
                self[index] = replace(self[index], old_logprobs_T=old_T)
