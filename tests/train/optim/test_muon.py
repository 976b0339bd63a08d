"""Muon against its formula and against a singular value decomposition, on one and many ranks."""

import pytest
import torch
from tests.ranks import on_ranks
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from gnano.config.train_config import OptimizerConfig
from gnano.model.transformer import GPT
from gnano.train.optim import muon as muon_module
from gnano.train.optim.muon import orthogonalize
from gnano.train.optim.optimizer import Optimizer

# widths that 4 ranks cannot share evenly: 18 rows are 5, 5, 5, 3; of 6 rows the last has none
SHAPE = dict(
    vocab_size=130, n_embd=18, n_layer=3, n_head=3, n_kv_head=1, ffn_hidden=22, block_size=8
)
STEPS = 3


def polar_factor(x: Tensor) -> Tensor:
    u, _, vt = torch.linalg.svd(x.double(), full_matrices=False)
    product: Tensor = u @ vt
    return product


@pytest.mark.parametrize("shape", [(1, 1), (7, 40), (40, 7), (64, 320), (96, 96)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_orthogonalize_brings_singular_values_near_one(shape, dtype):
    torch.manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(3, n, n))[0] for n in shape)
    short = min(shape)
    values = torch.logspace(0, -1.5, short)  # a factor of 30 between the first and the last
    x = left[:, :, :short] @ (values[:, None] * right[:, :short, :])
    o = orthogonalize((x * 1e-4).to(dtype)).double()
    s = torch.linalg.svdvals(o)
    assert s.min() > 0.8 and s.max() < 1.2
    cosine = torch.nn.functional.cosine_similarity(o.flatten(1), polar_factor(x).flatten(1))
    assert cosine.min() > 0.98


def test_more_iterations_converge_to_the_polar_factor():
    torch.manual_seed(0)
    x = torch.randn(2, 12, 20, dtype=torch.float64)
    torch.testing.assert_close(orthogonalize(x, steps=8), polar_factor(x), atol=1e-5, rtol=0)


def test_a_matrix_does_not_depend_on_its_batch_and_zeros_stay_zero():
    torch.manual_seed(0)
    x = torch.randn(3, 12, 20, dtype=torch.float64)
    x[1] = 0
    together = orthogonalize(x)
    assert not together[1].any()
    torch.testing.assert_close(together[2:], orthogonalize(x[2:]))


def new_model(dtype: torch.dtype = torch.float32) -> GPT:
    torch.manual_seed(0)
    return GPT(**SHAPE).to(dtype)


def full_gradients(step: int) -> dict[str, Tensor]:
    """Return gradients that are the same on every rank."""
    torch.manual_seed(100 + step)
    return {name: torch.randn_like(p) for name, p in new_model().named_parameters()}


def well_conditioned(x: Tensor) -> Tensor:
    """Convert to fp64, with singular values that a few iterations bring to 1 exactly."""
    return x.double() if x.dim() == 1 else 0.2 * x.double() + 2 * torch.eye(*x.shape).double()


def test_two_steps_equal_the_formula():
    model = new_model(torch.float64)
    config = OptimizerConfig(kind="muon", momentum=0.9, weight_decay=0.4, ns_steps=8)
    optimizer = Optimizer(model, config)
    parameters = dict(model.named_parameters())
    names = [n for n, p in parameters.items() if n.startswith("model.layers") and p.dim() == 2]
    assert len(names) == 3 * 7
    expected = {name: parameters[name].detach().clone() for name in names}
    m = {name: torch.zeros_like(w) for name, w in expected.items()}
    for step, (lr, remaining) in enumerate([(0.01, 1.0), (0.02, 0.25)]):
        gradients = {name: well_conditioned(g) for name, g in full_gradients(step).items()}
        for name, p in parameters.items():
            p.grad = gradients[name] / 3
        optimizer.step(lr, remaining, grad_divisor=torch.tensor(1 / 3))
        for name, w in expected.items():
            g = gradients[name]
            m[name] = 0.9 * m[name] + 0.1 * g
            o = polar_factor(0.9 * m[name] + 0.1 * g) * 0.2 * max(w.shape) ** 0.5
            is_shrinking = torch.sign(o) == torch.sign(w)
            expected[name] = w - lr * o - lr * 0.4 * remaining * torch.where(is_shrinking, w, 0)
    for name, w in expected.items():
        torch.testing.assert_close(parameters[name].detach(), w, atol=2e-7, rtol=0)


def test_an_update_is_as_large_as_adamws():
    model = new_model()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = Optimizer(model, OptimizerConfig(kind="muon", weight_decay=0.0))
    for name, p in model.named_parameters():
        p.grad = full_gradients(0)[name]
    optimizer.step(1.0)
    for name, p in model.named_parameters():
        if "proj" in name:
            rms = (p.detach() - before[name]).square().mean().sqrt()
            assert 0.15 < rms < 0.25  # AdamW's, in the middle of a run: 0.2 to 0.4 (Moonlight)


def shard_like(full: Tensor, like: Tensor) -> Tensor:
    if isinstance(like, DTensor):
        return distribute_tensor(full, like.device_mesh, like.placements)
    return full.clone()


def train_steps(strategy: str, batch_elements: int, bf16: bool) -> dict[str, Tensor]:
    """Take some steps with a distributed model; return its full weights and optimizer state."""
    muon_module.BATCH_ELEMENTS = batch_elements
    model = new_model()
    if bf16:
        model.compute_dtype = torch.bfloat16
    mesh = None
    if strategy == "fsdp":
        mesh = init_device_mesh("cpu", (torch.distributed.get_world_size(),))
    elif strategy == "hsdp":
        mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("copy", "shard"))
    if mesh is not None:
        for block in model.model.layers:
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
    parameters = dict(model.named_parameters())
    assert all(isinstance(p, DTensor) == (mesh is not None) for p in parameters.values())
    optimizer = Optimizer(model, OptimizerConfig(kind="muon"))
    for step in range(STEPS):
        for name, gradient in full_gradients(step).items():
            parameters[name].grad = shard_like(gradient, parameters[name])
        skip = torch.tensor(float(step == 1))
        optimizer.step(0.02, 1 - step / STEPS, torch.tensor(2.0), skip)
        optimizer.zero_grad()
    tensors = {**parameters, **optimizer.state}
    return {
        name: (t.full_tensor() if isinstance(t, DTensor) else t).detach().clone()
        for name, t in tensors.items()
    }


MANY, FEW = 2**26, 1  # elements of a batch; with 1, as few matrices as there are ranks
STRATEGIES = {2: [("ddp", MANY), ("fsdp", MANY)], 4: [("ddp", FEW), ("fsdp", FEW), ("hsdp", MANY)]}
PRECISIONS = {"fp32": False, "bf16": True}


def train_with_each_strategy() -> dict[tuple[str, int, str], dict[str, Tensor]]:
    """Use one process group for all of them, because starting the ranks takes longer."""
    strategies = STRATEGIES[torch.distributed.get_world_size()]
    return {
        (*strategy, precision): train_steps(*strategy, bf16)
        for strategy in strategies
        for precision, bf16 in PRECISIONS.items()
    }


@pytest.mark.ranks
@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 4])
def test_several_ranks_take_the_steps_of_a_single_one(size):
    single = {name: train_steps("single", MANY, bf16) for name, bf16 in PRECISIONS.items()}
    ranks = on_ranks(size, train_with_each_strategy)
    # an element moves by about 0.2 × 0.02 a step, and bf16 keeps 8 bits of that
    tolerance = {"fp32": 2e-6, "bf16": 2e-4}
    for key in ranks[0]:
        precision = key[-1]
        for name, expected in single[precision].items():
            first, *others = (rank[key][name] for rank in ranks)
            assert (first - expected).abs().max() <= tolerance[precision], f"{key}: {name}"
            assert all(torch.equal(other, first) for other in others), f"{key}: ranks differ"
