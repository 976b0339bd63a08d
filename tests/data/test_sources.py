import pytest

from gnano.data import DataConfig, Source
from gnano.data.sources import documents


@pytest.mark.parametrize("weight", [-1, -0.001, float("nan"), float("inf")])
def test_a_weight_that_is_no_share_is_refused(weight):
    with pytest.raises(ValueError, match=f"weight is {weight}"):
        Source(weight=weight)


@pytest.mark.parametrize("kind", ["python-prose", "python-code", "synthetic"])
def test_endless_text_needs_a_budget(kind):
    with pytest.raises(ValueError, match=f"'{kind}' needs max_bytes"):
        Source(kind=kind)
    assert Source(kind=kind, max_bytes=1).max_bytes == 1


def test_a_budget_below_0_is_refused():
    with pytest.raises(ValueError, match="max_bytes"):
        Source(max_bytes=-1)


@pytest.mark.parametrize("share", [-0.1, 1, 1.5, float("nan")])
def test_a_held_out_share_outside_0_to_1_is_refused(share):
    with pytest.raises(ValueError, match=rf"data\.heldout is {share}"):
        DataConfig(heldout=share)


@pytest.mark.parametrize("tokens", [0, -5, 2**31])
def test_a_shard_size_that_no_file_can_have_is_refused(tokens):
    with pytest.raises(ValueError, match=rf"data\.shard_tokens is {tokens}"):
        DataConfig(shard_tokens=tokens)


def test_an_order_needs_a_seed_of_0_or_more():
    with pytest.raises(ValueError, match=r"data\.seed"):
        DataConfig(seed=-1)


def test_a_mix_of_nothing_is_refused():
    with pytest.raises(ValueError, match=r"weights of data\.sources are 0"):
        DataConfig(sources={"a": Source(weight=0), "b": Source(weight=0)})
    DataConfig(sources={"a": Source(weight=0), "b": Source(weight=1)})


@pytest.mark.parametrize("name", ["", "..", "a/b", "../a", "a b", "a.partial", "/a", "a\\b", "-"])
def test_a_source_name_that_could_leave_the_folder_is_refused(name):
    with pytest.raises(ValueError, match="names a folder"):
        DataConfig(sources={name: Source()})


@pytest.mark.parametrize("name", ["a", "fineweb-edu", "my_code", "web2"])
def test_a_plain_source_name_is_taken(name):
    assert list(DataConfig(sources={name: Source()}).sources) == [name]


@pytest.mark.parametrize("budget", [1, 10, 11, 95, 10_000])
def test_a_budget_ends_with_the_document_that_fills_it(tmp_path, budget):
    texts = ["é" * 5] * 20  # 10 bytes each
    for number, text in enumerate(texts):
        (tmp_path / f"{number:02}.txt").write_text(text, encoding="utf-8")
    taken = list(documents(Source(files=(str(tmp_path),), max_bytes=budget)))
    assert [d.text for d in taken] == texts[: -(-budget // 10)]


def test_without_a_budget_all_is_taken_file_by_file_in_the_order_of_names(tmp_path):
    for name in "b.txt", "c/a.txt", "a.txt":
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    source = Source(files=(str(tmp_path / "b.txt"), str(tmp_path)))
    assert [d.text for d in documents(source)] == ["a.txt", "b.txt", "c/a.txt"]
