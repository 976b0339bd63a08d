"""The fake Hub of `tests/data/hf_hub`, with model repositories that can be created and written.

    hub = ModelHub(users={"hf_mine": "me"})
    with hub:
        subprocess.run(command, env=os.environ | {"HF_ENDPOINT": hub.endpoint})
    hub.models["me/demo"].files                  # name -> bytes, as committed
    hub.stored                                   # SHA-256 of the large files, in order of arrival
    hub.hold = b"…"                              # an upload that contains this stops half-way

`hub.faults` are those of the fake Hub: `hub.faults["/storage/"] = [status(500)]`.
"""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from typing import Any

from tests.data.hf_hub.hub_server import Hub, _Handler

LARGE = (".safetensors", ".gguf", ".onnx")  # kept in LFS, like in the Hub's .gitattributes


@dataclass
class Model:
    private: bool = False
    files: dict[str, bytes] = field(default_factory=lambda: {".gitattributes": b"*.gguf lfs\n"})
    commits: list[str] = field(default_factory=list)  # their messages


@dataclass
class ModelHub(Hub):
    users: dict[str, str] = field(default_factory=dict)  # token -> name
    models: dict[str, Model] = field(default_factory=dict)
    storage: dict[str, bytes] = field(default_factory=dict)  # by their SHA-256
    stored: list[str] = field(default_factory=list)
    hold: bytes = b""
    held: threading.Event = field(default_factory=threading.Event)

    def handler(self) -> "type[_Handler]":
        return _ModelHandler


class _ModelHandler(_Handler):
    hub: ModelHub

    def do_POST(self) -> None:  # noqa: N802
        self._answer()

    def do_PUT(self) -> None:  # noqa: N802
        self._answer()

    def _answer(self) -> None:
        # a body that is left unread would be taken for the next request
        if self.headers.get("Transfer-Encoding") == "chunked":
            self.body = b"".join(iter(self._chunk, b""))
        else:
            self.body = self._read(int(self.headers.get("Content-Length", 0)))
        super()._answer()

    def _chunk(self) -> bytes:
        data = self.rfile.read(int(self.rfile.readline(), 16))
        self.rfile.readline()
        return data

    def _read(self, size: int) -> bytes:
        body = self.rfile.read(size // 2)
        if self.hub.hold and self.hub.hold in body and self.command == "PUT":
            self.hub.held.set()
            threading.Event().wait()
        return body + self.rfile.read(size - size // 2)

    def _storage(self, path: str) -> None:
        oid = path.removeprefix("/storage/")
        assert hashlib.sha256(self.body).hexdigest() == oid
        self.hub.storage[oid] = self.body
        self.hub.stored.append(oid)
        self._send(200, {}, b"")

    def _hub(self, path: str) -> None:
        if path == "/api/validate-yaml":
            return self._validate()
        user = self.hub.users.get(self.token)
        if user is None:
            return self._refuse(401, "", "Invalid credentials in Authorization header")
        if path == "/api/whoami-v2":
            return self._json({"type": "user", "name": user, "orgs": [], "auth": {}})
        if path == "/api/repos/create":
            return self._create(user)
        if found := re.fullmatch(r"/(.+)\.git/info/lfs/objects/batch", path):
            return self._batch()
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(\w+)/main)?", path)
        assert found is not None, path
        repo, what = found.groups()
        model = self.hub.models.get(repo)
        if model is None or (model.private and not repo.startswith(f"{user}/")):
            return self._refuse(404, "RepoNotFound", "Repository not found")
        if what in ("preupload", "commit") and not repo.startswith(f"{user}/"):
            return self._refuse(403, "", "Forbidden: you must use a write token")
        answers: Any = {
            None: self._about,
            "revision": self._about,
            "tree": self._files,
            "preupload": self._modes,
            "commit": self._commit,
        }
        return self._json(answers[what](repo, model))

    def _validate(self) -> None:
        if "not-a-license" in json.loads(self.body)["content"]:
            error = '"license" must be one of [apache-2.0, mit]'
            return self._send(400, {}, json.dumps({"errors": [{"message": error}]}).encode())
        return self._json({"errors": [], "warnings": []})

    def _create(self, user: str) -> None:
        request = json.loads(self.body)
        repo = f"{request['organization']}/{request['name']}"
        if request["organization"] != user:
            return self._refuse(
                403, "", f"You don't have the rights to create a model under {repo}"
            )
        if repo in self.hub.models:
            return self._refuse(409, "", "You already created this model repo")
        private = request.get("visibility") == "private" or bool(request.get("private"))
        self.hub.models[repo] = Model(private)
        return self._json({"url": f"{self.hub.endpoint}/{repo}"})

    def _batch(self) -> None:
        objects = []
        for request in json.loads(self.body)["objects"]:
            address = f"{self.hub.endpoint}/storage/{request['oid']}"
            there = request["oid"] in self.hub.storage
            upload = {} if there else {"actions": {"upload": {"href": address, "header": {}}}}
            objects.append({"oid": request["oid"], "size": request["size"], **upload})
        self._json({"transfer": "basic", "objects": objects})

    def _about(self, repo: str, model: Model) -> Any:
        names = [{"rfilename": name} for name in model.files]
        facts = {"sha": "0" * 40, "private": model.private, "siblings": names, "tags": []}
        return {"_id": "0" * 24, "id": repo, "downloads": 0, "likes": 0, **facts}

    def _files(self, repo: str, model: Model) -> Any:
        return [_entry(name, content) for name, content in model.files.items()]

    def _modes(self, repo: str, model: Model) -> Any:
        def mode(name: str) -> dict[str, Any]:
            entry = _entry(name, model.files[name]) if name in model.files else {}
            oid = entry.get("lfs", entry).get("oid")
            kind = "lfs" if name.endswith(LARGE) else "regular"
            return {"path": name, "uploadMode": kind, "shouldIgnore": False, "oid": oid}

        return {"files": [mode(file["path"]) for file in json.loads(self.body)["files"]]}

    def _commit(self, repo: str, model: Model) -> Any:
        for line in self.body.splitlines():
            entry = json.loads(line)
            key, value = entry["key"], entry["value"]
            if key == "header":
                model.commits.append(value["summary"])
            elif key == "file":
                model.files[value["path"]] = base64.b64decode(value["content"])
            else:
                assert key == "lfsFile"
                model.files[value["path"]] = self.hub.storage[value["oid"]]
        address = f"{self.hub.endpoint}/{repo}/commit/{'0' * 40}"
        return {"success": True, "commitOid": "0" * 40, "commitUrl": address}


def _entry(name: str, content: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "size": len(content), "path": name}
    entry["oid"] = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    if name.endswith(LARGE):
        oid = hashlib.sha256(content).hexdigest()
        entry["lfs"] = {"oid": oid, "size": len(content), "pointerSize": 134}
    return entry
