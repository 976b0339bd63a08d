"""Facts that a model's files state twice: all readers refuse files that state them differently.

Programs differ in which statement they use, so such a file is a different model for each of them.
"""

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from gnano.config.inference_config import LoadConfig
from gnano.data.sft.chat_template import ALPACA, ChatTemplate, read_template, save_template
from gnano.evals.model_adapter import load_eval_model
from gnano.export.formats import export_model
from gnano.export.importing import import_model
from gnano.export.tensor_file import TensorFileHints, load_export_source
from gnano.infer.engine import Engine
from gnano.model.hf_io import load_config, load_parameters
from gnano.tokenizer.hf_tokenizer import load_tokenizer

READERS: dict[str, Callable[[Path, Path], Any]] = {
    "generate": lambda folder, _: Engine.load(folder, "cpu"),
    "eval": lambda folder, _: load_eval_model(folder, LoadConfig(device="cpu")),
    "export": lambda folder, _: load_export_source(folder),
    "import": import_model,
}
CONFIG, GENERATION = "config.json", "generation_config.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
OLD, NEW = "rope_scaling", "rope_parameters"
# file, changed facts, and words of the error
CONFLICTS: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "theta, old": (CONFIG, {"rope_theta": 1e4}, ["rope_theta is 10000.0", f"{NEW}.rope_theta"]),
    "theta, new": (CONFIG, {NEW: {"rope_theta": 5e5}}, [f"{NEW}.rope_theta is 500000.0"]),
    "theta, scaling": (CONFIG, {OLD: {"rope_theta": 5e5}}, [f"{OLD}.rope_theta is 500000.0"]),
    "scaling": (CONFIG, {OLD: {"type": "linear", "factor": 4.0}}, ["'default'", "'linear'"]),
    "head size": (CONFIG, {"head_dim": 32}, ["k_proj", "[32, 64]", "[64, 64]"]),
    "layers": (CONFIG, {"num_hidden_layers": 3}, ["model.layers.2.", "missing"]),
    "width": (CONFIG, {"intermediate_size": 128}, ["[64, 96]", "[64, 128]"]),
    "vocabulary": (CONFIG, {"vocab_size": 310}, ["[300, 64]", "[310, 64]"]),
    "smaller vocabulary": (CONFIG, {"vocab_size": 290}, ["300", "290"]),
    "last token": (CONFIG, {"eos_token_id": 2}, ["eos_token", "config.json is 2"]),
    "first token": (CONFIG, {"bos_token_id": 1}, ["bos_token", "config.json is 1"]),
    "last tokens": (GENERATION, {"eos_token_id": [2, 3]}, ["generation_config.json is [2, 3]"]),
    "last token's name": (TOKENIZER_CONFIG, {"eos_token": "</s>"}, ["eos_token", "'</s>'"]),
    "first token's": (TOKENIZER_CONFIG, {"bos_token": {"content": "<s>"}}, ["bos_token", "'<s>'"]),
}


@pytest.fixture
def folder(checkpoint, tmp_path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "model"))


def state(path: Path, statements: dict[str, Any]) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **statements}))


@pytest.mark.parametrize("reader", READERS)
def test_consistent_files_are_opened(folder, reader, tmp_path):
    state(folder / CONFIG, {"eos_token_id": [load_tokenizer(folder).end_of_text_id]})
    state(folder / TOKENIZER_CONFIG, {"model_max_length": 10**30})  # governs nothing, as elsewhere
    assert READERS[reader](folder, tmp_path / "out")


# transformers opens what our engine does not support, and checks these itself
BY_TRANSFORMERS = {("head size", "eval"), ("smaller vocabulary", "eval")}


@pytest.mark.parametrize(
    ("fact", "reader"),
    [pair for pair in itertools.product(CONFLICTS, READERS) if pair not in BY_TRANSFORMERS],
)
def test_conflicting_facts_are_refused_by_every_reader(folder, fact, reader, tmp_path):
    file, statements, words = CONFLICTS[fact]
    state(folder / file, statements)
    with pytest.raises(ValueError) as refused:
        READERS[reader](folder, tmp_path / "out")
    message = str(refused.value)
    assert all(word in message for word in words) and "\n" not in message, message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["rope_theta", "norm_eps", "block_size"])
def test_a_recipe_that_differs_from_the_config_is_refused(folder, name):
    config = load_config(folder)
    assert load_parameters(folder, config)  # as they are, they agree
    keys = {"rope_theta": NEW, "norm_eps": "rms_norm_eps", "block_size": "max_position_embeddings"}
    other = (
        {NEW: None, "rope_theta": 5e5}
        if name == "rope_theta"
        else {keys[name]: 0.5 if name == "norm_eps" else 97}
    )
    state(folder / CONFIG, other)
    with pytest.raises(ValueError, match=rf"model\.{name} is stated twice, and differently"):
        load_parameters(folder, config)


def test_a_tied_head_equals_the_embedding(folder, tmp_path):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    state(folder / CONFIG, {"tie_word_embeddings": True})
    with pytest.raises(ValueError, match=r"lm_head\.weight is not its model\.embed_tokens"):
        import_model(folder, tmp_path / "out")
    del tensors["lm_head.weight"]
    save_file(tensors, path)
    import_model(folder, tmp_path / "out")
    state(folder / CONFIG, {"tie_word_embeddings": False})
    with pytest.raises(ValueError, match=r"lm_head\.weight is missing"):
        import_model(folder, tmp_path / "other")


def test_a_weight_index_must_match_the_files(folder, tmp_path):
    path = folder / "model.safetensors"
    names, shard = sorted(load_file(path)), "model-00001-of-00001.safetensors"
    path.rename(folder / shard)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys(names, shard)}))
    import_model(folder, tmp_path / "out")
    index.write_text(json.dumps({"weight_map": dict.fromkeys(names[1:], shard)}))
    with pytest.raises(ValueError, match=rf"{shard} holds {names[0]}, but the index"):
        import_model(folder, tmp_path / "other")


def test_template_json_must_match_the_jinja_template(folder):
    save_template(ALPACA, folder)
    assert read_template(folder) == ALPACA
    jinja = folder / "chat_template.jinja"
    jinja.write_text(jinja.read_text().replace("Instruction", "Question"))
    with pytest.raises(ValueError, match="state different formats"):
        read_template(folder)
    (folder / "template.json").unlink()
    found = read_template(folder)  # from the Jinja alone
    assert isinstance(found, ChatTemplate)
    assert found.user == ALPACA.user.replace("Instruction", "Question")


@pytest.mark.parametrize("to", ["pt", "safetensors", "folder", "gguf"])
@pytest.mark.parametrize("name", ["n_head", "block_size", "rope_theta", "norm_eps"])
def test_an_option_that_differs_from_the_file_is_refused(checkpoint, to, name, tmp_path):
    path = export_model(checkpoint, to, out=tmp_path / f"model.{to}").path
    known = getattr(load_config(checkpoint), name)
    words = None if to == "gguf" else checkpoint
    import_model(path, tmp_path / "same", TensorFileHints(**{name: known}), words)
    other = TensorFileHints(**{name: known / 2 if known < 1 else known * 2})
    with pytest.raises(ValueError, match=rf"{name} is stated twice, and differently: the option"):
        import_model(path, tmp_path / "other", other, words)


def test_the_rotary_angles_must_match_the_base(checkpoint, tmp_path):
    config = load_config(checkpoint)
    path = export_model(checkpoint, "pt", out=tmp_path / "model.pt").path
    tensors = dict(torch.load(path, weights_only=True))
    turns = torch.arange(0, config.head_size, 2).double() / config.head_size
    for theta in (config.rope_theta, 500_000.0):
        angles = torch.outer(torch.arange(config.block_size).double(), theta**-turns)
        tensors["freqs_cis"] = torch.polar(torch.ones_like(angles), angles)
        torch.save(tensors, path)
        given = TensorFileHints(rope_theta=config.rope_theta, norm_eps=config.norm_eps)
        if theta == config.rope_theta:
            import_model(path, tmp_path / "same", given, checkpoint)
            continue
        with pytest.raises(ValueError, match=r"base of about 500,000, not 20,000"):
            import_model(path, tmp_path / "other", given, checkpoint)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("tokenizer.ggml.eos_token_id", "the id of eos_token"),
        ("tokenizer.ggml.bos_token_id", "the id of bos_token"),
        ("llama.vocab_size", "the number of tokens"),
    ],
)
def test_gguf_metadata_must_match_tensors_and_tokens(checkpoint, key, words, tmp_path):
    gguf = pytest.importorskip("gguf")
    path = export_model(checkpoint, "gguf", "fp32", tmp_path / "model.gguf").path
    field = gguf.GGUFReader(path, "r+").get_field(key)
    field.parts[field.data[0]][0] = 7
    with pytest.raises(ValueError, match=f"{words} is stated twice, and differently"):
        import_model(path, tmp_path / "out")
