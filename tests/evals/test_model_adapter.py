"""gnano models are evaluated by the engine, others by transformers."""

import pytest
from tests.evals.conftest import made_items
from transformers import GPT2Config, GPT2LMHeadModel, LlamaForCausalLM

from gnano.config.inference_config import LoadConfig
from gnano.evals.loglikelihood import GPTScorer, TransformersScorer, compute_loglikelihoods
from gnano.evals.model_adapter import load_eval_model

FP32 = LoadConfig(dtype="fp32")


def test_engine_and_transformers_give_the_same_scores(saved_model):
    model = load_eval_model(saved_model, FP32)
    assert isinstance(model.scorer, GPTScorer)
    llama = LlamaForCausalLM.from_pretrained(saved_model).eval()
    items = model.encoder.encode_items(made_items(5))
    own = compute_loglikelihoods(model.scorer, items, 16)
    expected = compute_loglikelihoods(TransformersScorer(llama), items, 16)
    for a, b in zip(own, expected, strict=True):
        assert [n for n, _ in a] == pytest.approx([n for n, _ in b], abs=2e-3)
        assert [greedy for _, greedy in a] == [greedy for _, greedy in b]


def test_llama_with_tied_weights_scores_as_in_transformers(saved_model, words, tmp_path):
    llama = LlamaForCausalLM.from_pretrained(saved_model)
    llama.config.tie_word_embeddings = True
    llama.tie_weights()
    llama.save_pretrained(tmp_path / "tied")
    words.save(tmp_path / "tied")
    model = load_eval_model(tmp_path / "tied", FP32)
    assert isinstance(model.scorer, GPTScorer)
    items = model.encoder.encode_items(made_items(3))
    ours = compute_loglikelihoods(model.scorer, items, 8)
    theirs = compute_loglikelihoods(TransformersScorer(llama.eval()), items, 8)
    for a, b in zip(ours, theirs, strict=True):
        assert [nats for nats, _ in a] == pytest.approx([nats for nats, _ in b], abs=1e-3)


def test_gpt2_has_its_own_context_length(words, tmp_path):
    config = GPT2Config(vocab_size=words.vocab_size, n_embd=32, n_layer=1, n_head=2, n_positions=24)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    words.save(tmp_path)
    model = load_eval_model(tmp_path, FP32)
    assert model.scorer.block_size == 24
    items = model.encoder.encode_items(made_items(3))
    assert len(compute_loglikelihoods(model.scorer, items, 4)) == 3


def test_texts_begin_with_end_of_text_unless_disabled(saved_model, words):
    assert load_eval_model(saved_model, FP32).encoder.bos == (words.end_of_text_id,)
    assert load_eval_model(saved_model, FP32, "no").encoder.bos == ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "no checkpoint"),
        ({"config.json": "{}"}, "cannot be loaded"),
        ({"config.json": '{"model_type": "llama"}'}, "cannot be loaded"),
        ({"config.json": "{"}, "cannot be loaded"),
    ],
)
def test_folder_without_a_model_is_an_error(tmp_path, content, message):
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    with pytest.raises((ValueError, OSError), match=message):
        load_eval_model(tmp_path)


def test_compile_is_an_error(saved_model):
    with pytest.raises(ValueError, match="--compile"):
        load_eval_model(saved_model, LoadConfig(compile=True))


def test_quantization_of_a_foreign_model_is_an_error(pythia):
    with pytest.raises(ValueError, match="--quant"):
        load_eval_model(pythia, LoadConfig(quant="int8"))
