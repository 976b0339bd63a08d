"""The wheel has what the commands and the page read, and installs without internet."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.serve.server_process import ServerProcess
from tests.small_models import with_train

from gnano.train.trainer import train

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder in which the wheel was installed."""
    folder = tmp_path_factory.mktemp("installation")
    ignored = shutil.ignore_patterns("*.egg-info", "__pycache__")
    shutil.copytree(ROOT / "src", folder / "src", ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    offline = ["--quiet", "--no-index", "--no-deps"]
    build = [*pip, "wheel", *offline, "--no-build-isolation", "--wheel-dir", "dist", "."]
    subprocess.run(build, cwd=folder, check=True)
    [wheel] = (folder / "dist").glob("*.whl")
    subprocess.run([*pip, "install", *offline, "--target", folder / "site", wheel], check=True)
    return folder / "site"


def test_an_installed_wheel_serves_the_api_and_the_page(site, recipe, tmp_path):
    train(with_train(recipe, steps=2, save_every=2), tmp_path / "run")
    check = f"import gnano; assert gnano.__file__.startswith({str(site)!r}), gnano.__file__"
    with ServerProcess(tmp_path / "run", program=check, PYTHONPATH=str(site)) as server:
        completion = server.openai.completions.create(model="run", prompt="a", max_tokens=3)
        assert completion.choices[0].finish_reason in ("length", "stop")
        page = ROOT / "src/gnano/serve/page"
        assert server.http.get("/").content == (page / "index.html").read_bytes()
        files = [path.relative_to(page) for path in page.rglob("*") if path.is_file()]
        for file in files:
            assert server.http.get(f"/page/{file}").content == (page / file).read_bytes(), file
        assert server.http.get("/openapi.json").json()["paths"]


def test_the_wheel_has_every_file_of_the_package(site):
    package = ROOT / "src/gnano"
    own = {str(path.relative_to(package)) for path in package.rglob("*") if path.is_file()}
    own = {path for path in own if "__pycache__" not in path}
    installed = {str(path.relative_to(site / "gnano")) for path in (site / "gnano").rglob("*")}
    assert own - installed == set()
    version = subprocess.run(
        [sys.executable, "-m", "gnano", "--version"],
        env={"PYTHONPATH": str(site)}, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert re.search(r"\d+\.\d+\.\d+", version)
