"""Runs the files of deploy/ with small scripts in the place of the cluster's programs."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from torch.distributed.run import get_args_parser

from gnano.cli import pretrain
from gnano.config.model_config import ModelConfig

DEPLOY = Path(__file__).parents[1] / "deploy"
SLURM = {
    "SLURM_JOB_ID": "123456",
    "SLURM_JOB_NODELIST": "node[7-8]",
    "SLURM_NNODES": "2",
}
SKYPILOT = {
    "SKYPILOT_NUM_NODES": "2",
    "SKYPILOT_NODE_RANK": "1",
    "SKYPILOT_NODE_IPS": "10.0.0.7\n10.0.0.8",
    "SKYPILOT_NUM_GPUS_PER_NODE": "8",
}
# a fake program records its arguments, one call per line
RECORD_CALL = f"""#!/bin/bash
{shlex.quote(sys.executable)} - "$@" >> "$0.calls" <<END
import json, sys
print(json.dumps(sys.argv[1:]))
END
"""
SCONTROL = 'if [ "$1" = show ]; then printf "node7\\nnode8\\n"; fi\n'
SRUN = 'while [[ "$1" == -* ]]; do shift; done\nexec "$@"\n'


@pytest.fixture
def workdir(tmp_path):
    """Return a working folder with a `bin` that comes first on the path."""
    (tmp_path / "bin").mkdir()
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/activate").touch()
    for name, rest in {"scontrol": SCONTROL, "srun": SRUN, "torchrun": "", "pip": ""}.items():
        write_program(tmp_path, name, rest)
    return tmp_path


def write_program(workdir, name, rest):
    program = workdir / "bin" / name
    program.write_text(RECORD_CALL + rest)
    program.chmod(0o755)


def calls(workdir, name):
    noted = workdir / "bin" / f"{name}.calls"
    return [json.loads(line) for line in noted.read_text().splitlines()] if noted.exists() else []


def start(workdir, command, variables):
    path = f"{workdir / 'bin'}:{os.environ['PATH']}"
    env = {**os.environ, **variables, "PATH": path}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=workdir, env=env, stdout=pipe, stderr=pipe, text=True)


def torchrun_commands(workdir):
    """Return the command line that torchrun receives from each file."""
    kubernetes = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())
    (job,) = [part for part in kubernetes if part["kind"] == "TrainJob"]
    skypilot = yaml.safe_load((DEPLOY / "skypilot.yaml").read_text())
    scripts = {
        "slurm": (["bash", str(DEPLOY / "slurm.sbatch")], SLURM),
        "kubernetes": (job["spec"]["trainer"]["command"], {}),
        "skypilot": (["bash", "-c", skypilot["run"]], SKYPILOT),
    }
    lines = {}
    for name, (command, variables) in scripts.items():
        process = start(workdir, command, variables)
        _, error = process.communicate(timeout=60)
        assert (process.returncode, error) == (0, ""), name
        lines[name] = calls(workdir, "torchrun")[-1]
    assert len(calls(workdir, "torchrun")) == len(scripts)
    return lines


@pytest.mark.slow
def test_every_file_starts_a_run_that_gnano_accepts(workdir, monkeypatch):
    started = []

    def train(recipe, run, *others):
        started.append((recipe, run))
        raise SystemExit

    monkeypatch.setattr("gnano.reporting.run_report.train", train)
    for arguments in torchrun_commands(workdir).values():
        parsed = get_args_parser().parse_args(arguments)  # torchrun's own
        command = parsed.training_script_args
        assert (parsed.module, parsed.training_script, command[0]) == (True, "gnano", "pretrain")
        with pytest.raises(SystemExit):
            pretrain.main(command[1:])
    assert len(started) == 3
    for recipe, run in started:
        assert recipe.model == ModelConfig()
        assert run.name == "1b" and recipe.pretraining_data.folder.endswith("data/1b")


def test_nodes_share_a_rendezvous(workdir):
    lines = {
        name: get_args_parser().parse_args(line)
        for name, line in torchrun_commands(workdir).items()
    }
    slurm, skypilot, kubernetes = lines["slurm"], lines["skypilot"], lines["kubernetes"]
    assert (slurm.nnodes, slurm.rdzv_backend, slurm.rdzv_id) == ("2", "c10d", "123456")
    assert slurm.rdzv_endpoint == "node7:23456"
    assert (skypilot.nnodes, skypilot.nproc_per_node, skypilot.node_rank) == ("2", "8", 1)
    assert (skypilot.master_addr, skypilot.master_port) == ("10.0.0.7", 29500)
    assert kubernetes.nnodes == "1:1"  # torchrun's default: the operator sets PET_NNODES


def test_kubernetes_configures_torchrun_through_the_environment(monkeypatch):
    settings = {"NNODES": "2", "NPROC_PER_NODE": "8", "NODE_RANK": "1", "MASTER_ADDR": "node-0"}
    for name, value in settings.items():
        monkeypatch.setenv(f"PET_{name}", value)
    parsed = get_args_parser().parse_args(["-m", "gnano", "pretrain", "1b"])
    assert (parsed.nnodes, parsed.nproc_per_node, parsed.node_rank) == ("2", "8", 1)
    assert parsed.master_addr == "node-0"


def test_a_failed_rank_is_restarted_and_every_rank_has_a_log(workdir):
    for line in torchrun_commands(workdir).values():
        parsed = get_args_parser().parse_args(line)
        assert parsed.max_restarts > 0 and parsed.log_dir and parsed.tee == "3"


def dockerfile_lines():
    """Return the instructions of the Dockerfile as pairs of name and arguments."""
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    return [line.split(maxsplit=1) for line in text.splitlines() if line and line[0] != "#"]


def test_one_version_of_pytorch_is_pinned_everywhere():
    """Without a pin an image or a machine gets a version that was never tested."""
    lines = dockerfile_lines()
    parts = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))
    images = {pod_of(parts)["containers"][0]["image"], *(a for n, a in lines if n == "FROM")}
    assert len(images) == 1
    tag = re.fullmatch(r"pytorch/pytorch:([\d.]+)-cuda[\d.]+-cudnn\d+-runtime", images.pop())
    assert tag is not None
    installs = [
        next(arguments for _, arguments in lines if "pip install" in arguments),
        parts[-1]["spec"]["trainer"]["command"][-1],
        yaml.safe_load((DEPLOY / "skypilot.yaml").read_text())["setup"],
    ]
    for command in installs:
        assert re.findall(r"pip install .*?\btorch==([\d.]+)", command) == [tag[1]]
    supported = re.search(r'"torch>=([\d.]+)"', (DEPLOY.parent / "pyproject.toml").read_text())
    assert supported is not None
    assert [int(n) for n in tag[1].split(".")] >= [int(n) for n in supported[1].split(".")]


def test_the_image_runs_gnano_without_root_and_with_a_compiler():
    lines = dockerfile_lines()
    names = [name for name, _ in lines]
    last = dict(lines)
    assert json.loads(last["ENTRYPOINT"]) == ["gnano"] and last["USER"] not in ("root", "0")
    before_user = " ".join(arguments for _, arguments in lines[: names.index("USER")])
    assert f"useradd --create-home {last['USER']}" in before_user and " gcc " in before_user
    assert f"--owner {last['USER']}" in before_user and before_user.endswith(last["WORKDIR"])
    for _, arguments in (line for line in lines if line[0] == "COPY"):
        for source in arguments.split()[:-1]:  # from the folder where `docker build` is run
            assert (DEPLOY.parent / source).exists()


@pytest.mark.parametrize("code", [0, 1, 2, 143])
def test_slurm_keeps_the_exit_code_of_a_run_that_ends(workdir, code):
    write_program(workdir, "torchrun", f"exit {code}\n")
    process = start(workdir, ["bash", str(DEPLOY / "slurm.sbatch")], SLURM)
    process.communicate(timeout=60)
    assert process.returncode == code
    assert [call[0] for call in calls(workdir, "scontrol")] == ["show"]


@pytest.mark.slow
def test_slurm_requeues_the_job_at_its_time_limit(workdir):
    """Torchrun gets SIGTERM, has time to save, and exits with 1, as always."""
    trap = "trap 'sleep 1; touch saved; exit 1' TERM\ntouch up\nwhile true; do sleep 0.1; done\n"
    assert run_to_time_limit(workdir, trap) == 1
    assert (workdir / "saved").exists()
    assert calls(workdir, "scontrol")[1:] == [["requeue", "123456"]]


@pytest.mark.slow
def test_slurm_does_not_requeue_a_run_that_finished_in_its_last_minutes(workdir):
    assert run_to_time_limit(workdir, "trap '' TERM\ntouch up\nsleep 1\nexit 0\n") == 0
    assert [call[0] for call in calls(workdir, "scontrol")] == ["show"]


def run_to_time_limit(workdir, torchrun):
    """Return the exit code of the batch script after the signal that it requests from Slurm."""
    write_program(workdir, "torchrun", torchrun)
    process = start(workdir, ["bash", str(DEPLOY / "slurm.sbatch")], SLURM)
    while not (workdir / "up").exists():
        time.sleep(0.05)
    requested = re.search(r"#SBATCH --signal=B:(\w+)@", (DEPLOY / "slurm.sbatch").read_text())
    assert requested is not None
    process.send_signal(signal.Signals[f"SIG{requested[1]}"])
    process.communicate(timeout=60)
    return process.returncode


def test_the_ranks_have_time_to_save_before_the_machine_is_taken(workdir):
    """The timeout of torchrun is shorter than the notice that the cluster gives."""
    slurm = (DEPLOY / "slurm.sbatch").read_text()
    (warning,) = re.findall(r"#SBATCH --signal=B:\w+@(\d+)", slurm)
    (timeout,) = re.findall(r"export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=(\d+)", slurm)
    assert 60 < int(timeout) < int(warning)
    parts = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))
    pod = pod_of(parts)
    (node,) = pod["containers"]
    env = {entry["name"]: entry["value"] for entry in node["env"]}
    timeout = int(env["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"])
    assert 60 < timeout < pod["terminationGracePeriodSeconds"]


def test_the_parts_of_the_kubernetes_file_match():
    parts = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))
    claim, runtime, job = parts
    assert [part["kind"] for part in parts] == [
        *("PersistentVolumeClaim", "TrainingRuntime", "TrainJob"),
    ]
    assert job["spec"]["runtimeRef"]["name"] == runtime["metadata"]["name"]
    assert job["spec"]["runtimeRef"]["kind"] == runtime["kind"]
    pod = pod_of(parts)
    claims = [v["persistentVolumeClaim"] for v in pod["volumes"] if "persistentVolumeClaim" in v]
    assert claims == [{"claimName": claim["metadata"]["name"]}]
    (node,) = pod["containers"]
    assert {m["name"] for m in node["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
    (replicated,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    # Kubeflow Trainer puts a TrainJob's command, image and resources where these names are
    assert replicated["name"] == node["name"] == "node"
    step = replicated["template"]["metadata"]["labels"][
        "trainer.kubeflow.org/trainjob-ancestor-step"
    ]
    assert step == "trainer"


def pod_of(parts):
    runtime = next(part for part in parts if part["kind"] == "TrainingRuntime")
    (replicated,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    return replicated["template"]["spec"]["template"]["spec"]


def test_skypilot_keeps_the_run_where_a_lost_machine_cannot_take_it():
    task = yaml.safe_load((DEPLOY / "skypilot.yaml").read_text())
    (out,) = re.findall(r"--out (\S+)", task["run"])
    (folder,) = re.findall(r"--data.folder (\S+)", task["run"])
    mounts = task["file_mounts"]
    assert mounts[str(Path(out).parent)]["mode"] == "MOUNT_CACHED" and folder in mounts
    assert task["resources"]["use_spot"] and task["resources"]["job_recovery"]
    assert all(mount["source"].startswith("${BUCKET}/") for mount in mounts.values())
    assert "BUCKET" in task["envs"]
