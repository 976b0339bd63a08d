"""Bits per byte against a plain transformers loop over the held-out documents."""

import math
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from gnano.config.recipe import Recipe
from gnano.data.manifest import Manifest
from gnano.data.packed_dataset import TokenizedCorpus
from gnano.model.hf_io import save_model
from gnano.model.transformer import GPT
from gnano.train.distributed.context import DistContext
from gnano.train.evaluator import HeldoutResult, HeldoutText


@pytest.fixture
def corpus(recipe: Recipe) -> TokenizedCorpus:
    return TokenizedCorpus(Path(recipe.pretraining_data.folder))


def evaluate(
    recipe: Recipe, corpus: TokenizedCorpus, model: GPT, batch_size: int, budget: int | None = None
) -> HeldoutResult:
    weights, length = recipe.pretraining_data.weights, recipe.model.block_size
    world = DistContext(torch.device("cpu"))
    heldout = HeldoutText(corpus, weights, length, batch_size, budget or 1, world)
    result = heldout.evaluate(model, on_budget=budget is not None)
    assert result is not None
    return result


@pytest.mark.slow
def test_bits_per_byte_match_transformers(
    recipe: Recipe, corpus: TokenizedCorpus, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    model = GPT.from_config(recipe.model)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(3)
    save_model(model, tmp_path, corpus.tokenizer.end_of_text_id)
    llama = LlamaForCausalLM.from_pretrained(tmp_path).eval()

    T = recipe.model.block_size
    bits, size = 0.0, 0
    for number, name in enumerate(corpus.source_names):
        files = sorted((corpus.folder / name).glob("*-heldout.tokens"))
        raw = b"".join(file.read_bytes() for file in files)
        ids = torch.tensor(list(memoryview(raw).cast("H")))
        for start in range(0, len(ids) - 1, T):
            end = min(start + T, len(ids) - 1)  # targets start + 1 … end, each once
            first = max(min(start, len(ids) - 1 - T), 0)  # the last row has more context
            with torch.no_grad():
                logits = llama(ids[None, first:end]).logits[0].double()
            chosen = logits.log_softmax(-1)[range(end - first), ids[first + 1 : end + 1]]
            bits -= chosen[start - first :].sum().item() / math.log(2)
        size += len(corpus.heldout_text(number))
    ours = evaluate(recipe, corpus, model, batch_size=8)
    assert sum(num_bytes for _, num_bytes, _ in ours.sums.values()) == size
    assert ours.objective == pytest.approx(bits / size, abs=1e-4)


def test_bytes_are_those_of_the_held_out_documents(recipe: Recipe, corpus: TokenizedCorpus) -> None:
    model = GPT.from_config(recipe.model)
    manifest = Manifest.load(corpus.folder)
    loss = evaluate(recipe, corpus, model, batch_size=3)
    assert {name: num_bytes for name, (_, num_bytes, _) in loss.sums.items()} == {
        name: sum(shard.bytes for shard in source.heldout)
        for name, source in manifest.sources.items()
    }


def test_batch_size_does_not_change_the_loss(recipe: Recipe, corpus: TokenizedCorpus) -> None:
    model = GPT.from_config(recipe.model)
    results = [evaluate(recipe, corpus, model, batch_size=b).objective for b in (1, 5, 64)]
    assert results == pytest.approx([results[0]] * 3, rel=1e-5)


def test_token_budget_always_covers_the_same_part(recipe: Recipe, corpus: TokenizedCorpus) -> None:
    model = GPT.from_config(recipe.model).train()
    part, full = evaluate(recipe, corpus, model, 8, budget=256), evaluate(recipe, corpus, model, 8)
    assert evaluate(recipe, corpus, model, 8, budget=256) == part
    assert all(part.sums[name][2] < full.sums[name][2] for name in full.sums)
    assert model.training
