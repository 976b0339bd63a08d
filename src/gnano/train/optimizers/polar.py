"""Orthogonalizes matrices: the nearest one, U Vᵀ of X = U S Vᵀ, by matrix products alone.

An odd polynomial of a matrix acts on its singular values and leaves U and V as they are:

    a X + b (X Xᵀ) X + c (X Xᵀ)² X  =  U (a S + b S³ + c S⁵) Vᵀ

A few in a row bring every singular value of [0.001, 1] near to 1. The coefficients are those of
Polar Express (Amsel et al. 2025, https://arxiv.org/abs/2505.16932, algorithm 1), the best
composition there is for that interval; they replace the fixed ones of Newton–Schulz.
"""

import torch
from torch import Tensor

POLAR_EXPRESS_COEFFICIENTS = (
    (8.287212, -23.595887, 17.300387),
    (4.107059, -2.947850, 0.544843),
    (3.948691, -2.908902, 0.551819),
    (3.318420, -2.488488, 0.510049),
    (2.300652, -1.668904, 0.418807),
    (1.891301, -1.267996, 0.376804),
    (1.875001, -1.250002, 0.375000),
    (1.875, -1.25, 0.375),
)
# each polynomial but the last is for values a little beyond 1, where bf16 may round them to
SAFETY_FACTOR = 1.01


def orthogonalize(x_NRC: Tensor, steps: int = 5) -> Tensor:
    """N matrices [R, C] with their singular values brought to about 1, in the dtype of `x_NRC`.

    A matrix of zeros stays one.
    """
    tall = x_NRC.shape[1] > x_NRC.shape[2]
    x = x_NRC.mT if tall else x_NRC  # the products with the Gram matrix are of the short side
    wide = torch.promote_types(x.dtype, torch.float32)
    norm_N11 = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True, dtype=wide)
    # the largest singular value is at most the norm; 2 %: bf16 rounds the norm as well
    x = x / (norm_N11 * 1.02).clamp_min(1e-30).to(x.dtype)
    for number, (a, b, c) in enumerate(POLAR_EXPRESS_COEFFICIENTS[:steps]):
        if number < len(POLAR_EXPRESS_COEFFICIENTS) - 1:
            a, b, c = a / SAFETY_FACTOR, b / SAFETY_FACTOR**3, c / SAFETY_FACTOR**5
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
