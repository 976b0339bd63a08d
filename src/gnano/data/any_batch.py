"""What a step computes: a batch of texts or answers, or one of pairs of answers."""

from gnano.data.packed_dataset import Batch
from gnano.data.sft.sft_dataset import PreferenceBatch

AnyBatch = Batch | PreferenceBatch
