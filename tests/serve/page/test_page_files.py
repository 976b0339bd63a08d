"""The page's files: those of others are what their authors published, ours run under the policy."""

import hashlib
import re
import tomllib
from importlib.resources import files
from pathlib import Path

PAGE = Path(str(files("gnano.serve"))) / "page"
OWN = list(PAGE.glob("*.js"))


def test_vendored_files_are_listed_with_hash_and_license():
    listed = tomllib.loads((PAGE / "vendor/VENDOR.toml").read_text("utf-8"))["file"]
    licenses = (PAGE / "vendor/LICENSES.txt").read_text("utf-8")
    for entry in listed:
        content = (PAGE / "vendor" / entry["name"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == entry["sha256"]
        assert entry["package"] in licenses.lower() and entry["license"]
    names = {file.name for file in PAGE.glob("vendor/*")} - {"VENDOR.toml", "LICENSES.txt"}
    assert names == {entry["name"] for entry in listed}


def test_own_modules_are_checked_and_put_no_text_into_the_page_as_html():
    forbidden = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|crypto\.randomUUID"
    )
    assert len(OWN) > 10
    for file in OWN:
        text = file.read_text("utf-8")
        assert text.startswith("// @ts-check\n"), file.name
        assert not forbidden.search(text), file.name


def test_every_file_that_the_page_loads_exists_and_none_is_from_elsewhere():
    loaded = re.compile(r"""(?:from|import\()\s*"(\./[^"]+)"|(?:href|src)="(/page/[^"]+)\"""")
    for file in [*OWN, PAGE / "index.html"]:
        text = file.read_text("utf-8")
        for relative, absolute in loaded.findall(text):
            target = PAGE / relative if relative else PAGE / absolute.removeprefix("/page/")
            assert target.is_file(), (file.name, target)
    assert "http" not in (PAGE / "index.html").read_text("utf-8").replace("http-equiv", "")
