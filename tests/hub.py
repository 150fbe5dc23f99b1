"""A small server that speaks the hub's protocol to the real client, with the hub's ways of going wrong.

https://huggingface.co/docs/hub/api and what huggingface_hub's client asks for: repository, tree, resolve.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".safetensors", ".bin", ".model")


@dataclass
class Repository:
    """A repository on the server, and what is wrong with it."""

    files: dict[str, bytes]
    gated: bool = False
    cuts: dict[str, list[int]] = field(default_factory=dict)
    """Bytes after which the next downloads of a file break off."""
    claimed: dict[str, int] = field(default_factory=dict)
    """Sizes that the server names for files, where they are not the real ones."""
    stalled: bool = False
    """Downloads begin and never end."""

    def size(self, path: str) -> int:
        return self.claimed.get(path, len(self.files[path]))

    @staticmethod
    def of(folder: Path) -> Repository:
        paths = [path for path in folder.rglob("*") if path.is_file()]
        return Repository({str(path.relative_to(folder)): path.read_bytes() for path in paths})


@dataclass
class Hub:
    """The server: repositories by name, and the downloads that were asked of it (path and range)."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    downloads: list[tuple[str, str | None]] = field(default_factory=list)
    requests: int = 0
    url: str = ""
    stopped: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def served(self) -> Iterator[Hub]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.stopped.set()
            server.shutdown()
            server.server_close()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Tests are quiet."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        self.hub.requests += 1
        path = unquote(urlsplit(self.path).path)
        api = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        match = api or file
        repository = self.hub.repositories.get(match[1]) if match else None
        if match is None or repository is None:
            return self._refuse(404, "RepoNotFound")
        # anybody may look at a gated repository; its files are for those who were let in
        if file and repository.gated and self.headers.get("Authorization") != "Bearer hf_let_me_in":
            return self._refuse(403, "GatedRepo")
        revision = (api[3] if api else file[2] if file else None) or "main"
        if revision not in ("main", COMMIT):
            return self._refuse(404, "RevisionNotFound")
        if api:
            return self._send_json(_tree(repository) if api[2] == "tree" else _info(match[1], repository))
        return self._send_file(repository, match[3], body=body)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send_json(self, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _send_file(self, repository: Repository, name: str, *, body: bool) -> None:
        data = repository.files.get(name)
        if data is None:
            return self._refuse(404, "EntryNotFound")
        wanted = self.headers.get("Range")
        start = int(re.fullmatch(r"bytes=(\d+)-.*", wanted)[1]) if wanted else 0  # type: ignore[index]
        self.send_response(206 if wanted else 200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{_etag(name, data)}"')
        if name.endswith(LARGE):
            self.send_header("X-Linked-Etag", f'"{_etag(name, data)}"')
            self.send_header("X-Linked-Size", str(len(data)))
        self.send_header("Accept-Ranges", "bytes")
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        if body:
            self.hub.downloads.append((name, wanted))
            cuts = repository.cuts.get(name)
            end = cuts.pop(0) if cuts else len(data)
            self.wfile.write(data[start:end] if not repository.stalled else data[:1])
            if repository.stalled:
                self.wfile.flush()
                self.hub.stopped.wait()
            self.close_connection = end < len(data)
        return None


def _etag(name: str, data: bytes) -> str:
    if name.endswith(LARGE):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _info(name: str, repository: Repository) -> dict[str, Any]:
    return {
        "id": name,
        "sha": COMMIT,
        "private": False,
        "gated": repository.gated and "auto",
        "tags": [],
        "siblings": [
            {"rfilename": path, "size": repository.size(path), "blobId": _etag(path, data)}
            for path, data in repository.files.items()
        ],
    }


def _tree(repository: Repository) -> list[dict[str, Any]]:
    entries = []
    for path, data in repository.files.items():
        size = repository.size(path)
        entry: dict[str, Any] = {"type": "file", "path": path, "size": size, "oid": _etag(path, data)}
        if path.endswith(LARGE):
            entry["lfs"] = {"oid": _etag(path, data), "size": size, "pointerSize": 134}
        entries.append(entry)
    return entries
