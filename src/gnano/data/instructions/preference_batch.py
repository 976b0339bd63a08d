"""The loss of DPO on packed pairs of answers: how much likelier the chosen one is to become.

    inputs    p p p a a a │ p p p b b │ …      p prompt, a chosen, b rejected
    targets   · · a a a e │ · · b b e │ …      e end-of-text, · not learned
    pairs     0 0 0 0 0 0 │ 0 0 0 0 0 │ …      of the answers: the pair's number
    signs     0 0 + + + + │ 0 0 − − − │ …

A pair's margin is log p(chosen) − log p(rejected) = −Σ signs · nats. The loss asks that it be
larger than the reference model's: −log σ(β (margin − reference)), summed over the pairs
(Rafailov et al. 2023, https://arxiv.org/abs/2305.18290).
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class PreferenceBatch(NamedTuple):
    inputs_BT: Tensor  # int64
    targets_BT: Tensor  # int64: the answers' tokens; IGNORE elsewhere
    segments_BT: Tensor | None  # int32: two for each pair; None: attention crosses them
    pair_index_BT: (
        Tensor  # int64: number of the pair within the batch where a target counts; else 0
    )
    signs_BT: Tensor  # float32: 1 on the chosen answer's targets, −1 on the rejected one's; else 0
    reference_margins_P: Tensor  # float32: the margins under the reference model
    beta: Tensor  # float32, no dimensions: how much a margin counts

    def map_tensors(self, function: Callable[[Tensor], Tensor]) -> "PreferenceBatch":
        """Return the same batch with `work` done to each tensor."""
        return PreferenceBatch._make(
            None if tensor is None else function(tensor) for tensor in self
        )

    def count_targets(self) -> Tensor:
        """Return how many pairs it has, on its device."""
        return torch.full((), len(self.reference_margins_P), device=self.reference_margins_P.device)

    def compute_margins(self, nll_BT: Tensor) -> Tensor:
        """Return log p(chosen) − log p(rejected) of each pair [P], from all positions' nats."""
        number_P1 = torch.arange(len(self.reference_margins_P), device=nll_BT.device)[:, None]
        signed_N = (self.signs_BT * nll_BT).flatten()
        # not index_add_, which on a GPU adds in an order of chance
        return -torch.where(self.pair_index_BT.flatten() == number_P1, signed_N, 0).sum(1)

    def loss_fn(self, nll_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Return DPO's loss, summed over the pairs, and its derivative by each position's nats."""
        logits_P = self.beta * (self.compute_margins(nll_BT) - self.reference_margins_P)
        loss = -F.logsigmoid(logits_P).sum()
        slopes_P = self.beta * torch.sigmoid(-logits_P)
        # padding is of pair 0, with the sign 0, also where there is no pair
        return loss, F.pad(slopes_P, (0, 1))[self.pair_index_BT] * self.signs_BT
