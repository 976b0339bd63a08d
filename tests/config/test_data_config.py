from dataclasses import fields, replace
from typing import Any, get_args, get_type_hints

import pytest

from gnano.config.data_config import DataConfig, InstructionConfig, InstructionSource, SourceConfig


@pytest.mark.parametrize("weight", [-1, -0.001, float("nan"), float("inf")])
def test_a_weight_that_is_no_share_is_refused(weight):
    with pytest.raises(ValueError, match=f"weight is {weight}"):
        SourceConfig(weight=weight)


def test_generated_text_is_bounded_in_bytes_and_only_so():
    with pytest.raises(ValueError, match="'generator' needs max_bytes"):
        SourceConfig(kind="generator", generator="a:b")
    with pytest.raises(ValueError, match="'generator' takes max_bytes, not max_tokens"):
        SourceConfig(kind="generator", generator="a:b", max_bytes=1, max_tokens=1)
    assert SourceConfig(kind="generator", generator="a:b", max_bytes=1).max_bytes == 1


@pytest.mark.parametrize("make", [SourceConfig, InstructionSource])
@pytest.mark.parametrize("path", ["", "a", "a:", ":b", "a b:c", ".a:b", "a:b()", "a:b:c"])
def test_a_generator_is_named_by_module_and_object(make, path):
    with pytest.raises(ValueError, match="needs generator, MODULE:OBJECT"):
        make(kind="generator", generator=path)


@pytest.mark.parametrize("kind", ["files", "hub"])
def test_read_text_is_bounded_in_tokens_and_only_so(kind):
    repo = "user/name" if kind == "hub" else ""
    with pytest.raises(ValueError, match=f"'{kind}' takes max_tokens, not max_bytes"):
        SourceConfig(kind=kind, repo=repo, max_bytes=1)
    assert SourceConfig(kind=kind, repo=repo, max_tokens=1).max_tokens == 1


@pytest.mark.parametrize("key", ["max_tokens", "max_bytes", "min_chars", "max_chars"])
def test_a_bound_below_0_is_refused(key):
    changed: dict[str, Any] = {key: -1}
    with pytest.raises(ValueError, match=f"{key} is -1"):
        replace(SourceConfig(), **changed)


def test_bounds_that_let_no_document_through_are_refused():
    with pytest.raises(ValueError, match="max_chars 9 is below its min_chars 10"):
        SourceConfig(min_chars=10, max_chars=9)
    SourceConfig(min_chars=10, max_chars=10)
    SourceConfig(min_chars=10, max_chars=0)  # no upper bound


@pytest.mark.parametrize("repo", ["", "name", "a/b/c"])
def test_a_hub_source_names_its_data_set(repo):
    with pytest.raises(ValueError, match=f"needs repo, USER/NAME.*it is {repo!r}"):
        SourceConfig(kind="hub", repo=repo)


def test_a_hub_source_with_files_is_refused():
    with pytest.raises(ValueError, match="takes repo and config"):
        SourceConfig(kind="hub", repo="user/name", files=("a.txt",))


@pytest.mark.parametrize("make", [SourceConfig, InstructionSource])
def test_a_setting_that_its_kind_has_no_use_for_is_refused(make):
    """Every field that the comments give to some kinds only, with every other kind."""
    settings: dict[str, Any] = {
        "files": ("a.txt",),
        "column": "body",
        "generator": "a:b",
        "repo": "user/name",
        "config": "x",
        "split": "test",
        "revision": "x",
    }
    needed: dict[str, dict[str, Any]] = {
        "files": {"files": ("b",)},
        "hub": {"repo": "user/other"},
        "generator": {"generator": "c:d"} | ({"max_bytes": 1} if make is SourceConfig else {}),
    }
    uses = {"files": {"files", "column"}, "hub": {*settings} - {"files", "generator"}}
    uses["generator"] = {"generator"}
    known = [field.name for field in fields(make)]
    kinds = get_args(get_type_hints(make)["kind"])
    refused = 0
    for kind in kinds:
        for key in set(settings) & set(known):
            asked = {**needed[kind], key: settings[key]}
            if key in uses.get(kind, set()):
                assert getattr(make(kind=kind, **asked), key) == settings[key]
                continue
            unused = rf"\.{key} is .* no effect where kind is '{kind}'|kind '{kind}' takes "
            with pytest.raises(ValueError, match=unused):
                make(kind=kind, **asked)
            refused += 1
    assert refused >= 10


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
@pytest.mark.parametrize("make", [DataConfig, InstructionConfig])
def test_a_share_of_bad_records_outside_0_to_1_is_refused(make, share):
    with pytest.raises(ValueError, match=rf"data\.max_bad_share is {share}"):
        make(max_bad_share=share)


@pytest.mark.parametrize("share", [-0.1, 1, 1.5, float("nan")])
def test_a_held_out_share_outside_0_to_1_is_refused(share):
    with pytest.raises(ValueError, match=rf"data\.heldout is {share}"):
        DataConfig(heldout_fraction=share)


@pytest.mark.parametrize("tokens", [0, -5, 2**31])
def test_a_shard_size_that_no_file_can_have_is_refused(tokens):
    with pytest.raises(ValueError, match=rf"data\.shard_tokens is {tokens}"):
        DataConfig(shard_tokens=tokens)


@pytest.mark.parametrize("key", ["seed", "workers"])
def test_a_seed_or_a_number_of_workers_below_0_is_refused(key):
    changed: dict[str, Any] = {key: -1}
    with pytest.raises(ValueError, match=rf"data\.{key} is -1"):
        replace(DataConfig(), **changed)


def test_a_mix_of_nothing_is_refused():
    with pytest.raises(ValueError, match=r"weights of data\.sources are 0"):
        DataConfig(sources={"a": SourceConfig(weight=0), "b": SourceConfig(weight=0)})
    DataConfig(sources={"a": SourceConfig(weight=0), "b": SourceConfig(weight=1)})


@pytest.mark.parametrize("name", ["", "..", "a/b", "../a", "a b", "a.partial", "/a", "a\\b", "-"])
def test_a_source_name_that_could_leave_the_folder_is_refused(name):
    with pytest.raises(ValueError, match="names a folder"):
        DataConfig(sources={name: SourceConfig()})


@pytest.mark.parametrize("name", ["a", "fineweb-edu", "my_code", "web2"])
def test_a_plain_source_name_is_taken(name):
    assert list(DataConfig(sources={name: SourceConfig()}).sources) == [name]


def test_names_that_differ_in_case_alone_are_refused():
    """On macOS their folders would be one, and each would overwrite the other's shards."""
    source = SourceConfig(weight=1.0, files=("a.txt",))
    with pytest.raises(ValueError, match=r"'web' and 'Web' would share one folder"):
        DataConfig(sources={"web": source, "code": source, "Web": source})
