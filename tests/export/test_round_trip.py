"""Every format keeps every fact of a model through export and import."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gnano.data.sft.chat_template import (
    ChatTemplate,
    read_jinja_template,
    read_template,
    save_template,
)
from gnano.data.sft.jinja_template import JinjaTemplate
from gnano.export.formats import export_model
from gnano.export.importing import import_model
from gnano.model.hf_io import load_config, save_model
from gnano.model.transformer import GPT
from gnano.tokenizer.hf_tokenizer import load_tokenizer

TEMPLATE = ChatTemplate(
    user='"{content}"\\n<user>\n', assistant="A:\n", between="", begin="Größe {%\n"
)
PADDING = 20  # rows of the vocabulary that no token has
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
FORMATS = {"pt": ("fp32", "bf16"), "safetensors": DTYPES, "folder": DTYPES, "gguf": DTYPES}
CASES = [
    *(("fp32", to, dtype) for to, dtypes in FORMATS.items() for dtype in dtypes),
    *(("bf16", to, "bf16") for to in FORMATS),
]


@pytest.fixture(scope="module")
def models(tokenizer, tmp_path_factory) -> dict[str, Path]:
    """A tuned model with no default values, in two dtypes."""
    shape = dict(n_embd=64, n_layer=2, n_head=8, n_kv_head=2, ffn_hidden=96, block_size=80)
    rows = tokenizer.vocab_size + PADDING
    folders = {}
    for dtype in ("fp32", "bf16"):
        torch.manual_seed(0)
        made = GPT(vocab_size=rows, rope_theta=123_456.7, norm_eps=3e-6, **shape)
        folders[dtype] = folder = tmp_path_factory.mktemp("round") / "model"
        tokenizer.save(folder, 80)
        save_model(made.to(DTYPES[dtype]), folder, tokenizer.end_of_text_id)
        save_template(TEMPLATE, folder)
    return folders


@pytest.mark.parametrize(("source", "to", "dtype"), CASES)
def test_every_fact_survives_export_and_import(models, source, to, dtype, tmp_path):
    if to == "gguf":
        pytest.importorskip("gguf")
    model = models[source]
    weights = load_file(model / "model.safetensors")
    path = export_model(model, to, dtype, tmp_path / f"out.{to}").path
    tokenizer_folder = model if to in ("safetensors", "pt") else None  # files of tensors alone
    import_model(path, out := tmp_path / "back", tokenizer_folder=tokenizer_folder)

    assert load_config(out) == load_config(model)
    assert load_tokenizer(out).fingerprint == load_tokenizer(model).fingerprint
    assert read_template(out) == read_template(model) == TEMPLATE
    assert read_jinja_template(out) == read_jinja_template(model)
    for file in ("config.json", "generation_config.json"):
        before, after = (json.loads((folder / file).read_text()) for folder in (model, out))
        named = str(DTYPES[dtype]).removeprefix("torch.")
        assert after == {key: named if "dtype" in key else fact for key, fact in before.items()}
    found = load_file(out / "model.safetensors")
    assert found.keys() == weights.keys()
    for name, tensor in weights.items():
        assert found[name].dtype == DTYPES[dtype]
        assert torch.equal(found[name], tensor.to(DTYPES[dtype])), name


def test_a_foreign_template_survives_gguf(checkpoint, tmp_path):
    pytest.importorskip("gguf")
    path = export_model(checkpoint, "gguf", "fp32", tmp_path / "m.gguf").path
    import_model(path, tmp_path / "back")
    assert read_jinja_template(tmp_path / "back") == read_jinja_template(checkpoint) is not None
    assert isinstance(read_template(tmp_path / "back"), JinjaTemplate)
