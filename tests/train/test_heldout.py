"""Bits per byte, held against a plain transformers loop over the documents themselves."""

import math
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from gnano.data.corpus import Corpus
from gnano.data.manifest import Manifest
from gnano.model.folder import save_model
from gnano.model.gpt import GPT
from gnano.train.heldout import Heldout
from gnano.train.recipe import Recipe


@pytest.fixture
def corpus(recipe: Recipe) -> Corpus:
    return Corpus(Path(recipe.corpus.folder))


def test_bits_per_byte_equal_a_plain_transformers_loop(
    recipe: Recipe, corpus: Corpus, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    model = GPT.from_config(recipe.model)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(3)
    save_model(model, tmp_path, corpus.tokenizer.end_of_text)
    llama = LlamaForCausalLM.from_pretrained(tmp_path).eval()

    T = recipe.model.block_size
    bits, size = 0.0, 0
    for number, name in enumerate(corpus.names):
        files = sorted((corpus.folder / name).glob("*-heldout.tokens"))
        raw = b"".join(file.read_bytes() for file in files)
        ids = torch.tensor(list(memoryview(raw).cast("H")))
        for start in range(0, len(ids) - 1, T):
            end = min(start + T, len(ids) - 1)  # targets start + 1 … end, none twice
            first = max(min(start, len(ids) - 1 - T), 0)  # the last row looks further back
            with torch.no_grad():
                logits = llama(ids[None, first:end]).logits[0].double()
            chosen = logits.log_softmax(-1)[range(end - first), ids[first + 1 : end + 1]]
            bits -= chosen[start - first :].sum().item() / math.log(2)
        size += len(corpus.heldout_text(number))
    ours = Heldout(corpus, recipe.corpus.weights, T, batch=8).loss(model)
    assert sum(ours.bytes.values()) == size
    assert ours.bits_per_byte == pytest.approx(bits / size, abs=1e-4)


def test_the_bytes_are_those_of_the_held_out_documents(recipe: Recipe, corpus: Corpus) -> None:
    model = GPT.from_config(recipe.model)
    manifest = Manifest.load(corpus.folder)
    loss = Heldout(corpus, recipe.corpus.weights, recipe.model.block_size, batch=3).loss(model)
    assert loss.bytes == {
        name: sum(shard.bytes for shard in source.heldout)
        for name, source in manifest.sources.items()
    }


def test_the_batch_size_does_not_change_the_figure(recipe: Recipe, corpus: Corpus) -> None:
    model = GPT.from_config(recipe.model)
    weights = recipe.corpus.weights
    figures = [Heldout(corpus, weights, 32, batch=b).loss(model).bits_per_byte for b in (1, 5, 64)]
    assert figures == pytest.approx([figures[0]] * 3, rel=1e-5)


def test_a_part_of_the_held_out_set_is_always_the_same_part(recipe: Recipe, corpus: Corpus) -> None:
    model = GPT.from_config(recipe.model).train()
    heldout = Heldout(corpus, recipe.corpus.weights, 32, batch=8)
    part, whole = heldout.loss(model, tokens=256), heldout.loss(model)
    assert heldout.loss(model, tokens=256) == part
    assert sum(part.bytes.values()) < sum(whole.bytes.values())
    assert model.training
