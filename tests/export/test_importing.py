"""Models of other programs are read correctly, or refused in one sentence."""

import json
import os
import pickle
import shutil
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.model.test_tensor_names import CONFIG, published, reference

from gnano.checkpoint.run_checkpoints import verify_checksums
from gnano.config.inference_config import SamplingParams
from gnano.export.formats import export_model
from gnano.export.importing import import_model
from gnano.export.tensor_file import TensorFileHints
from gnano.infer.engine import Engine
from gnano.model.hf_io import load_model

HINTS = TensorFileHints(n_head=4, block_size=96, rope_theta=20_000.0, norm_eps=1e-5)


@pytest.fixture
def hf_folder(checkpoint, tokenizer, tmp_path):
    """A function that makes a folder with transformers."""
    from transformers import LlamaConfig, LlamaForCausalLM

    def make(tied: bool = False, **saving: Any):
        torch.manual_seed(1)
        config: Any = LlamaConfig(
            vocab_size=tokenizer.vocab_size,
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=96,
            tie_word_embeddings=tied,
            initializer_range=0.15,
            bos_token_id=tokenizer.end_of_text_id,
            eos_token_id=tokenizer.end_of_text_id,
        )
        model = LlamaForCausalLM(config).eval()
        folder = tmp_path / "hf"
        model.save_pretrained(folder, **saving)
        tokenizer.save(folder)
        return folder, model

    return make


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("shard", ["5GB", "40KB"])
def test_a_transformers_folder_computes_the_same(hf_folder, tied, shard, ids, tmp_path):
    folder, model = hf_folder(tied, max_shard_size=shard)
    assert (folder / "model.safetensors.index.json").exists() == (shard == "40KB")
    import_model(folder, tmp_path / "imported")
    with torch.no_grad():
        expected, found = model(ids).logits, load_model(tmp_path / "imported")(ids)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    verify_checksums(tmp_path / "imported")
    engine = Engine.load(tmp_path / "imported", "cpu")
    assert engine.generate("Once", 8, SamplingParams(temperature=0))


def test_pytorch_bin_weights_are_read(hf_folder, ids, tmp_path):
    folder, model = hf_folder()
    state = load_file(folder / "model.safetensors")
    state["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    import_model(folder, tmp_path / "imported")
    with torch.no_grad():
        assert torch.allclose(load_model(tmp_path / "imported")(ids), model(ids).logits, atol=1e-4)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("buffers", [False, True])
@pytest.mark.parametrize("file", ["a.pt", "a.safetensors", "pytorch_model.bin", "shards"])
def test_bare_files_of_all_kinds_are_read(hf_folder, tied, buffers, file, ids, tmp_path):
    folder, model = hf_folder(tied)
    state = load_file(folder / "model.safetensors")
    assert ("lm_head.weight" in state) != tied
    if buffers:
        state["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
    (folder / "model.safetensors").unlink()
    if file == "shards":
        parts = {"1.bin": dict([*state.items()][:5]), "2.bin": dict([*state.items()][5:])}
        for name, part in parts.items():
            torch.save(part, folder / name)
        listed = {tensor: name for name, part in parts.items() for tensor in part}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": listed}))
    else:
        save = save_file if file.endswith("safetensors") else torch.save
        save(state, folder / file)
    path = folder if file in ("pytorch_model.bin", "shards") else folder / file
    if path == folder:
        with torch.no_grad():  # without a conversion, too
            assert torch.allclose(load_model(folder)(ids), model(ids).logits, atol=1e-4)
        hints: dict[str, Any] = {}
    else:
        given = TensorFileHints(n_head=4, block_size=96, rope_theta=10_000.0, norm_eps=1e-6)
        hints = {"hints": given, "tokenizer_folder": folder}
    import_model(path, tmp_path / "imported", **hints)
    with torch.no_grad():
        assert torch.allclose(load_model(tmp_path / "imported")(ids), model(ids).logits, atol=1e-4)


@pytest.mark.parametrize("angles", [True, False])
@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
@pytest.mark.parametrize("wrapped", [True, False])
def test_the_published_file_computes_as_described(angles, ending, wrapped, tokenizer, tmp_path):
    weights = published(CONFIG)
    if not angles:
        del weights["freqs_cis"]
    path = tmp_path / f"model{ending}"
    if ending == ".pt":
        torch.save({"model": weights, "step": 7} if wrapped else weights, path)
    else:
        save_file(weights, path)
    tokenizer_folder = tmp_path / "words"
    # no tokenizer has as few tokens as the vocabulary of this model
    with pytest.raises(ValueError, match="has 131 tokens and no tokenizer"):
        import_model(path, tmp_path / "imported", TensorFileHints(n_head=4))
    tokenizer.save(tokenizer_folder)
    with pytest.raises(ValueError, match="more than the model's 131"):
        import_model(path, tmp_path / "imported", TensorFileHints(n_head=4), tokenizer_folder)
    larger = {**weights}
    for name in ("token_embedding_table.weight", "lm_head.weight"):
        larger[name] = torch.cat([weights[name], torch.zeros(tokenizer.vocab_size - 131, 64)])
    torch.save(larger, path) if ending == ".pt" else save_file(larger, path)
    hints = TensorFileHints() if angles else TensorFileHints(n_head=4, block_size=32)
    import_model(path, tmp_path / "imported", hints, tokenizer_folder)
    model = load_model(tmp_path / "imported")
    ids = torch.randint(131, (2, 32), generator=torch.Generator().manual_seed(0))
    expected = reference(weights, CONFIG, ids)
    torch.testing.assert_close(
        model(ids).detach()[..., :131], expected.float(), atol=1e-4, rtol=1e-4
    )
    assert model.config.block_size == 32 and model.config.n_head == 4


def test_a_tensor_file_without_heads_names_the_option(checkpoint, tmp_path):
    exported = export_model(checkpoint, "pt", out=tmp_path / "m.pt").path
    state = torch.load(exported, weights_only=True)
    path = tmp_path / "model.pt"
    torch.save(dict(state), path)  # without the shape in the state dict's metadata
    with pytest.raises(ValueError, match=r"how many heads it has; pass --n-head\.$"):
        import_model(path, tmp_path / "imported", tokenizer_folder=checkpoint)
    with pytest.raises(ValueError, match="5 heads do not fit keys of 32 rows at a width of 64"):
        import_model(path, tmp_path / "imported", TensorFileHints(n_head=5), checkpoint)


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("code-was-run",)


def test_code_in_a_file_is_never_run(tmp_path, monkeypatch, hf_folder):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Hostile()}, "a.pt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps(Hostile()))
    folder, _ = hf_folder()
    (folder / "model.safetensors").unlink()
    torch.save({"lm_head.weight": Hostile()}, folder / "pytorch_model.bin")
    for path in (tmp_path / "a.pt", tmp_path / "b.pt", folder):
        with pytest.raises(ValueError, match="was not opened, since that could run code") as error:
            import_model(path, tmp_path / "out")
        assert "weights_only" not in str(error.value) and "torch.load" not in str(error.value)
    assert not (tmp_path / "code-was-run").exists() and not (tmp_path / "out").exists()


@pytest.mark.parametrize("ending", [".pt", ".safetensors", ".gguf", ""])
@pytest.mark.parametrize("kept", [0, 3, 60, 0.5, 0.98])
def test_truncated_files_are_one_sentence(ending, kept, checkpoint, tmp_path):
    to: Any = ending.removeprefix(".") or "folder"
    path = export_model(checkpoint, to, "auto", tmp_path / f"intact{ending}").path
    file = path if ending else path / "model.safetensors"
    os.truncate(file, int(kept * file.stat().st_size) if isinstance(kept, float) else kept)
    with pytest.raises(ValueError, match=r"\.$") as caught:
        import_model(path, tmp_path / "out", HINTS, checkpoint if ending != "" else None)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name]


@pytest.mark.parametrize("ending", [".pt", ".safetensors", ".gguf"])
def test_mislabeled_files_are_one_sentence(ending, checkpoint, tmp_path):
    others = {"text": b"Once upon a time\n" * 99, "zip": b"PK\3\4" + b"\0" * 99}
    for other in ({".pt": "gguf", ".safetensors": "pt", ".gguf": "safetensors"}[ending],):
        path = export_model(checkpoint, other, "auto", tmp_path / f"intact.{other}").path  # type: ignore[arg-type]
        others[other] = path.read_bytes()
    for content in others.values():
        path = tmp_path / f"mislabeled{ending}"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"mislabeled.*\.$") as caught:
            import_model(path, tmp_path / "out", HINTS, checkpoint)
        assert "\n" not in str(caught.value)


def test_tensors_that_do_not_fit_are_named(checkpoint, tmp_path):
    exported = export_model(checkpoint, "pt", out=tmp_path / "m.pt").path
    state = torch.load(exported, weights_only=True)
    path = tmp_path / "changed.pt"
    gate = "blocks.1.feed_forward.w1.weight"
    changed: list[tuple[dict[str, Any], str]] = [
        ({"blocks.1.attention.bias": torch.ones(64)}, "has no tensor 'blocks.1.attention.bias'"),
        ({gate: state[gate][:-1]}, r"layers\.1\.mlp\.gate_proj\.weight is \[95, 64\] and must"),
        ({gate: state[gate].int()}, r"gate_proj\.weight is int32; convert it to fp32"),
        ({gate: 7}, "w1.weight', which is not a tensor"),
    ]
    for change, message in changed:
        torch.save({**state, **change}, path)
        with pytest.raises(ValueError, match=message):
            import_model(path, tmp_path / "out", HINTS, checkpoint)
    # one number that claims to be a matrix of gigabytes
    rows = torch.zeros(1).expand(2**24, 64)
    torch.save({**state, "token_embedding_table.weight": rows, "lm_head.weight": rows}, path)
    with pytest.raises(ValueError, match=r"claims more numbers than its .* bytes hold"):
        import_model(path, tmp_path / "out", HINTS, checkpoint)


def test_a_weight_index_cannot_leave_its_folder(hf_folder, tmp_path):
    folder, _ = hf_folder(max_shard_size="40KB")
    outside = tmp_path / "outside.safetensors"
    shutil.copy(next(folder.glob("model-00001*")), outside)
    index = folder / "model.safetensors.index.json"
    listed = json.loads(index.read_text())
    for name in ("../outside.safetensors", str(outside), "..", "model-99999.safetensors"):
        first = next(iter(listed["weight_map"]))
        listed["weight_map"][first] = name
        index.write_text(json.dumps(listed))
        with pytest.raises(
            (ValueError, FileNotFoundError), match=r"not a file in its folder|has no"
        ):
            import_model(folder, tmp_path / "imported")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"num_hidden_layers": 10**9},
            "num_hidden_layers is 1000000000; .* at most 1,000",
        ),
        ({"num_hidden_layers": 5000}, "num_hidden_layers is 5000; it must be"),
        ({"hidden_size": 2**40}, "hidden_size is 1099511627776; .* at most 16,777,216"),
        ({"vocab_size": 2**23}, r"lm_head\.weight is \[\d+, 64\] and must be \[8388608, 64\]"),
        ({"mlp_bias": True}, r"mlp\.down_proj\.bias is missing and must be \[64\]"),
        ({"rope_parameters": {"rope_type": "longrope"}}, "rope_type 'longrope'"),
        ({"model_type": "gemma"}, "model_type = 'gemma'"),
    ],
)
def test_unsupported_configs_are_one_sentence(hf_folder, change, message, tmp_path):
    folder, _ = hf_folder()
    config = folder / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **change}))
    with pytest.raises(ValueError, match=message):
        import_model(folder, tmp_path / "imported")


def test_unsupported_gguf_files_are_named(checkpoint, tmp_path):
    pytest.importorskip("gguf")
    path = export_model(checkpoint, "gguf", "q8_0", tmp_path / "q8.gguf").path
    with pytest.raises(ValueError, match="is Q8_0; only F32, F16 and BF16 can be imported"):
        import_model(path, tmp_path / "out")
    content = export_model(checkpoint, "gguf", "fp32", tmp_path / "f32.gguf").path.read_bytes()
    for old, new, message in [
        (b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0gemma", "the kind 'gemma'"),
        (b"gpt-2", b"gpt-3", "the split 'gpt-3'"),
        (b"blk.1.ffn_up.weight", b"blk.1.ffn_un.weight", "ffn_un.weight does not belong"),
    ]:
        assert old in content
        path = tmp_path / "changed.gguf"
        path.write_bytes(content.replace(old, new))
        with pytest.raises(ValueError, match=message):
            import_model(path, tmp_path / "out")
