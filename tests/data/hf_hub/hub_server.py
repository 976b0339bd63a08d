"""A small local Hub: enough of its protocol for the real client, and faults on request.

    hub = Hub()
    hub.add("me/data", {"README.md": b"…", "python/train-00000-of-00001.parquet": parquet})
    with hub:                                    # listens on hub.endpoint, in threads
        hub.faults["python/train-"] = [status(503), cut(1000)]
        subprocess.run(command, env=os.environ | {"HF_ENDPOINT": hub.endpoint})
    hub.requests                                 # the requests: method, path, range, token

Data files (by suffix) are "in LFS": listed with their SHA-256, and `resolve` redirects to another
host name, as the Hub does to its storage, which no token may reach. The others are git blobs.
"""

import hashlib
import json
import re
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, quote, unquote, urlsplit

from tests.data.hf_hub.faults import LFS, Fault

HIDDEN = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_RESOURCE")  # tokens of the user


@dataclass(frozen=True)
class Request:
    method: str
    path: str  # without the query
    range: str  # the header's value; "": all
    token: str
    sent: int = 0  # bytes of the answer's body to be sent


@dataclass
class Repository:
    files: dict[str, bytes]
    configs: list[dict[str, Any]]  # of the card
    gated: bool
    private: bool
    revisions: dict[str, str]  # branch or tag -> commit

    def commit(self, revision: str) -> str | None:
        return revision if revision in self.revisions.values() else self.revisions.get(revision)


@dataclass
class Hub:
    page: int = 1000  # entries in a page of a listing
    tokens: set[str] = field(default_factory=set)  # valid ones
    readers: set[str] = field(default_factory=set)  # those with access to what is gated or private
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    repositories: dict[str, Repository] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _server: ThreadingHTTPServer | None = None

    def add(
        self,
        repo: str,
        files: dict[str, bytes],
        configs: list[dict[str, Any]] | None = None,
        gated: bool = False,
        private: bool = False,
    ) -> str:
        """Add a dataset or model of these files; return its commit on `main`."""
        digest = hashlib.sha1(repo.encode())
        for name in sorted(files):
            digest.update(name.encode() + files[name])
        commit = digest.hexdigest()
        self.repositories[repo] = Repository(files, configs or [], gated, private, {"main": commit})
        return commit

    @property
    def endpoint(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def handler(self) -> "type[_Handler]":
        return _Handler

    def __enter__(self) -> Self:
        class Handler(self.handler()):  # type: ignore[misc]
            pass

        Handler.hub = self
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()

    def requests_for(self, part: str, method: str = "GET") -> list[Request]:
        """Return the requests so far whose path contains this."""
        return [r for r in self.requests if r.method == method and part in r.path]

    def fault(self, method: str, path: str) -> Fault:
        with self._lock:
            for part, faults in self.faults.items():
                if part in path and faults and faults[0].hits(method, path):
                    return faults.pop(0)
        return Fault()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or every answer takes 40 ms

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        self.given = self.hub.fault(self.command, path)
        try:
            if self.given.status:
                self._send(self.given.status, dict(self.given.headers), b"{}")
            elif path.startswith("/storage/"):
                self._storage(path)
            else:
                self._hub(path)
        except ConnectionError:  # the client has disconnected
            self.close_connection = True

    def _hub(self, path: str) -> None:
        found = re.fullmatch(
            r"/api/(?:datasets|models)/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+)(?:/(.*))?)?", path
        ) or re.fullmatch(r"(?:/datasets)?/([^/]+/[^/]+)/(resolve)/([^/]+)/(.*)", path)
        if found is None:
            return self._refuse(404, "", "Sorry, we can't find the page you are looking for.")
        repo, what, revision, name = found.groups()
        repository = self.hub.repositories.get(repo)
        if self.token and self.token not in self.hub.tokens | self.hub.readers:
            return self._refuse(401, "", "Invalid credentials in Authorization header")
        may_read = self.token in self.hub.readers
        if repository is None or (repository.private and not may_read):
            # without a token the Hub does not distinguish missing from private
            return self._refuse(404 if self.token else 401, "RepoNotFound", "Repository not found")
        commit = repository.commit(revision or "main")
        if commit is None:
            return self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if what == "tree":
            return self._tree(repository, repo, commit, name or "")
        if what != "resolve":
            return self._info(repository, repo, commit)
        if repository.gated and not may_read:
            return self._refuse(
                403 if self.token else 401, "GatedRepo", f"Access to dataset {repo} is restricted."
            )
        if name not in repository.files:
            return self._refuse(404, "EntryNotFound", "Entry not found")
        return self._resolve(repository, repo, commit, name)

    def _info(self, repository: Repository, repo: str, commit: str) -> None:
        self._json(
            {
                "_id": commit[:24],
                "id": repo,
                "author": repo.split("/")[0],
                "sha": commit,
                "lastModified": "2024-09-06T07:04:57.000Z",
                "private": repository.private,
                "gated": "auto" if repository.gated else False,
                "disabled": False,
                "downloads": 0,
                "likes": 0,
                "tags": [],
                "siblings": [{"rfilename": name} for name in repository.files],
                "cardData": {"license": "odc-by", "configs": repository.configs},
            }
        )

    def _tree(self, repository: Repository, repo: str, commit: str, folder: str) -> None:
        query = parse_qs(urlsplit(self.path).query)
        recursive = query.get("recursive", [""])[0].lower() in ("true", "1")
        prefix = f"{folder}/" if folder else ""
        entries: dict[str, dict[str, Any]] = {}
        for name, content in repository.files.items():
            if not name.startswith(prefix):
                continue
            steps = name.removeprefix(prefix).split("/")
            for depth in range(1, len(steps) if recursive else min(len(steps), 2)):
                path = prefix + "/".join(steps[:depth])
                oid = hashlib.sha1(path.encode()).hexdigest()
                entries[path] = {"type": "directory", "oid": oid, "size": 0, "path": path}
            if recursive or len(steps) == 1:
                entries[name] = _entry(name, content)
        if not entries:
            return self._refuse(404, "EntryNotFound", f"{folder} does not exist on {commit!r}")
        start = int(query.get("cursor", ["0"])[0])
        listed = [entries[path] for path in sorted(entries)][start : start + self.hub.page]
        headers = {}
        if start + self.hub.page < len(entries):
            address = f"{self.hub.endpoint}{urlsplit(self.path).path}"
            more = f"recursive={recursive}&cursor={start + self.hub.page}"
            headers["Link"] = f'<{address}?{more}>; rel="next"'
        return self._json(listed, headers)

    def _resolve(self, repository: Repository, repo: str, commit: str, name: str) -> None:
        content, entry = repository.files[name], _entry(name, repository.files[name])
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if "lfs" not in entry:
            return self._file(content, headers | {"ETag": f'"{entry["oid"]}"'})
        storage = self.hub.endpoint.replace("127.0.0.1", "localhost")
        headers |= {
            "X-Linked-Size": str(len(content)),
            "X-Linked-Etag": f'"{entry["lfs"]["oid"]}"',
            "Location": f"{storage}/storage/{repo}/{quote(name)}",
        }
        return self._send(302, headers, b"")

    def _storage(self, path: str) -> None:
        owner, name, file = path.removeprefix("/storage/").split("/", 2)
        content = self.hub.repositories[f"{owner}/{name}"].files[file]
        self._file(content, {"Accept-Ranges": "bytes", "ETag": f'"{_sha256(content)}"'})

    def _file(self, content: bytes, headers: dict[str, str]) -> None:
        if self.given.content is not None:
            content = self.given.content
        size = len(content)
        requested = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if requested is None or self.given.ignore_range:
            return self._send(200, headers, content)
        first, last = int(requested[1]), min(int(requested[2] or size), size - 1)
        if first >= size:
            return self._send(416, {"Content-Range": f"bytes */{size}"}, b"")
        headers = headers | {"Content-Range": f"bytes {first}-{last}/{size}"}
        return self._send(206, headers, content[first : last + 1])

    def _json(self, answer: Any, headers: dict[str, str] | None = None) -> None:
        body = self.given.content or json.dumps(answer).encode()
        self._send(200, {"Content-Type": "application/json"} | (headers or {}), body)

    def _refuse(self, code: int, error: str, message: str) -> None:
        headers = {"X-Error-Message": message} | ({"X-Error-Code": error} if error else {})
        self._send(code, headers, json.dumps({"error": message}).encode())

    def _send(self, code: int, headers: dict[str, str], body: bytes) -> None:
        fault = self.given if code in (200, 206) else Fault()
        breaks = self.command == "GET" and (fault.cut >= 0 or fault.stall > 0)
        sent = body[: max(fault.cut, 0)] if breaks else body
        if self.command == "HEAD":
            sent = b""
        path, requested = unquote(urlsplit(self.path).path), self.headers.get("Range", "")
        # before the answer: the client may inspect the list immediately after it
        self.hub.requests.append(Request(self.command, path, requested, self.token, len(sent)))
        self.send_response(code)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(sent)
        if breaks:
            time.sleep(fault.stall)
            self.close_connection = True


def _entry(name: str, content: bytes) -> dict[str, Any]:
    blob = content
    entry: dict[str, Any] = {"type": "file", "size": len(content), "path": name}
    if name.endswith(LFS):
        oid, size = _sha256(content), len(content)
        blob = (
            f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {size}\n".encode()
        )
        entry["lfs"] = {"oid": oid, "size": size, "pointerSize": len(blob)}
    entry["oid"] = hashlib.sha1(b"blob %d\0" % len(blob) + blob).hexdigest()
    return entry


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def point_client_to(hub: Hub, monkeypatch: Any, home: Path) -> None:
    """Connect the client in this process to this Hub, without a token or login."""
    import huggingface_hub.constants as constants

    for name in HIDDEN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(home))
    monkeypatch.setattr(constants, "HF_HOME", str(home))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    # otherwise the client's first request asks for the agents to name in its User-Agent
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    # so long that no busy machine makes a server silent that is not meant to be
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 60)
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    address = f"{hub.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address)


def make_impatient(monkeypatch: Any) -> None:
    """Let the client in this process leave a server that is silent for a second."""
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 1)
