"""The products of training on a GPU, computed on a CPU: there they would take separate layers."""

from collections.abc import Sequence

import pytest
import torch

from gnano.model.linear import Linear
from gnano.model.transformer import GPT


@pytest.mark.parametrize("has_bias", [False, True])
def test_projections_as_one_product_give_the_loss_and_gradients_of_separate_ones(
    has_bias, monkeypatch
):
    torch.manual_seed(0)
    sizes = {"vocab_size": 97, "n_embd": 48, "n_layer": 2, "n_head": 4, "n_kv_head": 2}
    model = GPT(**sizes, ffn_hidden=80, block_size=32, attention_bias=has_bias)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    ids_BT = torch.randint(97, (3, 32))

    def loss_and_gradients() -> list[torch.Tensor]:
        model.zero_grad()
        loss = model.loss(ids_BT, ids_BT.roll(-1, dims=1))
        loss.backward()
        return [loss, *(p.grad for p in model.parameters() if p.grad is not None)]

    separate = loss_and_gradients()
    calls: list[int] = []
    multiply = Linear.multiply

    def count(
        x: torch.Tensor, weights: Sequence[torch.Tensor], bias: torch.Tensor | None
    ) -> torch.Tensor:
        calls.append(sum(map(len, weights)))
        return multiply(x, weights, bias)

    monkeypatch.setattr(Linear, "is_mixed", lambda self, x: True)
    monkeypatch.setattr(Linear, "multiply", staticmethod(count))
    for together, one in zip(loss_and_gradients(), separate, strict=True):
        torch.testing.assert_close(together, one, rtol=1e-4, atol=1e-5)
    assert calls == [48 + 24 + 24, 48, 80 + 80, 48] * 2  # rows of the weights of both layers
