"""The DPO loss is that of the paper and of trl, and does not depend on the packing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gnano.data.packed_dataset import IGNORE_INDEX
from gnano.data.sft.chat_template import ALPACA, save_template
from gnano.data.sft.conversations import parse_preference
from gnano.data.sft.encoding import encode_preference
from gnano.data.sft.sft_dataset import PreferenceBatch, PreferenceDataset
from gnano.model.hf_io import save_model
from gnano.model.transformer import GPT
from gnano.tokenizer.bpe import Tokenizer
from gnano.tokenizer.train_bpe import train_bpe

T, BETA = 512, 0.3
RECORDS = [
    ("Where is it?", "Here.", "I can not say where it is, nor who would."),
    ("Who was it?", "It was the old man, and nobody else.", "Me."),
    ("What is the name of the place?", "The place has no name.", "It is here."),
    ("Why?", "Because.", "Why not?"),
    ("How many are there?", "There are 7 of them.", "There are many of them."),
]
SYSTEM = {"role": "system", "content": "Say it."}


def record(question: str, chosen: str, rejected: str) -> dict[str, Any]:
    prompt = [{"role": "user", "content": question}]
    return {
        "prompt": [SYSTEM, *prompt] if len(question) > 20 else prompt,
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
    }


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_bpe([" ".join(words) for words in RECORDS] * 3 + [ALPACA.begin * 3], 300)


@pytest.fixture(scope="module")
def rows(tokenizer: Tokenizer) -> PreferenceDataset:
    preferences = [parse_preference(record(*words)) for words in RECORDS]
    encoded = [encode_preference(one, ALPACA, tokenizer) for one in preferences]
    return PreferenceDataset([encoded], [1.0], T, seed=0, beta=BETA)


def model_of(tokenizer: Tokenizer, seed: int) -> GPT:
    """Return a model with weights large enough that answers and attention differ."""
    torch.manual_seed(seed)
    model = GPT(tokenizer.vocab_size, 32, 2, 4, 2, 48, T)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4) if parameter.dim() == 2 else parameter.uniform_(0.5, 1.5)
    return model


def margins(model: GPT, batch: PreferenceBatch) -> Tensor:
    """Compute the margins from full logits."""
    logits_BTV = model(batch.inputs_BT, document_ids_BT=batch.segments_BT)
    targets_BT = batch.targets_BT.clamp_min(0)
    log_probs_BT = logits_BTV.log_softmax(-1).gather(-1, targets_BT[..., None])[..., 0]
    return batch.compute_margins(-log_probs_BT)


def loss_of(model: GPT, batch: PreferenceBatch) -> tuple[float, dict[str, Tensor]]:
    """Return the mean loss of the pairs and its gradients."""
    model.zero_grad()
    loss = model.loss(
        batch.inputs_BT, batch.targets_BT, document_ids_BT=batch.segments_BT, loss_fn=batch.loss_fn
    )
    (loss / batch.count_targets()).backward()
    grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return loss.item() / len(batch.reference_margins_P), grads


def test_the_loss_and_its_derivative_are_those_of_the_paper() -> None:
    """One row with the mixed positions of two pairs over four tokens."""
    torch.manual_seed(0)
    logits = torch.randn(1, 9, 4, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([[1, 3, 0, 2, 2, 1, 0, IGNORE_INDEX, 3]])
    batch = PreferenceBatch(
        targets, targets, targets, torch.tensor([[0, 1, 0, 0, 1, 1, 1, 0, 0]]),
        torch.tensor([[1.0, -1, 1, -1, 1, 1, -1, 0, -1]]),
        torch.tensor([0.5, -0.25]), torch.tensor(0.7),
    )  # fmt: skip
    p = logits.log_softmax(-1)[0]
    first = p[0, 1] + p[2, 0] - p[3, 2] - p[8, 3]
    second = p[4, 2] + p[5, 1] - p[1, 3] - p[6, 0]
    hand = torch.zeros((), dtype=torch.float64)
    for margin, reference in ((first, 0.5), (second, -0.25)):
        hand = hand - torch.log(1 / (1 + torch.exp(-0.7 * (margin - reference))))
    nats = torch.nn.functional.cross_entropy(logits[0], targets[0], reduction="none")[None]
    loss, slopes = batch.loss_fn(nats.detach())
    assert loss.item() == pytest.approx(hand.item(), rel=1e-6)
    (expected,) = torch.autograd.grad(hand, logits, retain_graph=True)
    (ours,) = torch.autograd.grad((nats * slopes).sum(), logits)
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-8)


def test_packed_pairs_give_the_loss_and_the_gradient_of_one_pair_at_a_time(
    tokenizer: Tokenizer, rows: PreferenceDataset
) -> None:
    model = model_of(tokenizer, 0)
    packed = rows.collate([[0, 3], [2, 1], [4]])
    loss, grads = loss_of(model, packed)
    alone = [loss_of(model, rows.collate([[number]])) for number in range(5)]
    assert loss == pytest.approx(np.mean([one for one, _ in alone]), rel=1e-5)
    for name, grad in grads.items():
        mean = torch.stack([each[name] for _, each in alone]).mean(0)
        torch.testing.assert_close(grad, mean, rtol=1e-4, atol=1e-5)


def test_a_model_that_is_its_own_reference_starts_at_ln_2(
    tokenizer: Tokenizer, rows: PreferenceDataset
) -> None:
    model = model_of(tokenizer, 0)
    batch = rows.collate(rows.rows)
    with torch.no_grad():
        batch = batch._replace(reference_margins_P=margins(model, batch))
    assert loss_of(model, batch)[0] == pytest.approx(np.log(2), rel=1e-5)


def test_a_batch_without_pairs_has_no_loss(tokenizer: Tokenizer, rows: PreferenceDataset) -> None:
    batch = rows.collate([[]])
    assert batch.count_targets() == 0 and rows.collate([[0, 3], [1]]).count_targets() == 3
    model = model_of(tokenizer, 0)
    loss = model.loss(
        batch.inputs_BT, batch.targets_BT, document_ids_BT=batch.segments_BT, loss_fn=batch.loss_fn
    )
    assert loss.item() == 0
    assert not any(grad.any() for grad in torch.autograd.grad(loss, list(model.parameters())))


@pytest.mark.parametrize("borders", [True, False])
def test_all_tensors_of_a_batch_move_to_the_device(rows: PreferenceDataset, borders: bool) -> None:
    batch = rows.collate([[0, 3], [1]])
    if not borders:
        batch = batch._replace(segments_BT=None)
    moved = batch.map_tensors(lambda tensor: tensor.to("meta"))
    for before, after in zip(batch, moved, strict=True):
        assert (before is None) == (after is None)
        if before is not None and after is not None:
            assert after.is_meta and after.shape == before.shape and after.dtype == before.dtype
    assert moved.count_targets().is_meta


@pytest.mark.slow
def test_trl_computes_the_same_loss_and_the_same_gradients(
    tokenizer: Tokenizer, rows: PreferenceDataset, tmp_path: Path
) -> None:
    """Compare ids, batch, reference margins and loss of the same records."""
    from datasets import Dataset
    from transformers import AutoTokenizer, LlamaForCausalLM
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    model, reference = model_of(tokenizer, 0), model_of(tokenizer, 1)
    hf_models = []
    for name, ours in (("model", model), ("reference", reference)):
        folder = tmp_path / name
        folder.mkdir()
        save_model(ours, folder, eos_token_id=tokenizer.end_of_text_id)
        tokenizer.save(folder)
        save_template(ALPACA, folder)
        hf_models.append(LlamaForCausalLM.from_pretrained(folder, attn_implementation="eager"))
    trainer = DPOTrainer(
        hf_models[0],
        hf_models[1],
        args=DPOConfig(
            output_dir=str(tmp_path / "out"),
            beta=BETA,
            max_length=None,
            use_cpu=True,
            bf16=False,
            report_to=[],
            per_device_train_batch_size=5,
        ),
        train_dataset=Dataset.from_list([record(*words) for words in RECORDS]),
        processing_class=AutoTokenizer.from_pretrained(tmp_path / "model"),
    )
    tokenized: Any = trainer.train_dataset
    for found, pair in zip(tokenized, rows.items, strict=True):
        for side, key in ((pair.chosen, "chosen_ids"), (pair.rejected, "rejected_ids")):
            assert side.ids.tolist() == found["prompt_ids"] + found[key]
            assert side.ids[side.loss_mask].tolist() == found[key]
    expected = trainer.compute_loss(hf_models[0].train(), trainer.data_collator(list(tokenized)))
    expected.backward()

    batch = rows.collate([[0, 1], [2, 3], [4]])
    with torch.no_grad():
        batch = batch._replace(reference_margins_P=margins(reference, batch))
    loss, grads = loss_of(model.train(), batch)
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    for name, parameter in hf_models[0].named_parameters():
        grad = grads[name][: len(parameter)]  # without the head's padding
        torch.testing.assert_close(grad, parameter.grad, rtol=1e-4, atol=1e-5, msg=name)
