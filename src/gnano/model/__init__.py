"""The model room: the transformer, its shape and its arithmetic.

Shape, arithmetic and the table of GPUs need no torch; the rest loads it when first asked for.
"""
