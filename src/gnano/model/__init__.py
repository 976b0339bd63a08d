"""The transformer, its parts, its files and its costs."""
