"""Data settings that cannot be used are refused by their key."""

from dataclasses import fields
from typing import Any, get_args, get_type_hints

import pytest

from gnano.config.data_config import DataConfig, InstructionConfig, InstructionSource, SourceConfig


def test_generated_text_is_limited_in_bytes():
    with pytest.raises(ValueError, match="'generator' needs max_bytes"):
        SourceConfig(kind="generator", generator="a:b")
    with pytest.raises(ValueError, match="'generator' takes max_bytes, not max_tokens"):
        SourceConfig(kind="generator", generator="a:b", max_bytes=1, max_tokens=1)
    assert SourceConfig(kind="generator", generator="a:b", max_bytes=1).max_bytes == 1


@pytest.mark.parametrize("make", [SourceConfig, InstructionSource])
@pytest.mark.parametrize("path", ["", "a", "a:", ":b", "a b:c", ".a:b", "a:b()", "a:b:c"])
def test_a_generator_is_given_as_module_and_object(make, path):
    with pytest.raises(ValueError, match="needs generator, MODULE:OBJECT"):
        make(kind="generator", generator=path)


@pytest.mark.parametrize("kind", ["files", "hub"])
def test_files_are_limited_in_tokens(kind):
    repo = "user/name" if kind == "hub" else ""
    with pytest.raises(ValueError, match=f"'{kind}' takes max_tokens, not max_bytes"):
        SourceConfig(kind=kind, repo=repo, max_bytes=1)
    assert SourceConfig(kind=kind, repo=repo, max_tokens=1).max_tokens == 1


def test_limits_that_exclude_all_documents_are_refused():
    with pytest.raises(ValueError, match="max_chars 9 is below its min_chars 10"):
        SourceConfig(min_chars=10, max_chars=9)
    SourceConfig(min_chars=10, max_chars=10)
    SourceConfig(min_chars=10, max_chars=0)  # no upper limit


@pytest.mark.parametrize("repo", ["", "name", "a/b/c"])
def test_a_hub_source_needs_a_data_set(repo):
    with pytest.raises(ValueError, match=f"needs repo, USER/NAME.*it is {repo!r}"):
        SourceConfig(kind="hub", repo=repo)


def test_a_hub_source_with_files_is_refused():
    with pytest.raises(ValueError, match=r"files is .* no effect where kind is 'hub'"):
        SourceConfig(kind="hub", repo="user/name", files=("a.txt",))


@pytest.mark.parametrize("make", [SourceConfig, InstructionSource])
def test_a_setting_without_effect_for_its_kind_is_refused(make):
    """Every setting that only some kinds use, with every other kind."""
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
            given = {**needed[kind], key: settings[key]}
            if key in uses.get(kind, set()):
                assert getattr(make(kind=kind, **given), key) == settings[key]
                continue
            unused = rf"\.{key} is .* no effect where kind is '{kind}'|kind '{kind}' takes "
            with pytest.raises(ValueError, match=unused):
                make(kind=kind, **given)
            refused += 1
    assert refused >= 10


@pytest.mark.parametrize("make", [DataConfig, InstructionConfig])
def test_not_all_texts_are_held_out(make):
    with pytest.raises(ValueError, match=r"data\.heldout_fraction is 1; .* less than 1"):
        make(heldout_fraction=1)


def test_weights_that_are_all_0_are_refused():
    with pytest.raises(ValueError, match=r"weights of data\.sources are 0"):
        DataConfig(sources={"a": SourceConfig(weight=0), "b": SourceConfig(weight=0)})
    DataConfig(sources={"a": SourceConfig(weight=0), "b": SourceConfig(weight=1)})


@pytest.mark.parametrize("name", ["", "..", "a/b", "../a", "a b", "a.partial", "/a", "a\\b", "-"])
def test_a_source_name_that_could_leave_the_folder_is_refused(name):
    with pytest.raises(ValueError, match="becomes a folder"):
        DataConfig(sources={name: SourceConfig()})


@pytest.mark.parametrize("name", ["a", "fineweb-edu", "my_code", "web2"])
def test_a_plain_source_name_is_accepted(name):
    assert list(DataConfig(sources={name: SourceConfig()}).sources) == [name]


def test_names_that_differ_only_in_case_are_refused():
    """On macOS they would share a folder and overwrite each other's shards."""
    source = SourceConfig(weight=1.0, files=("a.txt",))
    with pytest.raises(ValueError, match=r"'web' and 'Web' would share one folder"):
        DataConfig(sources={"web": source, "code": source, "Web": source})
