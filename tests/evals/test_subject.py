"""Whatever model a folder holds is asked, ours by the engine and others by transformers."""

import pytest
from tests.evals.conftest import made_items
from transformers import GPT2Config, GPT2LMHeadModel, LlamaForCausalLM

from gnano.evals.likelihood import GPTReader, log_likelihoods
from gnano.evals.subject import TransformersReader, open_subject
from gnano.infer.loading import Loading

FP32 = Loading(dtype="fp32")


def test_ours_and_transformers_find_the_same_of_one_checkpoint(saved_model):
    subject = open_subject(saved_model, FP32)
    assert isinstance(subject.reader, GPTReader)
    llama = LlamaForCausalLM.from_pretrained(saved_model).eval()
    questions = subject.wording.questions(made_items(10))
    ours = log_likelihoods(subject.reader, questions, 16)
    theirs = log_likelihoods(TransformersReader(llama), questions, 16)
    for a, b in zip(ours, theirs, strict=True):
        assert [n for n, _ in a] == pytest.approx([n for n, _ in b], abs=2e-3)
        assert [greedy for _, greedy in a] == [greedy for _, greedy in b]


def test_a_tied_llama_is_asked_through_transformers(saved_model, words, tmp_path):
    llama = LlamaForCausalLM.from_pretrained(saved_model)
    llama.config.tie_word_embeddings = True
    llama.tie_weights()
    llama.save_pretrained(tmp_path / "tied")
    words.save(tmp_path / "tied")
    subject = open_subject(tmp_path / "tied", FP32)
    assert isinstance(subject.reader, TransformersReader)
    assert subject.wording.start == ()  # its tokenizer puts nothing there
    assert open_subject(tmp_path / "tied", FP32, "yes").wording.start == (words.end_of_text,)
    assert log_likelihoods(subject.reader, subject.wording.questions(made_items(3)), 8)


def test_a_gpt2_has_its_own_context(words, tmp_path):
    config = GPT2Config(vocab_size=words.vocab_size, n_embd=32, n_layer=1, n_head=2, n_positions=24)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    words.save(tmp_path)
    subject = open_subject(tmp_path, FP32)
    assert subject.reader.context == 24
    assert len(log_likelihoods(subject.reader, subject.wording.questions(made_items(3)), 4)) == 3


def test_our_texts_begin_with_end_of_text_unless_it_is_not_wanted(saved_model, words):
    assert open_subject(saved_model, FP32).wording.start == (words.end_of_text,)
    assert open_subject(saved_model, FP32, "no").wording.start == ()


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
        open_subject(tmp_path)


def test_a_faster_step_is_refused_where_none_is_taken(saved_model):
    with pytest.raises(ValueError, match="--compile"):
        open_subject(saved_model, Loading(compile=True))


def test_what_only_our_models_can_is_refused_of_others(words, tmp_path):
    config = GPT2Config(vocab_size=words.vocab_size, n_embd=32, n_layer=1, n_head=2, n_positions=24)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    words.save(tmp_path)
    with pytest.raises(ValueError, match="--quant"):
        open_subject(tmp_path, Loading(quant="int8"))
