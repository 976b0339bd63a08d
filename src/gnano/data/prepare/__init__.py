"""Preparation of data folders: from documents to token shards."""
