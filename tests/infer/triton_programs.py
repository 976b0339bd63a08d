"""Programs for `test_triton_kernels`, each in a process of its own.

    TRITON_INTERPRET=1 python -m tests.infer.triton_programs products
    TRITON_INTERPRET=1 python -m tests.infer.triton_programs attention
    python -m tests.infer.triton_programs compile 90

The interpreter computes with NumPy, which has no bf16, and is chosen when Triton is imported.
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import torch
import triton
from torch import Tensor

from gnano.infer import triton_kernels as kernels
from gnano.infer.decode_ops import decode_attention, decode_product
from gnano.infer.weight_formats import Int8Linear
from gnano.model.linear import Linear

NEAR = {torch.float32: 2e-6, torch.float16: 2e-3}
DTYPES = {torch.bfloat16: "*bf16", torch.float32: "*fp32", torch.int64: "*i64"}
DTYPES |= {torch.int8: "*i8", torch.uint8: "*u8"}


def matrix(outputs: int, inputs: int, bits: int, dtype: torch.dtype) -> tuple[Tensor, Any]:
    """Return a matrix as it is on a GPU, with its scales."""
    linear = Linear(inputs, outputs).to(dtype)
    if bits == 16:
        return linear.weight.detach(), None
    if bits == 8:
        return (quantized := Int8Linear(linear)).q_OI, quantized.scale_O
    q = torch.randint(256, (outputs, inputs // 2), dtype=torch.uint8)
    return q, torch.randn(inputs // 32, outputs, 2).to(dtype)


def compare_products() -> None:
    """Compare products of one row and of several, of each precision, with the twin."""
    shapes = [(1, 50, 96), (1, 21, 2_080), (2, 48, 96), (5, 35, 320), (40, 16, 64)]
    for rows, outputs, inputs in shapes:
        for dtype in NEAR:
            for bits in (16, 8, 4) if rows == 1 else (8, 4):
                w, scales = matrix(outputs, inputs, bits, dtype)
                fused = [(0, 0, 0), (0, 0, 1), (1, 0, 0), (0, 1, 1)]
                for has_norm, is_gated, has_residual in fused if rows == 1 else fused[:2]:
                    x = torch.randn(rows, inputs * (1 + is_gated)).to(dtype)
                    norm = torch.rand(inputs).to(dtype) if has_norm else None
                    residual = torch.randn(rows, outputs).to(dtype) if has_residual else None
                    arguments = x, w, scales, norm, 1e-5, residual, bool(is_gated)
                    found = kernels.launch_product(*arguments)
                    case = rows, dtype, bits, has_norm, is_gated
                    assert_near(found, decode_product(*arguments), NEAR[dtype], case)


def compare_attention() -> None:
    """Compare attention with the twin; what is beyond a row's position is never read."""
    for heads, kv_heads, size, dtype in [
        (14, 2, 128, torch.float16),
        (4, 2, 16, torch.float32),
        (6, 1, 80, torch.float32),
        (8, 8, 64, torch.float32),
    ]:
        positions = torch.tensor([150, 0, 17, 199])
        B, T = len(positions), 200
        qkv = torch.randn(B, heads + 2 * kv_heads, size).to(dtype)
        cos, sin = (angles := torch.rand(T, size // 2)).cos(), angles.sin()
        caches = [torch.randn(B, kv_heads, T, size).to(dtype) for _ in range(2)]
        expected_caches = [cache.clone() for cache in caches]
        expected = decode_attention(qkv, cos, sin, positions, *expected_caches)
        for row, position in enumerate(positions):
            for cache in caches:
                cache[row, :, position:] = torch.nan
        found = kernels.launch_attention(qkv, cos, sin, positions, *caches)
        assert_near(found, expected, NEAR[dtype], (heads, size))
        for row, position in enumerate(positions):
            for cache, other in zip(caches, expected_caches, strict=True):
                assert_near(cache[row, :, : position + 1], other[row, :, : position + 1], 1e-6, row)
                assert cache[row, :, position + 1 :].isnan().all(), "nothing else is written"


def assert_near(found: Tensor, expected: Tensor, near: float, case: object) -> None:
    error = (found.float() - expected.float()).norm() / expected.float().norm()
    assert error < near, f"{case}: {error}"


def compile_kernels(capability: int) -> None:
    """Compile every kernel as it is launched for the shape `1b`; no register may be spilled."""
    launches: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []

    class Recorder:
        def __init__(self, kernel: Any) -> None:
            self.kernel = kernel

        def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
            assert 0 < grid[0] < 2**31
            return lambda *args, **kwargs: launches.append((self.kernel, args, kwargs))

    for name in ("_matvec", "_matmul", "_attend", "_combine"):
        setattr(kernels, name, Recorder(getattr(kernels, name)))
    with torch.device("meta"):
        for bits, dtype in [(16, torch.bfloat16), (8, torch.int8), (4, torch.uint8)]:
            for rows in (1,) if bits == 16 else (1, 16, 32, 64):
                for inputs, is_gated in [(1_792, False), (5_376, rows == 1), (8_192, False)]:
                    x = torch.empty(rows, inputs * (1 + is_gated), dtype=torch.bfloat16)
                    w = torch.empty(1_792, inputs * min(bits, 8) // 8, dtype=dtype)
                    norm = x[0] if rows == 1 and not is_gated else None
                    residual = torch.empty(rows, 1_792, dtype=x.dtype)
                    kernels.launch_product(x, w, residual, norm, 1e-5, residual, is_gated)
        for heads, kv_heads, size, rows in [(14, 2, 128, 1), (12, 12, 64, 8), (32, 8, 128, 64)]:
            cache = torch.empty(rows, kv_heads, 1_024, size, dtype=torch.bfloat16)
            qkv = torch.empty(rows, heads + 2 * kv_heads, size, dtype=torch.bfloat16)
            table = torch.empty(1_024, size // 2)
            positions = torch.empty(rows, 7, dtype=torch.int64)[:, 1]
            kernels.launch_attention(qkv, table, table, positions, cache, cache)
    assert len({kernel for kernel, _, _ in launches}) == 4
    for kernel, args, options in launches:
        assert_no_spill(kernel, args, options, capability)


def assert_no_spill(
    kernel: Any, args: tuple[Any, ...], options: dict[str, Any], capability: int
) -> None:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature, alignment, constants = {}, {}, {}
    for number, (name, value) in enumerate(zip(kernel.arg_names, args, strict=False)):
        is_tensor = isinstance(value, Tensor)
        scalar = "fp32" if isinstance(value, float) else "i32"
        signature[name] = DTYPES[value.dtype] if is_tensor else scalar
        if is_tensor or (isinstance(value, int) and value % 16 == 0):
            alignment[number,] = [["tt.divisibility", 16]]
    for number, name in enumerate(kernel.arg_names):
        if name in options:
            signature[name], constants[number,] = "constexpr", options.pop(name)
    source = ASTSource(kernel, signature, constants, alignment)
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = dict(re.findall(r"(REG|STACK|LOCAL):(\d+)", usage))
    assert found["STACK"] == found["LOCAL"] == "0", f"{kernel.__name__} spills: {constants} {usage}"


if __name__ == "__main__":
    torch.manual_seed(0)
    if sys.argv[1] == "compile":
        compile_kernels(int(sys.argv[2]))
    else:
        from triton.runtime import interpreter

        patch = interpreter._patch_lang_tensor

        def patch_for_numpy(tensor: Any, scope: Any) -> None:
            patch(tensor, scope)  # NumPy 2.4 converts no array of one number to an int
            scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

        interpreter._patch_lang_tensor = patch_for_numpy
        {"products": compare_products, "attention": compare_attention}[sys.argv[1]]()
