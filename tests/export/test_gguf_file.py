"""GGUF files are read by the package gguf and by llama.cpp."""

import json
import unicodedata
from contextlib import ExitStack

import pytest
import torch
from tests.export.conftest import TEMPLATE
from tests.export.llama_cpp import LlamaCpp
from tests.infer.conftest import TEXTS
from tests.model.families import FAMILIES, save_model_of
from tests.tokenizer.families import END, save_family

from gnano.config.inference_config import SamplingParams
from gnano.export.formats import export_model
from gnano.export.importing import import_model
from gnano.infer.engine import Engine
from gnano.model.hf_io import load_model
from gnano.tokenizer.hf_tokenizer import load_tokenizer

gguf = pytest.importorskip("gguf", reason="the package gguf (extra gguf) is not installed")
AWKWARD = [
    *TEXTS[:3], "", " ", "  two  blanks  ", "\n\n\tx\r\n", "don't, we'll, I'M", "1234567890 ½ ²",
    "<|endoftext|>", "e\u0301 \u200b \ufeff", "👩‍👩‍👧 🇩🇪", "السلام עליכם", "a" * 300, "\x00\x01",
]  # fmt: skip

# of the families in tests.model.families; the others have that of SmolLM2
TOKENIZERS = {
    "llama, scaled": "llama3",
    "llama, linear": "llama2",
    "mistral": "mistral",
    "qwen2": "qwen2",
    "qwen3": "qwen2",
}


def test_the_metadata_is_complete(checkpoint, source, tmp_path):
    path = export_model(checkpoint, "gguf", "q8_0", tmp_path / "model.gguf").path
    reader = gguf.GGUFReader(path)

    def field(key):
        return reader.get_field(key).contents()

    config, tokenizer = source.config, source.tokenizer
    assert field("general.architecture") == "llama"
    assert field("llama.context_length") == config.block_size
    assert field("llama.rope.freq_base") == config.rope_theta
    assert field("llama.attention.head_count_kv") == config.n_kv_head
    assert field("tokenizer.ggml.model") == "gpt2" and field("tokenizer.ggml.pre") == "gpt-2"
    assert field("tokenizer.ggml.eos_token_id") == tokenizer.end_of_text_id
    assert field("tokenizer.chat_template") == TEMPLATE
    assert len(field("tokenizer.ggml.tokens")) == config.vocab_size
    shapes = {t.name: (list(t.shape), t.tensor_type.name) for t in reader.tensors}
    assert shapes["output.weight"] == ([config.n_embd, config.vocab_size], "Q8_0")
    assert shapes["blk.1.attn_norm.weight"] == ([config.n_embd], "F32")


def read_back(path, folder):
    """The model, tokenizer and folder of an imported file."""
    import_model(path, folder)
    return load_model(folder), load_tokenizer(folder)


@pytest.fixture
def llama(tmp_path, checkpoint):
    """A function that runs the checkpoint in llama.cpp, in a quantization."""
    with ExitStack() as stack:

        def load(dtype):
            path = export_model(checkpoint, "gguf", dtype, tmp_path / f"{dtype}.gguf").path
            return stack.enter_context(LlamaCpp(path))

        yield load


def nats(model, ids):
    """The mean cross-entropy of a text in llama.cpp."""
    row = ids[0].tolist()
    losses = [-dict(model.top_logprobs(row[:n], 300))[row[n]] for n in range(1, len(row))]
    return sum(losses) / len(losses)


def our_nats(checkpoint, ids):
    return load_model(checkpoint).loss(ids[:, :-1], ids[:, 1:]).item() / (ids.shape[1] - 1)


@pytest.mark.slow
@torch.no_grad()
def test_llama_cpp_computes_the_same(llama, checkpoint, source, ids):
    model, tokenizer = llama("fp32"), source.tokenizer
    for text in AWKWARD:
        assert model.tokenize(text) == tokenizer.encode(text), text
    assert nats(model, ids) == pytest.approx(our_nats(checkpoint, ids), rel=1e-4)
    greedy = SamplingParams(temperature=0)
    for prompt in ("Once upon a time", "It read"):
        completion = Engine.load(checkpoint, "cpu").generate_batch([prompt], 24, greedy)[0][0]
        row = [tokenizer.end_of_text_id, *tokenizer.encode(prompt)]
        for token in completion.token_ids:
            assert model.top_logprobs(row, 1)[0][0] == token
            row.append(token)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "within"), [("q8_0", 0.005), ("q4_0", 0.03)])
@torch.no_grad()
def test_quantization_changes_the_loss_little_in_llama_cpp(llama, checkpoint, ids, dtype, within):
    found = nats(llama(dtype), ids)
    assert found == pytest.approx(our_nats(checkpoint, ids), rel=within)


@pytest.fixture(params=FAMILIES)
def foreign(request, tmp_path):
    """A folder of another family, with a tokenizer that such models have, and its GGUF file."""
    kind = TOKENIZERS.get(request.param, "smollm2")
    model = save_model_of(request.param, tmp_path / "base")
    backend = save_family(kind, tmp_path / "base")
    end = backend.token_to_id(END[kind])
    file = tmp_path / "base/generation_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "eos_token_id": [end, 2]}))
    path = export_model(tmp_path / "base", "gguf", "fp32", tmp_path / "base.gguf").path
    return model, tmp_path / "base", path


def same_in_llama_cpp(tokenizer):
    """Texts that it encodes the same: it does not normalize, and always puts a space in front."""
    starts = " " if getattr(tokenizer, "strips_first_space", False) else "-"
    return [
        text
        for text in AWKWARD
        if unicodedata.is_normalized("NFC", text) and not text.startswith(starts)
    ]


@pytest.mark.slow
@torch.no_grad()
def test_another_family_is_the_same_in_llama_cpp(foreign):
    model, folder, path = foreign
    tokenizer = load_tokenizer(folder)
    with LlamaCpp(path) as llama:
        for text in same_in_llama_cpp(tokenizer):
            assert llama.tokenize(text) == tokenizer.encode(text), text
        assert llama.tokenize("one", add_special=True)[:-1] or not tokenizer.bos_ids
        for seed in range(3):
            ids = torch.randint(5, 470, (1, 60), generator=torch.Generator().manual_seed(seed))
            expected = model(ids).logits[0, -1].log_softmax(-1).topk(8)
            found = llama.top_logprobs(ids[0].tolist(), 8)
            assert [token for token, _ in found] == expected.indices.tolist()
            logprobs = torch.tensor([logprob for _, logprob in found])
            torch.testing.assert_close(logprobs, expected.values, atol=1e-3, rtol=1e-4)


@pytest.mark.slow
@torch.no_grad()
def test_another_family_is_read_back(foreign, request, tmp_path):
    model, folder, path = foreign
    if "scaled" in request.node.name:
        with pytest.raises(ValueError, match=r"scales RoPE by rope_freqs.weight, which cannot be"):
            read_back(path, tmp_path / "again")
        return
    again, tokenizer = read_back(path, tmp_path / "again")
    original = load_tokenizer(folder)
    ids = torch.randint(5, 470, (1, 60))
    torch.testing.assert_close(again(ids), model(ids).logits, atol=1e-3, rtol=1e-3)
    for text in same_in_llama_cpp(original):
        assert tokenizer.encode(text) == original.encode(text), text
        assert tokenizer.decode(original.encode(text)) == original.decode(original.encode(text))
    assert tokenizer.bos_ids == original.bos_ids
    assert tokenizer.eos_ids == original.eos_ids
    assert tokenizer.control_tokens == original.control_tokens


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state["model"]["merges"].pop(), "cannot be stated as scores"),
        (lambda state: state["model"]["merges"].sort(), "different ranks"),
        (lambda state: state.update(pre_tokenizer={"type": "Whitespace"}), "split text by White"),
    ],
)
def test_a_tokenizer_that_llama_cpp_would_run_differently_is_refused(tmp_path, change, message):
    save_model_of("mistral", tmp_path / "base")
    save_family("mistral", tmp_path / "base")
    file = tmp_path / "base/tokenizer.json"
    state = json.loads(file.read_text("utf-8"))
    change(state)
    file.write_text(json.dumps(state), "utf-8")
    with pytest.raises(ValueError, match=message):
        export_model(tmp_path / "base", "gguf", "fp32", tmp_path / "base.gguf")
    assert not (tmp_path / "base.gguf").exists()
