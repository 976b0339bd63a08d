"""Scaled-out preparation gives the same folder as `prepare`."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from tests.data.conftest import some_texts, write_jsonl
from tests.data.hf_hub.hub_server import Hub
from tests.data.hf_hub.samples import jsonl
from tests.data.prepare.conftest import broken_corpus, documents_read, drafts

from gnano.config.data_config import SourceConfig
from gnano.data.manifest import Manifest
from gnano.data.prepare.pipeline import prepare

pytest.importorskip("datatrove", reason="needs datatrove: pip install 'auto-g-nano[scale]'")

from gnano.data.prepare import cluster as scale_out_module
from gnano.data.prepare.cluster import ClusterPreparation, SlurmConfig

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("small_tasks")]


def test_local_ranks_give_the_folder_that_prepare_gives(
    config, files, corpus, monkeypatch, capfd, reference_folder
):
    scaled = config("two")
    # relative paths also work in processes with other working directories
    monkeypatch.chdir(corpus.parent)
    relative = os.path.relpath(scaled.folder)
    sources = {name: SourceConfig(files=(f"{corpus.name}/{name}",)) for name in ("a", "b")}
    given = replace(scaled, folder=relative, sources=sources)
    manifest = ClusterPreparation(given, "local", tasks=3, workers=2).run()
    assert files(scaled.folder) == files(reference_folder)
    assert manifest == Manifest.load(Path(scaled.folder))
    assert manifest.sources["b"].dropped["repeated"] > 3
    assert capfd.readouterr() == ("", "")
    read = sum(source.read for source in manifest.sources.values())
    assert documents_read(scaled.folder) == (9, read)
    assert ClusterPreparation(given, "local").run() == manifest


def test_rounds_are_repeated_until_the_budgets_are_met(config, files, corpus, tmp_path):
    """Most documents are duplicates, so more files are needed than estimated."""
    second = tmp_path / "corpus"
    shutil.copytree(corpus / "b", second / "b")
    for n in range(12):
        texts = some_texts("abcdefgh", 10, seed=n) + some_texts("abcdefgh", 80)
        write_jsonl(second / f"a/{n}.jsonl", texts)
    tokens = prepare(config("all", second)).sources["a"].tokens
    one, two = (config(name, second, a=int(tokens * 0.9)) for name in ("one", "two"))
    prepare(one)
    messages: list[str] = []
    ClusterPreparation(two, "local", tasks=2, workers=2, log=messages.append).run()
    assert len(messages) > 1
    assert files(two.folder) == files(one.folder)


def test_a_locked_folder_is_refused(config):
    from gnano.utils.files import lock_folder

    with lock_folder(Path(config("one").folder)), pytest.raises(ValueError, match="is running in"):
        ClusterPreparation(config("one"), "local").run()


@pytest.mark.parametrize("numbers", [{"tasks": 0}, {"workers": -1}, {"memory_gb": 0}])
def test_numbers_out_of_range_are_refused(config, numbers):
    with pytest.raises(ValueError, match=f"{next(iter(numbers))} is .*; it must be at least"):
        ClusterPreparation(config("one"), **numbers).run()


def test_options_of_slurm_without_slurm_are_refused(config):
    with pytest.raises(ValueError, match=r"slurm\.partition is 'cpu', but has no effect where"):
        ClusterPreparation(config("one"), "ray", slurm=SlurmConfig(partition="cpu")).run()


def test_a_missing_package_is_named_with_its_extra(config, monkeypatch):
    monkeypatch.setitem(sys.modules, "datatrove", None)
    with pytest.raises(ValueError, match=r"needs datatrove.*auto-g-nano\[scale\]"):
        ClusterPreparation(config("one")).run()


def test_ranks_download_a_data_set_from_the_hub(config, files, monkeypatch, tmp_path):
    names = [f"train-{n}.jsonl" for n in range(4)]
    texts = [[{"text": text} for text in some_texts("abcdefgh", 60, seed=n)] for n in names]
    hub = Hub()
    hub.add("me/data", dict(zip(names, map(jsonl, texts), strict=True)))
    with hub:
        # the client reads the address when it is imported, so each run is a separate process
        env = os.environ | {"HF_ENDPOINT": hub.endpoint, "HF_HUB_DISABLE_TELEMETRY": "1"}
        scaled = "ClusterPreparation(config, tasks=2, workers=2).run()"
        for folder, how in (("one", "prepare(config)"), ("two", scaled)):
            given = replace(
                config(folder), sources={"web": SourceConfig(kind="hub", repo="me/data")}, workers=1
            )
            code = HUB.format(how=how)
            subprocess.run(
                [sys.executable, "-c", code],
                input=json.dumps(asdict(given)),
                text=True,
                env=env,
                check=True,
            )
    assert files(config("two").folder) == files(config("one").folder)
    assert not Path(config("two").folder, ".downloads").exists()


HUB = """
import json, sys
from gnano.config.data_config import DataConfig, SourceConfig
from gnano.data import source_files
from gnano.data.prepare.pipeline import prepare
from gnano.data.prepare.cluster import ClusterPreparation

if __name__ == "__main__":
    source_files.MIN_TASK_BYTES = 1
    content = json.load(sys.stdin)
    sources = {{name: SourceConfig(**source) for name, source in content.pop("sources").items()}}
    config = DataConfig(**content, sources=sources)
    {how}
"""


def test_the_command_line_runs_a_local_preparation(
    config, files, monkeypatch, capsys, tmp_path, reference_folder
):
    import tomli_w

    from gnano.cli.data import scale_out

    recipe = tmp_path / "mine.toml"
    recipe.write_text(tomli_w.dumps({"data": asdict(config("two"))}))
    monkeypatch.setattr(scale_out_module, "LOGS_FOLDER", "elsewhere")
    logs = tmp_path / "logs"
    scale_out([str(recipe), "--tasks", "1", "--logs", str(logs)])
    assert "Round 001: 9 tasks on 1 ranks" in capsys.readouterr().err
    assert (logs / "001/tokenize/stats.json").exists()
    assert files(config("two").folder) == files(reference_folder)


@pytest.fixture(scope="module")
def ray():
    module = pytest.importorskip("ray", reason="needs ray: pip install 'auto-g-nano[scale]'")
    module.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=80 * 2**20,
        _memory=8 * 2**30,
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield module
    module.shutdown()


def test_errors_on_ray_are_reported_and_a_corrected_run_completes(
    ray, config, files, corpus, tmp_path, capfd, reference_folder
):
    scaled, path, good = broken_corpus(config, corpus, tmp_path, "two")
    with pytest.raises(ValueError, match=r"b/1\.jsonl, line 71: it is not JSON"):
        ClusterPreparation(scaled, "ray", tasks=3, workers=2).run()
    before = drafts(scaled.folder)
    assert len(before) >= 6  # the other ranks came to their end
    assert "Traceback" not in capfd.readouterr().err
    path.write_text(good)
    ClusterPreparation(scaled, "ray", tasks=1).run()
    assert files(scaled.folder) == files(reference_folder)
