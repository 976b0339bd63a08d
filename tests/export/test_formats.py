"""Exported models compute the same, in our reader and in those of other programs."""

from typing import Any

import pytest
import torch
from tests.model.test_tensor_names import reference

from gnano.export.formats import export_model
from gnano.model.hf_io import load_model
from gnano.model.transformer import GPT


def test_a_pt_file_computes_like_the_published_model(checkpoint, source, ids, tmp_path):
    exported = export_model(checkpoint, "pt", out=tmp_path / "model_latest.pt")
    state = torch.load(exported.path, weights_only=True)
    expected = load_model(checkpoint)(ids).detach()
    found = reference(state, source.config, ids)
    torch.testing.assert_close(found.float(), expected, atol=1e-4, rtol=1e-4)
    model = GPT.from_config(source.config)
    model.load_state_dict(state)
    assert torch.equal(model(ids).detach(), expected)


@pytest.mark.slow
def test_transformers_loads_an_exported_folder(checkpoint, source, ids, tmp_path):
    from transformers import AutoTokenizer, LlamaForCausalLM

    folder = export_model(checkpoint, "folder", "fp32", tmp_path / "folder").path
    assert all(file.stat().st_mode & 0o777 == 0o644 for file in folder.iterdir())
    loading: Any = LlamaForCausalLM
    hf_model = loading.from_pretrained(folder)
    with torch.no_grad():
        expected, found = load_model(checkpoint)(ids), hf_model(ids).logits
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    tokenizers: Any = AutoTokenizer
    hf_tokenizer = tokenizers.from_pretrained(folder)
    text = "a 'quoted'  naïve\tword\n\n東京 🙂 <|endoftex|>"
    assert hf_tokenizer.encode(text, add_special_tokens=True) == source.tokenizer.encode(text)
    rendered = hf_tokenizer.apply_chat_template([{"content": "hi", "role": "user"}], tokenize=False)
    assert rendered == "hi"


def test_a_bf16_folder_has_half_the_size(checkpoint, tmp_path):
    full, half = (
        export_model(checkpoint, "folder", dtype, tmp_path / dtype).size_bytes
        for dtype in ("fp32", "bf16")
    )
    assert half < 0.6 * full


def test_export_errors_leave_no_files(checkpoint, tmp_path):
    with pytest.raises(ValueError, match=r"^pt is written as fp32, bf16, not as q8_0"):
        export_model(checkpoint, "pt", "q8_0", tmp_path / "x.pt")
    (tmp_path / "there.pt").write_text("mine")
    with pytest.raises(FileExistsError, match="already exists"):
        export_model(checkpoint, "pt", out=tmp_path / "there.pt")
    assert (tmp_path / "there.pt").read_text() == "mine"
    with pytest.raises(FileNotFoundError, match="does not exist"):
        export_model(tmp_path / "nowhere", "pt", out=tmp_path / "x.pt")
    assert [file.name for file in tmp_path.iterdir()] == ["there.pt"]


def test_the_default_path_is_below_exported(checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(export_model(checkpoint, "pt").path) == "exported/small/model_latest.pt"
    assert str(export_model(checkpoint, "pt", "bf16").path) == "exported/small/model_bf16.pt"
    run = tmp_path / "runs" / "mine" / "checkpoints" / "step-00000003"
    run.parent.mkdir(parents=True)
    run.symlink_to(checkpoint)
    (run.parent.parent / "recipe.toml").write_text("")
    exported = export_model(checkpoint, "safetensors")
    assert str(exported.path) == "exported/small/small-bf16.safetensors"
    assert exported.size_bytes == exported.path.stat().st_size
