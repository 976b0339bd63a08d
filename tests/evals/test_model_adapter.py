"""Whatever model a folder holds is asked, ours by the engine and others by transformers."""

import pytest
from tests.evals.conftest import made_items
from transformers import GPT2Config, GPT2LMHeadModel, LlamaForCausalLM

from gnano.config.inference_config import LoadConfig
from gnano.evals.loglikelihood import GPTScorer, compute_loglikelihoods
from gnano.evals.model_adapter import TransformersScorer, load_eval_model

FP32 = LoadConfig(dtype="fp32")


def test_ours_and_transformers_find_the_same_of_one_checkpoint(saved_model):
    subject = load_eval_model(saved_model, FP32)
    assert isinstance(subject.scorer, GPTScorer)
    llama = LlamaForCausalLM.from_pretrained(saved_model).eval()
    questions = subject.encoder.encode_items(made_items(10))
    ours = compute_loglikelihoods(subject.scorer, questions, 16)
    theirs = compute_loglikelihoods(TransformersScorer(llama), questions, 16)
    for a, b in zip(ours, theirs, strict=True):
        assert [n for n, _ in a] == pytest.approx([n for n, _ in b], abs=2e-3)
        assert [greedy for _, greedy in a] == [greedy for _, greedy in b]


def test_a_tied_llama_is_asked_through_transformers(saved_model, words, tmp_path):
    llama = LlamaForCausalLM.from_pretrained(saved_model)
    llama.config.tie_word_embeddings = True
    llama.tie_weights()
    llama.save_pretrained(tmp_path / "tied")
    words.save(tmp_path / "tied")
    subject = load_eval_model(tmp_path / "tied", FP32)
    assert isinstance(subject.scorer, TransformersScorer)
    assert subject.encoder.bos == ()  # its tokenizer puts nothing there
    assert load_eval_model(tmp_path / "tied", FP32, "yes").encoder.bos == (words.end_of_text,)
    assert compute_loglikelihoods(subject.scorer, subject.encoder.encode_items(made_items(3)), 8)


def test_a_gpt2_has_its_own_context(words, tmp_path):
    config = GPT2Config(vocab_size=words.vocab_size, n_embd=32, n_layer=1, n_head=2, n_positions=24)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    words.save(tmp_path)
    subject = load_eval_model(tmp_path, FP32)
    assert subject.scorer.block_size == 24
    assert (
        len(compute_loglikelihoods(subject.scorer, subject.encoder.encode_items(made_items(3)), 4))
        == 3
    )


def test_our_texts_begin_with_end_of_text_unless_it_is_not_wanted(saved_model, words):
    assert load_eval_model(saved_model, FP32).encoder.bos == (words.end_of_text,)
    assert load_eval_model(saved_model, FP32, "no").encoder.bos == ()


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        ({}, "no checkpoint"),
        ({"config.json": "{}"}, "cannot be opened"),
        ({"config.json": '{"model_type": "llama"}'}, "cannot be opened"),
        ({"config.json": "{"}, "cannot be opened"),
    ],
)
def test_a_folder_without_a_model_is_a_sentence(tmp_path, content, wrong):
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    with pytest.raises((ValueError, OSError), match=wrong):
        load_eval_model(tmp_path)


def test_a_faster_step_is_refused_where_none_is_taken(saved_model):
    with pytest.raises(ValueError, match="--compile"):
        load_eval_model(saved_model, LoadConfig(compile=True))


def test_what_only_our_models_can_is_refused_of_others(words, tmp_path):
    config = GPT2Config(vocab_size=words.vocab_size, n_embd=32, n_layer=1, n_head=2, n_positions=24)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    words.save(tmp_path)
    with pytest.raises(ValueError, match="--quant"):
        load_eval_model(tmp_path, LoadConfig(quant="int8"))
