"""Bits per byte equal those of a plain transformers loop, for gnano models and others."""

import math
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, GPTNeoXForCausalLM, LlamaForCausalLM

from gnano.config.inference_config import LoadConfig
from gnano.data.packed_dataset import TokenizedCorpus
from gnano.evals.model_adapter import load_eval_model
from gnano.evals.runner import measure_file, measure_heldout
from gnano.model.hf_io import save_model
from gnano.model.transformer import GPT

FP32 = LoadConfig(dtype="fp32")
TEXT = "A stone sees the river; no bird takes a letter under the house.\n\nA café, 日本 🌍!\n" * 9


def reference_nats(model, ids: list[int], length: int) -> float:
    """Return the nats of all ids but the first, in rows of the context; the last row overlaps."""
    nats = 0.0
    for start in range(0, len(ids) - 1, length):
        end = min(start + length, len(ids) - 1)
        first = max(min(start, len(ids) - 1 - length), 0)
        with torch.no_grad():
            logits = model(torch.tensor([ids[first:end]])).logits[0].double()
        log_probs = logits.log_softmax(-1)[range(end - first), ids[first + 1 : end + 1]]
        nats -= log_probs[start - first :].sum().item()
    return nats


@pytest.fixture(scope="module")
def corpus(recipe) -> TokenizedCorpus:
    return TokenizedCorpus(Path(recipe.pretraining_data.folder))


@pytest.fixture(scope="module")
def model_dir(recipe, corpus, tmp_path_factory) -> Path:
    torch.manual_seed(1)
    model = GPT.from_config(recipe.model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    folder: Path = tmp_path_factory.mktemp("bits") / "model"
    corpus.tokenizer.save(folder)
    save_model(model, folder, corpus.tokenizer.end_of_text_id)
    return folder


@pytest.mark.parametrize(("dtype", "tolerance"), [("fp32", 1e-4), ("bf16", 1e-3)])
def test_heldout_documents(recipe, corpus, model_dir, dtype, tolerance):
    model = load_eval_model(model_dir, LoadConfig(dtype=dtype))
    results = measure_heldout(model, corpus, batch_size=3)
    llama = LlamaForCausalLM.from_pretrained(model_dir).eval()
    assert [part.source for part in results] == corpus.source_names
    for number, part in enumerate(results):
        ids = corpus.heldout_tokens(number).tolist()
        size = len(corpus.heldout_text(number))
        expected = reference_nats(llama, ids, recipe.model.block_size) / math.log(2) / size
        assert (part.bytes, part.tokens) == (size, len(ids))
        assert part.bits_per_byte == pytest.approx(expected, abs=tolerance)


def test_model_with_another_tokenizer_is_measured_on_the_same_bytes(corpus, pythia):
    results = measure_heldout(load_eval_model(pythia, FP32), corpus)
    reference = GPTNeoXForCausalLM.from_pretrained(pythia).eval()
    tokenizer = AutoTokenizer.from_pretrained(pythia)
    for number, part in enumerate(results):
        text = corpus.tokenizer.decode(corpus.heldout_tokens(number), show_end_of_text=True)
        ids = tokenizer("<|endoftext|>" + text.removeprefix("<|endoftext|>")).input_ids
        size = len(corpus.heldout_text(number))
        expected = reference_nats(reference, ids, 48) / math.log(2) / size
        assert part.bytes == size
        assert part.bits_per_byte == pytest.approx(expected, abs=1e-4)


def test_text_file(model_dir, tmp_path):
    (tmp_path / "story.txt").write_text(TEXT)
    result = measure_file(load_eval_model(model_dir, FP32), tmp_path / "story.txt")
    llama = LlamaForCausalLM.from_pretrained(model_dir).eval()
    ids = AutoTokenizer.from_pretrained(model_dir)("<|endoftext|>" + TEXT).input_ids
    bits = reference_nats(llama, ids, llama.config.max_position_embeddings) / math.log(2)
    assert result.bytes == len(TEXT.encode())
    assert result.bits_per_byte == pytest.approx(bits / result.bytes, abs=1e-4)


def test_limit_measures_the_beginning_of_the_heldout_text(corpus, model_dir):
    part, _ = measure_heldout(load_eval_model(model_dir, FP32), corpus, max_tokens=100)
    assert part.tokens == 100
    ids = corpus.heldout_tokens(0)[:100].tolist()
    assert part.bytes == len(corpus.tokenizer.decode_bytes(ids))


def test_empty_file_is_an_error(model_dir, tmp_path):
    (tmp_path / "empty.txt").write_text(" \n")
    with pytest.raises(ValueError, match=r"empty.txt contains no text"):
        measure_file(load_eval_model(model_dir, FP32), tmp_path / "empty.txt")
