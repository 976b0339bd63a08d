"""Models are found by path, by file and by their name on the Hub, with the real client."""

import shutil

import huggingface_hub.constants as constants
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.data.hf_hub.faults import status
from tests.data.hf_hub.hub_server import Hub, point_client_to
from tests.model.families import save_model_of

from gnano.export.formats import export_model
from gnano.export.model_resolver import resolve_model
from gnano.infer.engine import Engine
from gnano.model.hf_io import load_model
from gnano.utils import hf_errors

NOT_NEEDED = {
    "README.md": b"# me",
    "model.onnx": b"x",
    "original/consolidated.00.pth": b"x",
    "pytorch_model.bin": b"x",
    "training_args.bin": b"x",
}


@pytest.fixture
def files(checkpoint):
    return {path.name: path.read_bytes() for path in checkpoint.iterdir()}


@pytest.fixture
def hub(monkeypatch, tmp_path, files):
    """A Hub with one model, in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hf_errors, "sleep", lambda seconds: None)
    served = Hub(tokens={"hf_other"}, readers={"hf_reader"})
    served.add("me/small", files | NOT_NEEDED)
    with served:
        point_client_to(served, monkeypatch, tmp_path / "home")
        yield served


def same_weights(folder, other):
    ours, theirs = load_model(folder).state_dict(), load_model(other).state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


def fetched(hub):
    """Return the names of the files whose content was requested."""
    return {r.path.split("/resolve/")[1].split("/", 1)[1] for r in hub.requests_for("/resolve/")}


def test_a_name_gives_the_model_with_only_the_files_that_it_needs(hub, checkpoint, files):
    folder = resolve_model("me/small")
    assert {path.name for path in folder.iterdir()} == files.keys() - {"files.json"}
    assert same_weights(folder, checkpoint)
    assert not fetched(hub) & NOT_NEEDED.keys()
    assert Engine.load(folder).generate("Once", 4)


def test_a_second_use_downloads_nothing_and_works_offline(hub, monkeypatch):
    folder = resolve_model("me/small")
    hub.requests.clear()
    assert resolve_model("me/small") == folder
    assert not fetched(hub)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    assert resolve_model("me/small") == folder
    assert not hub.requests


def test_an_unreachable_hub_is_replaced_by_the_cache_and_says_so(hub):
    folder = resolve_model("me/small")
    hub.faults["/api/models/me/small"] = [status(503)] * 10
    notes: list[str] = []
    assert resolve_model("me/small", notes.append) == folder
    assert notes == ["The Hub is unreachable; me/small is read from the cache."]


@pytest.mark.parametrize("offline", [False, True])
def test_a_model_that_is_not_in_the_cache_needs_the_hub(hub, monkeypatch, offline):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    hub.faults["/api/models/me/small"] = [status(503)] * 10
    expected = "HF_HUB_OFFLINE" if offline else "503"
    with pytest.raises((ValueError, OSError), match=rf"There is no me/small here\. .*{expected}"):
        resolve_model("me/small")


def test_a_revision_is_one_commit(hub, files, checkpoint):
    first = resolve_model("me/small@main")
    commit = first.name
    changed = dict(files)
    changed["generation_config.json"] = files["generation_config.json"] + b" "
    hub.add("me/small", changed)
    hub.repositories["me/small"].revisions["v1"] = commit
    assert resolve_model("me/small").name != commit
    with pytest.raises(ValueError, match="has no such branch, tag or commit"):
        resolve_model("me/small@v2")


@pytest.mark.parametrize("name", ["me/none", "nobody/small"])
def test_a_missing_model_is_one_sentence(hub, name):
    expected = rf"^The Hub has no model {name} \(http.*that you may read"
    with pytest.raises(ValueError, match=expected):
        resolve_model(name)


def test_a_gated_model_says_where_to_accept_its_license(hub, files):
    hub.add("me/gated", files, gated=True)
    with pytest.raises(ValueError, match=r"^me/gated is gated: accept its license at http"):
        resolve_model("me/gated")


def test_a_path_that_exists_wins_and_says_so_if_the_hub_has_been_used(hub, checkpoint, tmp_path):
    notes: list[str] = []
    resolve_model("me/small", notes.append)
    shutil.copytree(checkpoint, tmp_path / "me/small")
    hub.requests.clear()
    assert resolve_model("me/small", notes.append).resolve() == (tmp_path / "me/small").resolve()
    assert notes == ["me/small is read from the folder of that name, not from the Hub."]
    assert not hub.requests


@pytest.mark.parametrize("name", ["runs/nothing", "/me/small", "me", "./me/small", "a/b/c"])
def test_what_can_only_be_a_path_is_never_asked_for(hub, tmp_path, name):
    (tmp_path / "runs").mkdir()
    assert str(resolve_model(name)) == name.removeprefix("./")
    assert not hub.requests


def test_shards_come_with_their_index(hub, checkpoint, files, tmp_path):
    weights = load_file(checkpoint / "model.safetensors")
    names = sorted(weights)
    parts = {"model-00001-of-00002.safetensors": names[::2]}
    parts["model-00002-of-00002.safetensors"] = names[1::2]
    sharded = {name: content for name, content in files.items() if name != "model.safetensors"}
    for file, own in parts.items():
        save_file({name: weights[name] for name in own}, tmp_path / file)
        sharded[file] = (tmp_path / file).read_bytes()
    sharded["model.safetensors.index.json"] = b"{}"
    hub.add("me/sharded", sharded | NOT_NEEDED)
    folder = resolve_model("me/sharded")
    found = {path.name for path in folder.iterdir()}
    assert {*parts, "model.safetensors.index.json"} <= found
    assert "pytorch_model.bin" not in found


@pytest.mark.parametrize("target", ["gguf", "pt", "safetensors"])
def test_a_weight_file_is_converted_once(hub, checkpoint, tmp_path, target):
    if target == "gguf":
        pytest.importorskip("gguf")
    file = tmp_path / f"small.{target}"
    export_model(checkpoint, target, "fp32", file)
    notes: list[str] = []
    tokenizer = () if target == "gguf" else ("tokenizer.json", "tokenizer_config.json")
    if tokenizer:  # a lone file has none, and this one is not GPT-2's
        named = {file.name: file.read_bytes()}
        named |= {name: (checkpoint / name).read_bytes() for name in tokenizer}
        hub.add("me/lone", named)
        name = "me/lone"
    else:
        name = str(file)
    folder = resolve_model(name, notes.append)
    assert same_weights(folder, checkpoint)
    assert resolve_model(name, notes.append) == folder
    assert len(notes) == 1 and notes[0].startswith("Converting ")
    assert Engine.load(folder).generate("Once", 4)


def test_of_several_weight_files_the_base_is_taken_or_the_one_that_is_named(
    hub, checkpoint, tmp_path
):
    tokenizer = {"tokenizer.json": (checkpoint / "tokenizer.json").read_bytes()}
    export_model(checkpoint, "safetensors", "fp32", tmp_path / "base.safetensors")
    export_model(checkpoint, "safetensors", "bf16", tmp_path / "other.safetensors")
    base = (tmp_path / "base.safetensors").read_bytes()
    other = (tmp_path / "other.safetensors").read_bytes()
    names = ("model_sft.safetensors", "model_latest.pt", "x.safetensors")
    hub.add("me/lone", {"model.safetensors": base, **dict.fromkeys(names, other), **tokenizer})
    hub.add("me/two", dict.fromkeys(names[::2], other) | tokenizer)
    assert load_model(resolve_model("me/lone")).lm_head.weight.dtype == torch.float32
    assert fetched(hub) == {"model.safetensors", "tokenizer.json"}
    tuned = resolve_model("me/lone:model_sft.safetensors")
    assert load_model(tuned).lm_head.weight.dtype == torch.bfloat16
    with pytest.raises(ValueError, match=r"several weight files, model_sft\.safetensors, x\.saf"):
        resolve_model("me/two")
    with pytest.raises(ValueError, match=r"me/two has no weight file y\.pt; it has model_sft"):
        resolve_model("me/two:y.pt")
    hub.add("me/empty", {"README.md": b"x"})
    with pytest.raises(ValueError, match=r"me/empty is not a model: it has no config\.json"):
        resolve_model("me/empty")


def test_a_connection_that_breaks_during_a_download_is_retried(hub, checkpoint):
    hub.faults["/storage/me/small/model.safetensors"] = [status(503)] * 2
    hub.faults["/resolve/"] = [status(503)] * 2
    assert same_weights(resolve_model("me/small"), checkpoint)


def test_a_sliding_window_that_no_text_exceeds_is_mentioned(tmp_path):
    notes: list[str] = []
    for family in ("mistral", "llama"):
        save_model_of(family, tmp_path / family)
        assert resolve_model(tmp_path / family, notes.append) == tmp_path / family
    assert notes == ["The sliding window of 128 tokens is not used: no text is longer."]
