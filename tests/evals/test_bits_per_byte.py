"""Bits per byte are those of a plain transformers loop, for our models and for any other."""

import math
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, GPTNeoXForCausalLM, LlamaForCausalLM

from gnano.config.inference_config import LoadConfig
from gnano.data.tokenized_corpus import TokenizedCorpus
from gnano.evals.bits_per_byte import measure_file, measure_heldout
from gnano.evals.model_adapter import load_eval_model
from gnano.model.hf_io import save_model
from gnano.model.transformer import GPT

FP32 = LoadConfig(dtype="fp32")
TEXT = "A stone sees the river; no bird takes a letter under the house.\n\nA café, 日本 🌍!\n" * 9


def plain(model, ids: list[int], length: int) -> float:
    """Nats of all ids but the first, in rows of the context; the last row looks further back."""
    nats = 0.0
    for start in range(0, len(ids) - 1, length):
        end = min(start + length, len(ids) - 1)
        first = max(min(start, len(ids) - 1 - length), 0)
        with torch.no_grad():
            logits = model(torch.tensor([ids[first:end]])).logits[0].double()
        chosen = logits.log_softmax(-1)[range(end - first), ids[first + 1 : end + 1]]
        nats -= chosen[start - first :].sum().item()
    return nats


@pytest.fixture
def model(recipe, tmp_path: Path) -> Path:
    torch.manual_seed(1)
    model = GPT.from_config(recipe.model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    corpus = TokenizedCorpus(Path(recipe.corpus.folder))
    corpus.tokenizer.save(tmp_path / "model")
    save_model(model, tmp_path / "model", corpus.tokenizer.end_of_text_id)
    return tmp_path / "model"


@pytest.mark.parametrize(("dtype", "near"), [("fp32", 1e-4), ("bf16", 1e-3)])
def test_of_held_out_documents(recipe, model, dtype, near):
    corpus = TokenizedCorpus(Path(recipe.corpus.folder))
    found = measure_heldout(load_eval_model(model, LoadConfig(dtype=dtype)), corpus, batch_size=3)
    llama = LlamaForCausalLM.from_pretrained(model).eval()
    assert [part.source for part in found] == corpus.source_names
    for number, part in enumerate(found):
        ids = corpus.heldout_tokens(number).tolist()
        size = len(corpus.heldout_text(number))
        bits = plain(llama, ids, recipe.model.block_size) / math.log(2) / size
        assert (part.bytes, part.tokens) == (size, len(ids))
        assert part.bits_per_byte == pytest.approx(bits, abs=near)


def test_of_a_model_of_another_kind_with_its_own_tokenizer_over_the_same_bytes(recipe, pythia):
    corpus = TokenizedCorpus(Path(recipe.corpus.folder))
    found = measure_heldout(load_eval_model(pythia, FP32), corpus)
    peer = GPTNeoXForCausalLM.from_pretrained(pythia).eval()
    tokenizer = AutoTokenizer.from_pretrained(pythia)
    for number, part in enumerate(found):
        texts = corpus.tokenizer.decode(corpus.heldout_tokens(number), show_end_of_text=True)
        ids = tokenizer("<|endoftext|>" + texts.removeprefix("<|endoftext|>")).input_ids
        size = len(corpus.heldout_text(number))
        assert part.bytes == size
        assert part.bits_per_byte == pytest.approx(
            plain(peer, ids, 48) / math.log(2) / size, abs=1e-4
        )


def test_of_a_file_of_text(model, tmp_path):
    (tmp_path / "story.txt").write_text(TEXT)
    found = measure_file(load_eval_model(model, FP32), tmp_path / "story.txt")
    llama = LlamaForCausalLM.from_pretrained(model).eval()
    ids = AutoTokenizer.from_pretrained(model)("<|endoftext|>" + TEXT).input_ids
    bits = plain(llama, ids, llama.config.max_position_embeddings) / math.log(2)
    assert found.bytes == len(TEXT.encode())
    assert found.bits_per_byte == pytest.approx(bits / found.bytes, abs=1e-4)


def test_a_part_of_the_held_out_text_is_its_beginning(recipe, model):
    corpus = TokenizedCorpus(Path(recipe.corpus.folder))
    part, _ = measure_heldout(load_eval_model(model, FP32), corpus, max_tokens=100)
    assert part.tokens == 100
    ids = corpus.heldout_tokens(0)[:100].tolist()
    assert part.bytes == len(corpus.tokenizer.decode_bytes(ids))


def test_an_empty_file_is_told(model, tmp_path):
    (tmp_path / "empty.txt").write_text(" \n")
    with pytest.raises(ValueError, match=r"empty.txt holds no text"):
        measure_file(load_eval_model(model, FP32), tmp_path / "empty.txt")
