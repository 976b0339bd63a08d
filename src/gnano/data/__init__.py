"""Training data: readers, token shards, the sample order and batches."""
