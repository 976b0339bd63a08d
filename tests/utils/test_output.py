"""No command writes into its inputs, or into a data folder or run of another command."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from gnano.checkpoint.export_weights import export_weights, merge_adapter
from gnano.cli.tokenizer import gpt2_command
from gnano.cli.tokenizer import train_command as train_tokenizer
from gnano.config.data_config import DataConfig, InstructionConfig, InstructionSource, SourceConfig
from gnano.config.recipe import Recipe
from gnano.config.train_config import TrainConfig
from gnano.data.prepare.pipeline import prepare
from gnano.export.formats import export_model
from gnano.export.importing import import_model
from gnano.export.publishing import publish
from gnano.train.trainer import train
from gnano.utils.files import FOLDER_MARKERS, check_output_path


def scale_out(config: DataConfig) -> None:
    pytest.importorskip("datatrove")
    from gnano.data.prepare.cluster import ClusterPreparation

    ClusterPreparation(config).run()


def _data(out: Path, source: Path) -> DataConfig:
    return DataConfig(folder=str(out), sources={"a": SourceConfig(files=(str(source),))})


def _tuning(source: Path) -> InstructionConfig:
    return InstructionConfig(sources={"a": InstructionSource(files=(str(source),))})


# each writes to its first path and reads its second
COMMANDS: dict[str, Callable[[Path, Path], object]] = {
    "prepare": lambda out, source: prepare(_data(out, source)),
    "prepare decontaminated": lambda out, source: prepare(
        replace(_data(out, out.with_name("other")), decontaminate=(str(source),))
    ),
    "scale-out": lambda out, source: scale_out(_data(out, source)),
    "pretrain": lambda out, source: train(Recipe(data=DataConfig(folder=str(source))), out),
    "sft": lambda out, source: train(Recipe(data=_tuning(source)), out),
    "sft from": lambda out, source: train(
        Recipe(data=_tuning(out.with_name("other")), train=TrainConfig(init_from=str(source))), out
    ),
    "export": lambda out, source: export_model(source, "folder", out=out),
    "import": lambda out, source: import_model(source, out),
    "weights": lambda out, source: export_weights(source, out),
    "merge": lambda out, source: merge_adapter(source, out.with_name("other"), out),
    "merge's adapter": lambda out, source: merge_adapter(out.with_name("other"), source, out),
    "publish": lambda out, source: publish(source, "me/mine", output_folder=out, dry_run=True),
    "publish what": lambda out, source: publish(
        out.with_name("other"), "me/mine", include=[source], output_folder=out, dry_run=True
    ),
    "tokenizer train": lambda out, source: train_tokenizer((str(source),), out),
    "tokenizer gpt2": lambda out, source: gpt2_command(out, source),
}
CONTINUED = {"prepare": "data folder", "scale-out": "data folder", "pretrain": "run", "sft": "run"}


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "corpus"
    (folder / "part").mkdir(parents=True)
    (folder / "part/a.txt").write_text("the river\n")
    return folder


def check_refused(command: str, out: Path, source: Path, home: Path) -> None:
    before = sorted(home.rglob("*"))
    with pytest.raises(ValueError, match=r"choose another output path \(\S+\)\.$"):
        COMMANDS[command](out, source)
    assert sorted(home.rglob("*")) == before


@pytest.mark.parametrize("command", COMMANDS)
def test_output_and_input_must_not_contain_each_other(command, corpus, tmp_path):
    (tmp_path / "link").symlink_to(corpus)
    for out in corpus, corpus / "shards", corpus / "part/../shards", tmp_path / "link/shards":
        check_refused(command, out, corpus, tmp_path)
    check_refused(command, corpus, corpus / "part", tmp_path)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", FOLDER_MARKERS)
def test_nothing_is_written_into_a_data_folder_or_run(command, kind, corpus, tmp_path):
    made = tmp_path / "made"
    (made / "deep").mkdir(parents=True)
    for name in FOLDER_MARKERS[kind]:
        (made / name).write_text("")
    check_refused(command, made / "deep/out", corpus, tmp_path)
    if CONTINUED.get(command.split()[0]) != kind:
        check_refused(command, made, corpus, tmp_path)


@pytest.mark.parametrize(
    ("out", "pattern", "fits"),
    [
        ("corpus", "corpus/part/a.txt", False),
        ("corpus", "corpus/part/*.txt", False),
        ("corpus/part", "corpus/part/*.txt", False),
        ("corpus/shards", "corpus/**", False),
        ("corpus/shards", "corpus/**/*", False),
        ("corpus/shards", "corpus/*.txt", True),
        ("data/shards", "**/*.txt", True),
        ("data/shards", "corpus", True),
        ("corpus-shards", "corpus", True),
        ("new", "corpus/part/a.txt", True),
    ],
)
def test_globs_are_checked_by_the_files_they_match(
    out, pattern, fits, corpus, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    if fits:
        check_output_path(Path(out), "--out", [pattern])
    else:
        with pytest.raises(ValueError, match="choose another output path"):
            check_output_path(Path(out), "--out", [pattern])


def test_a_folder_with_other_settings_is_not_deleted(corpus, tmp_path):
    folder = tmp_path / "data"
    config = replace(_data(folder, corpus), tokenizer="bpe-257", heldout_fraction=0.0)
    (corpus / "more.txt").write_text("the river and the stone " * 50)
    prepare(config)
    for damage in (
        lambda: prepare(replace(config, shard_tokens=9)),
        lambda: (folder / "tokenizer.json").write_text("{}") and prepare(config),
        lambda: (folder / "manifest.json").write_text("{}") and prepare(config),
    ):
        with pytest.raises(ValueError) as error:
            damage()
        assert "delete" not in str(error.value)
