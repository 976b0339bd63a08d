"""The same folder, whoever did the work: `prepare`, or ranks of datatrove's executors."""

import json
import os
import random
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from tests.data.conftest import some_texts, write_jsonl
from tests.data.hub.hub_server import Hub, jsonl

from gnano.data import DataConfig, Manifest, Source, inputs, prepare

pytest.importorskip("datatrove", reason="needs datatrove: pip install 'auto-g-nano[scale]'")

from gnano.data.preparing import scale_out as scale_out_module
from gnano.data.preparing.scale_out import LOGS, scale_out
from gnano.data.preparing.slurm import Slurm


@pytest.fixture(autouse=True)
def small_tasks(monkeypatch):
    """A task for every file, as if each were large."""
    monkeypatch.setattr(inputs, "SMALL", 1)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """Two sources of several files each, with repeats within them, across files and sources."""
    home = tmp_path_factory.mktemp("corpus")
    draw = random.Random(0)
    common = some_texts("xyz", 30)
    for name, files in (("a", 5), ("b", 4)):
        for n in range(files):
            texts = some_texts("abcdefgh", 60, seed=(name, n)) + draw.sample(common, 12)
            write_jsonl(home / name / f"{n}.jsonl", texts + texts[:3])
    return home


@pytest.fixture
def config(corpus, tmp_path, tokenizer_folder):
    """config(folder, corpus=elsewhere, **budgets): both sources, each with its max_tokens."""

    def make(folder, corpus=corpus, **budgets):
        return DataConfig(
            folder=str(tmp_path / folder),
            tokenizer=tokenizer_folder,
            heldout=0.1,
            shard_tokens=1_500,
            sources={
                name: Source(files=(str(corpus / name),), max_tokens=budgets.get(name, 0))
                for name in ("a", "b")
            },
        )

    return make


@pytest.fixture
def files(tree):
    """files(folder): every file and its bytes, but for datatrove's logs."""

    def read(folder):
        return {k: v for k, v in tree(folder).items() if not k.startswith(f"{LOGS}/")}

    return read


def drafts(folder):
    """The whole drafts, and when each was made."""
    found = Path(folder).glob(".work/*/*/draft.json")
    return {path.parent: path.stat().st_mtime_ns for path in found}


def documents_read(folder, number=1):
    """In how many tasks of a round, and how many in all, by datatrove's own count."""
    (step,) = json.loads(Path(folder, LOGS, f"{number:03}/tokenize/stats.json").read_text())
    return step["stats"]["documents read"]["n"], step["stats"]["documents read"]["total"]


@pytest.mark.parametrize("workers", [1, 2])
def test_local_ranks_give_the_folder_that_prepare_gives(config, files, workers, capfd):
    prepare(config("one"))
    scaled = config("two")
    manifest = scale_out(scaled, "local", tasks=3, workers=workers)
    assert files(scaled.folder) == files(config("one").folder)
    assert manifest == Manifest.load(Path(scaled.folder))
    assert manifest.sources["b"].dropped["repeated"] > 3
    assert capfd.readouterr() == ("", "")
    read = sum(source.read for source in manifest.sources.values())
    assert documents_read(scaled.folder) == (9, read)


def test_what_is_complete_is_left_alone(config, files):
    done = config("done")
    manifest = prepare(done)
    before = files(done.folder)
    assert scale_out(done, "local", tasks=3) == manifest
    assert files(done.folder) == before
    assert not Path(done.folder, LOGS).exists()


def test_rounds_follow_until_the_budgets_are_met(config, files, corpus, tmp_path):
    """Most of what a file holds is repeated, so more of them are needed than guessed."""
    again = tmp_path / "corpus"
    shutil.copytree(corpus / "b", again / "b")
    for n in range(12):
        texts = some_texts("abcdefgh", 10, seed=n) + some_texts("abcdefgh", 80)
        write_jsonl(again / f"a/{n}.jsonl", texts)
    tokens = prepare(config("all", again)).sources["a"].tokens
    one, two = (config(name, again, a=int(tokens * 0.9)) for name in ("one", "two"))
    prepare(one)
    said: list[str] = []
    scale_out(two, "local", tasks=2, workers=2, say=said.append)
    assert len(said) > 1
    assert files(two.folder) == files(one.folder)


def test_paths_from_here_are_found_by_processes_elsewhere(config, files, corpus, monkeypatch):
    prepare(config("one"))
    monkeypatch.chdir(corpus.parent)
    relative = os.path.relpath(config("two").folder)
    sources = {name: Source(files=(f"{corpus.name}/{name}",)) for name in ("a", "b")}
    scale_out(replace(config("two"), folder=relative, sources=sources), tasks=3, workers=2)
    assert files(config("two").folder) == files(config("one").folder)


def break_a_line(path):
    """A typing error in a late line."""
    good = path.read_text()
    lines = good.splitlines(keepends=True)
    lines[-5] = lines[-5].replace('": "', '"; "')
    path.write_text("".join(lines))
    return good


def broken(config, corpus, tmp_path, folder):
    """A corpus with one broken file: its configuration, the file, and what it should hold."""
    copy = tmp_path / "broken corpus"
    shutil.copytree(corpus, copy)
    path = copy / "b/1.jsonl"
    good = break_a_line(path)
    return config(folder, copy), path, good


@pytest.mark.parametrize("workers", [1, 2])
def test_a_broken_file_is_one_sentence_and_when_mended_the_rest_is_done(
    config, files, corpus, tmp_path, capfd, workers
):
    prepare(config("one"))
    scaled, path, good = broken(config, corpus, tmp_path, "two")
    with pytest.raises(ValueError, match=r"b/1\.jsonl, line 71 is not JSON") as error:
        scale_out(scaled, "local", tasks=3, workers=workers)
    assert "Traceback" not in str(error.value)
    assert capfd.readouterr() == ("", "")
    before = drafts(scaled.folder)
    assert before
    path.write_text(good)
    scale_out(scaled, "local", tasks=3, workers=workers)
    assert files(scaled.folder) == files(config("one").folder)
    assert documents_read(scaled.folder, number=2)[0] == 9 - len(before)


def test_the_folder_is_locked_meanwhile(config):
    from gnano.data.preparing.lock import locked

    with locked(Path(config("one").folder)), pytest.raises(ValueError, match="at work in"):
        scale_out(config("one"), "local")


@pytest.mark.parametrize("numbers", [{"tasks": 0}, {"workers": -1}, {"memory_gb": 0}])
def test_numbers_that_make_no_sense_are_refused(config, numbers):
    with pytest.raises(ValueError, match="or more"):
        scale_out(config("one"), **numbers)


def test_a_missing_package_is_named_with_its_extra(config, monkeypatch):
    monkeypatch.setitem(sys.modules, "datatrove", None)
    with pytest.raises(ValueError, match=r"needs datatrove.*auto-g-nano\[scale\]"):
        scale_out(config("one"))


KILLED = """
import json, sys
from gnano.data import DataConfig, Source, inputs
from gnano.data.preparing.scale_out import scale_out

if __name__ == "__main__":
    inputs.SMALL = 1
    config = json.load(sys.stdin)
    sources = {name: Source(**source) for name, source in config.pop("sources").items()}
    scale_out(DataConfig(**config, sources=sources), "local", tasks=2, workers=2)
"""


def descendants(process):
    """Ids of the processes that this one has started, and those of them."""
    found, parents = [], [process]
    while parents:
        children = Path(f"/proc/{parents.pop()}/task").glob("*/children")
        found += (new := [int(n) for path in children for n in path.read_text().split()])
        parents += new
    return found


def wait_until(true, seconds=60):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def alive(process):
    try:
        return "State:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")
def test_killed_it_leaves_no_process_and_goes_on_with_the_drafts_it_has(config, files, tmp_path):
    many = tmp_path / "many"
    for name in ("a", "b"):
        for n in range(4):
            write_jsonl(many / name / f"{n}.jsonl", some_texts("abcdefgh", 2_500, seed=(name, n)))
    one, two = config("one", many), config("two", many)
    with subprocess.Popen([sys.executable, "-c", KILLED], stdin=subprocess.PIPE) as process:
        assert process.stdin
        process.stdin.write(json.dumps(asdict(two)).encode())
        process.stdin.close()
        wait_until(lambda: drafts(two.folder) or process.poll() is not None)
        children = descendants(process.pid)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -9, "it was over before it could be killed"
    assert len(children) >= 2
    wait_until(lambda: not any(map(alive, children)))
    before = drafts(two.folder)
    assert 1 <= len(before) < 8
    scale_out(two, "local", tasks=2, workers=2)
    prepare(one)
    assert files(two.folder) == files(one.folder)
    assert documents_read(two.folder, number=2)[0] == 8 - len(before)


def test_a_rank_that_was_killed_is_noticed(config, files):
    import multiprocess

    def kill_one():
        wait_until(multiprocess.active_children)
        multiprocess.active_children()[0].kill()

    killer = threading.Thread(target=kill_one)
    killer.start()
    with pytest.raises(ValueError, match=r"ranks did not come to an end.*memory"):
        scale_out(config("two"), "local", tasks=1)
    killer.join()
    scale_out(config("two"), "local", tasks=1)
    prepare(config("one"))
    assert files(config("two").folder) == files(config("one").folder)


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


def test_ray_ranks_give_the_folder_that_prepare_gives(ray, config, files):
    prepare(config("one"))
    scaled = config("two")
    scale_out(scaled, "ray", tasks=3, workers=2)
    assert files(scaled.folder) == files(config("one").folder)


def test_ray_loses_no_failure(ray, config, files, corpus, tmp_path, capfd):
    prepare(config("one"))
    scaled, path, good = broken(config, corpus, tmp_path, "two")
    with pytest.raises(ValueError, match=r"b/1\.jsonl, line 71 is not JSON"):
        scale_out(scaled, "ray", tasks=3, workers=2)
    before = drafts(scaled.folder)
    assert len(before) >= 6  # the other ranks came to their end
    assert "Traceback" not in capfd.readouterr().err
    path.write_text(good)
    scale_out(scaled, "ray", tasks=1)
    assert files(scaled.folder) == files(config("one").folder)


SBATCH = """\
#!{python}
import os, shutil, sys
home = os.environ["FAKE_SLURM"]
number = 100 + len(os.listdir(home))
shutil.copy(sys.argv[-1], f"{{home}}/{{number}}.sh")
with open(f"{{home}}/{{number}}.sh", "a") as file:
    file.write("# options: " + " ".join(sys.argv[1:-1]) + "\\n")
print("Submitted batch job", number)
"""
SRUN = """\
#!/bin/bash
while [ "$1" != launch_pickled_pipeline ]; do shift; done
exec "$@"
"""
OTHERS = {"scontrol": "echo localhost", "squeue": 'cat "$FAKE_SLURM.queue" 2>/dev/null'}


class FakeSlurm:
    """`sbatch` that only keeps the scripts, and a way to run them as the nodes would."""

    def __init__(self, home):
        self.home = home / "slurm"
        self.home.mkdir()

    def jobs(self):
        return {int(path.stem): path.read_text() for path in sorted(self.home.iterdir())}

    def run(self, number):
        """All tasks of a job array; returns their exit codes."""
        script = self.jobs()[number]
        (last,) = re.findall(r"--array=0-(\d+)", script)
        offset = re.search(r"RUN_OFFSET=(\d+)", script)
        env = os.environ | {"SLURM_NODELIST": "node1", "RUN_OFFSET": offset[1] if offset else "0"}
        running = [
            subprocess.Popen(
                ["bash", self.home / f"{number}.sh"],
                env=env | {"SLURM_ARRAY_TASK_ID": str(n)},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
            )
            for n in range(int(last) + 1)
        ]
        return [process.wait() for process in running]


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    programs = tmp_path / "bin"
    programs.mkdir()
    scripts = {"sbatch": SBATCH.format(python=sys.executable), "srun": SRUN}
    scripts |= {name: f"#!/bin/bash\n{line}\n" for name, line in OTHERS.items()}
    for name, script in scripts.items():
        (programs / name).write_text(script)
        (programs / name).chmod(stat.S_IRWXU)
    fake = FakeSlurm(tmp_path)
    monkeypatch.setenv("FAKE_SLURM", str(fake.home))
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return fake


OPTIONS = Slurm(partition="cpu", time="01:30:00", qos="long")


def test_slurm_jobs_give_the_folder_that_prepare_gives(slurm, config, files):
    prepare(config("one"))
    scaled = config("two")
    said: list[str] = []

    def submit():
        return scale_out(scaled, "slurm", tasks=3, workers=2, slurm=OPTIONS, say=said.append)

    assert submit() is None
    # with each job datatrove submits one that merges its statistics
    tokenize, merge, finish, _ = slurm.jobs()
    scripts = slurm.jobs()
    options = set(re.findall(r"^#SBATCH --(\S+)", scripts[tokenize], re.MULTILINE))
    assert {"partition=cpu", "time=01:30:00", "qos=long", "array=0-2%2"} <= options
    assert {"cpus-per-task=1", "mem-per-cpu=2G", "kill-on-invalid-dep=yes"} <= options
    assert "merge_stats" in scripts[merge]
    assert f"dependency=afterany:{tokenize}" in scripts[finish]
    assert "array=0-0" in scripts[finish]
    assert "mem-per-cpu=16G" in scripts[finish]
    assert "squeue --name=gnano-" in said[-1]

    assert slurm.run(tokenize) == [0, 0, 0]
    assert not Manifest.load(Path(scaled.folder)).complete
    assert slurm.run(finish) == [0]
    assert files(scaled.folder) == files(config("one").folder)
    assert submit() == Manifest.load(Path(scaled.folder))
    assert len(slurm.jobs()) == 4


def test_slurm_goes_on_after_a_rank_that_failed(slurm, config, files, corpus, tmp_path):
    prepare(config("one"))
    scaled, path, good = broken(config, corpus, tmp_path, "two")

    def submit():
        scale_out(scaled, "slurm", tasks=4, slurm=OPTIONS)
        return list(slurm.jobs())[-4:]

    tokenize, _, finish, _ = submit()
    assert sorted(slurm.run(tokenize)) == [0, 0, 0, 1]
    assert slurm.run(finish) == [0]
    assert any(Path(scaled.folder, "a").glob("*.json"))  # what could be finished is
    path.write_text(good)
    with pytest.raises(ValueError, match=r"b/1\.jsonl, line 71 is not JSON.*\n.*last jobs"):
        submit()
    tokenize, _, finish, _ = submit()
    assert "array=0-0" in slurm.jobs()[tokenize] or "array=0-1" in slurm.jobs()[tokenize]
    assert slurm.run(tokenize).count(0) >= 1
    assert slurm.run(finish) == [0]
    assert files(scaled.folder) == files(config("one").folder)


def test_slurm_finishes_what_is_drafted_when_only_the_finishing_was_lost(slurm, config, files):
    prepare(config("one"))
    scale_out(config("two"), "slurm", tasks=2, slurm=OPTIONS)
    tokenize, *cancelled = slurm.jobs()
    slurm.run(tokenize)
    scale_out(config("two"), "slurm", tasks=2, slurm=OPTIONS)
    assert not Path(config("two").folder, "a/00000.json").exists()  # nothing is finished here
    finish, _ = list(slurm.jobs())[1 + len(cancelled) :]
    assert "dependency" not in slurm.jobs()[finish].replace("kill-on-invalid-dep", "")
    assert slurm.run(finish) == [0]
    assert files(config("two").folder) == files(config("one").folder)


def test_slurm_submits_nothing_twice(slurm, config):
    Path(f"{slurm.home}.queue").write_text("103_0\n103_1\n")
    with pytest.raises(ValueError, match=r"still in the queue \(103_0, 103_1"):
        scale_out(config("one"), "slurm", slurm=OPTIONS)
    assert not slurm.jobs()


def test_slurm_needs_a_partition_and_sbatch(slurm, config, monkeypatch):
    with pytest.raises(ValueError, match=r"--slurm\.partition"):
        scale_out(config("one"), "slurm")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ValueError, match="no sbatch"):
        scale_out(config("one"), "slurm", slurm=OPTIONS)


def test_a_data_set_of_the_hub_is_fetched_by_the_ranks(config, files, monkeypatch, tmp_path):
    pytest.importorskip("huggingface_hub")
    names = [f"train-{n}.jsonl" for n in range(4)]
    texts = [[{"text": text} for text in some_texts("abcdefgh", 60, seed=n)] for n in names]
    hub = Hub()
    hub.add("me/data", dict(zip(names, map(jsonl, texts), strict=True)))
    with hub:
        # the client reads the address when it is loaded, so everything is a process of its own
        env = os.environ | {"HF_ENDPOINT": hub.endpoint, "HF_HUB_DISABLE_TELEMETRY": "1"}
        for folder, how in (("one", "prepare"), ("two", "scale_out")):
            given = replace(
                config(folder), sources={"web": Source(kind="hub", repo="me/data")}, workers=1
            )
            code = HUB.format(how=how, options=", tasks=2, workers=2" if how != "prepare" else "")
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
from gnano.data import DataConfig, Source, inputs, prepare
from gnano.data.preparing.scale_out import scale_out

if __name__ == "__main__":
    inputs.SMALL = 1
    config = json.load(sys.stdin)
    sources = {{name: Source(**source) for name, source in config.pop("sources").items()}}
    {how}(DataConfig(**config, sources=sources){options})
"""


def test_the_command_runs_it(config, files, monkeypatch, capsys, tmp_path):
    import tomli_w

    from gnano.cli.scale_out import main

    prepare(config("one"))
    recipe = tmp_path / "mine.toml"
    recipe.write_text(tomli_w.dumps({"data": asdict(config("two"))}))
    monkeypatch.setattr(scale_out_module, "LOGS", "elsewhere")
    logs = tmp_path / "logs"
    assert main([str(recipe), "--tasks", "1", "--logs", str(logs)]) == 0
    assert "Round 001: 9 tasks on 1 ranks" in capsys.readouterr().out
    assert (logs / "001/tokenize/stats.json").exists()
    assert files(config("two").folder) == files(config("one").folder)
