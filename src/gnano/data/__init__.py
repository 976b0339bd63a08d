"""The data room: documents -> token shards -> the order -> batches."""
