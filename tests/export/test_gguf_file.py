"""GGUF files are read by the package gguf and by llama.cpp."""

import numpy as np
import pytest
import torch
from tests.export.conftest import TEMPLATE
from tests.infer.conftest import TEXTS

from gnano.config.inference_config import SamplingParams
from gnano.export.formats import export_model
from gnano.infer.engine import Engine
from gnano.model.hf_io import load_model

gguf = pytest.importorskip("gguf", reason="the package gguf (extra gguf) is not installed")
AWKWARD = [
    *TEXTS[:3], "", " ", "  two  blanks  ", "\n\n\tx\r\n", "don't, we'll, I'M", "1234567890 ½ ²",
    "<|endoftext|>", "e\u0301 \u200b \ufeff", "👩‍👩‍👧 🇩🇪", "السلام עליכם", "a" * 300, "\x00\x01",
]  # fmt: skip


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


@pytest.fixture
def llama(tmp_path, checkpoint):
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    opened = []

    def load(dtype):
        path = export_model(checkpoint, "gguf", dtype, tmp_path / f"{dtype}.gguf").path
        fp32 = gguf.GGMLQuantizationType.F32.value  # its cache is fp16 by default
        model = llama_cpp.Llama(
            str(path), n_ctx=96, logits_all=True, verbose=False, type_k=fp32, type_v=fp32,
            n_threads=1, seed=0,
        )  # fmt: skip
        opened.append(model)
        return model

    yield load
    for model in opened:
        model.close()


def logits_of(model, ids) -> torch.Tensor:
    model.reset()
    model.eval(ids[0].tolist())
    return torch.tensor(np.array(model.scores[: ids.shape[1]]))


def nats(logits_TV, ids) -> float:
    return torch.nn.functional.cross_entropy(logits_TV[:-1], ids[0, 1:]).item()


def test_llama_cpp_computes_the_same(llama, checkpoint, source, ids):
    model, tokenizer = llama("fp32"), source.tokenizer
    expected = load_model(checkpoint)(ids)[0].detach()
    torch.testing.assert_close(logits_of(model, ids), expected, atol=1e-3, rtol=1e-3)
    for text in AWKWARD:
        encoded = model.tokenize(text.encode(), add_bos=False, special=False)
        assert encoded == tokenizer.encode(text), text
    greedy = SamplingParams(temperature=0)
    for prompt in ("Once upon a time", "It read"):
        engine = Engine.load(checkpoint, "cpu")
        expected_ids = list(engine.generate_batch([prompt], 24, greedy)[0][0].token_ids)
        prompt_ids = [tokenizer.end_of_text_id, *tokenizer.encode(prompt)]
        model.reset()
        found: list[int] = []
        for token in model.generate(prompt_ids, temp=0.0, top_k=1, repeat_penalty=1.0):
            if token == tokenizer.end_of_text_id or len(found) == len(expected_ids):
                break
            found.append(token)
        assert found == expected_ids


@pytest.mark.parametrize(("dtype", "within"), [("q8_0", 0.005), ("q4_0", 0.03)])
def test_quantization_changes_the_loss_little_in_llama_cpp(llama, checkpoint, ids, dtype, within):
    exact = nats(load_model(checkpoint)(ids)[0].detach(), ids)
    assert nats(logits_of(llama(dtype), ids), ids) == pytest.approx(exact, rel=within)
