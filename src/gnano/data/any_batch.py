"""What a step computes: a batch of texts or answers, or one of pairs of answers."""

from gnano.data.batches import Batch
from gnano.data.instructions.preference_batch import PreferenceBatch

AnyBatch = Batch | PreferenceBatch
