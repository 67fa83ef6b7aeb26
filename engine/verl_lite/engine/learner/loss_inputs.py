"""What the objective reads of a micro-batch: the samples' lists as flat tensors, and the policy's outputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from verl_lite.engine.algorithm.losses import LossInput
from verl_lite.engine.algorithm.objective import Terms
from verl_lite.engine.learner.chosen import read_teachers
from verl_lite.engine.learner.packing import PackedBatch, token_column
from verl_lite.engine.learner.policy import Policy
from verl_lite.engine.types import OF_TEACHERS, ComponentName, TrainingSample

Weights = Mapping[ComponentName, Sequence[float]]  # of each sample's tokens, by component


def loss_inputs(
    policy: Policy, micro: PackedBatch, samples: Sequence[TrainingSample], weights: Weights
) -> tuple[LossInput, Terms]:
    """Run the policy on `micro`, whose samples are `samples` in this order.

    Where a sample has no values of a kind, and needs none, it has zeros; where one that needs them has none,
    nobody has (None).
    """
    teacher = read_teachers(samples)
    student_NK: Tensor | None = None
    if teacher is None or teacher.ids_TK is None:
        logprobs_N, entropy_N = policy.logprobs_and_entropy(micro)
    else:
        logprobs_N, entropy_N, student_NK = policy.logprobs_and_chosen(
            micro, teacher.ids_TK, is_complete=teacher.is_complete
        )
    flat = _Flat(samples, logprobs_N, micro.sequence_N.to(logprobs_N.device))
    old_N = flat.known([sample.old_logprobs_T for sample in samples])
    batch = LossInput(
        logprobs_N=logprobs_N,
        old_logprobs_N=logprobs_N.detach() if old_N is None else old_N,
        advantages_N=flat.filled([sample.advantages_T for sample in samples]),
        mask_N=flat.filled([sample.loss_mask_T for sample in samples]),
        sequence_N=flat.sequence_N,
        num_sequences=len(samples),
    )
    terms = Terms(
        weights={
            name: flat.weights(name, of) for name, of in weights.items() if teacher or name not in OF_TEACHERS
        },
        entropy_N=entropy_N,
        sampler_logprobs_N=flat.known([sample.sampler_logprobs_T for sample in samples]),
        ref_logprobs_N=flat.known([sample.ref_logprobs_T for sample in samples]),
        teacher_NK=None if teacher is None else teacher.logprobs_TK.to(logprobs_N),
        student_NK=student_NK,
        teacher_is_complete=teacher is not None and teacher.is_complete,
    )
    return batch, terms


@dataclass(frozen=True, slots=True)
class _Flat:
    """Lists of the samples as one value per token, with the dtype and device of `like_N`."""

    samples: Sequence[TrainingSample]
    like_N: Tensor
    sequence_N: Tensor

    def filled(self, lists: Sequence[Sequence[float]]) -> Tensor:
        """0 where a sample's list is empty."""
        pairs = zip(lists, self.samples, strict=True)
        rows = (values_T or [0.0] * len(sample.completion_ids) for values_T, sample in pairs)
        return token_column(rows, self.like_N)

    def known(self, lists: Sequence[Sequence[float]]) -> Tensor | None:
        """None if a sample with tokens in the policy's loss lacks values."""
        pairs = zip(lists, self.samples, strict=True)
        if all(len(values_T) == len(s.completion_ids) for values_T, s in pairs if s.is_in_policy):
            return self.filled(lists)
        return None

    def weights(self, name: ComponentName, per_sample: Sequence[float]) -> Tensor:
        weights_S = token_column([per_sample], self.like_N)
        return weights_S[self.sequence_N] * self.filled([sample.component(name) for sample in self.samples])
