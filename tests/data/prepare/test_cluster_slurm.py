"""Scaled-out preparation with Slurm, on a fake `sbatch`: the job scripts and their results."""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from tests.data.prepare.conftest import broken_corpus

from gnano.data.manifest import Manifest

pytest.importorskip("datatrove", reason="needs datatrove: pip install 'auto-g-nano[scale]'")

from gnano.data.prepare.cluster import ClusterPreparation, SlurmConfig

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("small_tasks")]


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
    """An `sbatch` that saves the scripts, and a method that runs them like the nodes do."""

    def __init__(self, home):
        self.home = home / "slurm"
        self.home.mkdir()

    def jobs(self):
        return {int(path.stem): path.read_text() for path in sorted(self.home.iterdir())}

    def run(self, number):
        """Run all tasks of a job array and return their exit codes."""
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


OPTIONS = SlurmConfig(partition="cpu", time="01:30:00", qos="long")


def test_slurm_jobs_give_the_folder_that_prepare_gives(slurm, config, files, reference_folder):
    scaled = config("two")
    messages: list[str] = []

    def submit():
        return ClusterPreparation(
            scaled, "slurm", tasks=3, workers=2, slurm=OPTIONS, log=messages.append
        ).run()

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
    assert "squeue --name=gnano-" in messages[-1]

    assert slurm.run(tokenize) == [0, 0, 0]
    # the finishing job is lost: it alone is submitted again, and nothing is merged here
    assert submit() is None
    assert not list(Path(scaled.folder).glob("*/00000.json"))
    finish, _ = list(slurm.jobs())[4:]
    assert "dependency" not in slurm.jobs()[finish].replace("kill-on-invalid-dep", "")
    assert slurm.run(finish) == [0]
    assert files(scaled.folder) == files(reference_folder)
    assert submit() == Manifest.load(Path(scaled.folder))
    assert len(slurm.jobs()) == 6


def test_slurm_resumes_after_a_failed_rank(
    slurm, config, files, corpus, tmp_path, reference_folder
):
    scaled, path, good = broken_corpus(config, corpus, tmp_path, "two")

    def submit():
        ClusterPreparation(scaled, "slurm", tasks=4, slurm=OPTIONS).run()
        return list(slurm.jobs())[-4:]

    tokenize, _, finish, _ = submit()
    assert sorted(slurm.run(tokenize)) == [0, 0, 0, 1]
    assert slurm.run(finish) == [0]
    assert any(Path(scaled.folder, "a").glob("*.json"))  # what could be finished is
    path.write_text(good)
    with pytest.raises(ValueError, match=r"b/1\.jsonl, line 71: it is not JSON.*\n.*last jobs"):
        submit()
    tokenize, _, finish, _ = submit()
    assert "array=0-0" in slurm.jobs()[tokenize] or "array=0-1" in slurm.jobs()[tokenize]
    assert slurm.run(tokenize).count(0) >= 1
    assert slurm.run(finish) == [0]
    assert files(scaled.folder) == files(reference_folder)


def test_slurm_refuses_to_submit_queued_jobs_again(slurm, config):
    Path(f"{slurm.home}.queue").write_text("103_0\n103_1\n")
    with pytest.raises(ValueError, match=r"still in the queue \(103_0, 103_1"):
        ClusterPreparation(config("one"), "slurm", slurm=OPTIONS).run()
    assert not slurm.jobs()


def test_slurm_needs_a_partition_and_sbatch(slurm, config, monkeypatch):
    with pytest.raises(ValueError, match=r"--slurm\.partition"):
        ClusterPreparation(config("one"), "slurm").run()
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ValueError, match="no sbatch"):
        ClusterPreparation(config("one"), "slurm", slurm=OPTIONS).run()
