"""A small server that speaks the hub's protocol to the real client, with the hub's ways of going wrong.

https://huggingface.co/docs/hub/api and what huggingface_hub's client asks for: repository, tree, resolve.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".safetensors", ".bin", ".model")
PIECE = 1 << 16


@dataclass(frozen=True)
class Sparse:
    """A file of any size: bytes at its start, then zeros that take no memory."""

    start: bytes
    size: int

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, part: slice) -> bytes:
        begin, end, _ = part.indices(self.size)
        return self.start[begin:end].ljust(max(0, end - begin), b"\0")


@dataclass
class Repository:
    """A repository on the server, and what is wrong with it."""

    files: dict[str, bytes | Sparse]
    commit: str = COMMIT
    """What ``main`` points to, and the only one there is."""
    gated: bool = False
    cuts: dict[str, list[int]] = field(default_factory=dict)
    """Bytes after which the next downloads of a file break off."""
    claimed: dict[str, int] = field(default_factory=dict)
    """Sizes that the server names for files, where they are not the real ones."""
    stalled: bool = False
    """Downloads begin and never end."""
    ranges: bool = True
    """Whether a part of a file can be had; if not, the whole is sent whatever is asked for."""
    elsewhere: bool = False
    """Large files are on another host, as on the real hub: one that must not see the token."""

    def size(self, path: str) -> int:
        return self.claimed.get(path, len(self.files[path]))

    @staticmethod
    def of(folder: Path) -> Repository:
        paths = [path for path in folder.rglob("*") if path.is_file()]
        return Repository({str(path.relative_to(folder)): path.read_bytes() for path in paths})


@dataclass
class Hub:
    """The server: repositories by name, the downloads that were asked of it (path and range), bytes sent."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    downloads: list[tuple[str, str | None]] = field(default_factory=list)
    requests: int = 0
    sent: Counter[str] = field(default_factory=Counter)
    """Bytes of each file's content that were sent; those of other answers are under ``""``."""
    failing: bool = False
    """Every request is answered with 503."""
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

    def handle(self) -> None:
        with suppress(ConnectionError):  # clients that are interrupted hang up
            super().handle()

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        if self.path == "/api/agent-harnesses":  # the client asks this once a day, for its own ends
            return self._refuse(404, "NotFound")
        self.hub.requests += 1
        if self.hub.failing:
            return self._refuse(503, "Failing")
        path = unquote(urlsplit(self.path).path)
        api = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", path)
        file = re.fullmatch(r"(?:/elsewhere)?/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        match = api or file
        repository = self.hub.repositories.get(match[1]) if match else None
        if match is None or repository is None:
            return self._refuse(404, "RepoNotFound")
        if path.startswith("/elsewhere/"):
            reported = "Authorization" in self.headers
            return (
                self._refuse(400, "TokenTold")
                if reported
                else self._send_file(repository, match[3], body=body)
            )
        # anybody may look at a gated repository; its files are for those who were let in
        if file and repository.gated and self.headers.get("Authorization") != "Bearer hf_let_me_in":
            return self._refuse(403, "GatedRepo")
        revision = (api[3] if api else file[2] if file else None) or "main"
        if revision not in ("main", repository.commit):
            return self._refuse(404, "RevisionNotFound")
        if api:
            return self._send_json(_tree(repository) if api[2] == "tree" else _info(match[1], repository))
        if repository.elsewhere and match[3].endswith(LARGE):
            return self._send_elsewhere()
        return self._send_file(repository, match[3], body=body)

    def _send_elsewhere(self) -> None:
        self.send_response(302)
        other = self.hub.url.replace("127.0.0.1", "localhost")
        self.send_header("Location", f"{other}/elsewhere{self.path}")
        self.send_header("Content-Length", "0")
        self.end_headers()

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
        self.hub.sent[""] += len(data)

    def _send_file(self, repository: Repository, name: str, *, body: bool) -> None:
        data = repository.files.get(name)
        if data is None:
            return self._refuse(404, "EntryNotFound")
        wanted = self.headers.get("Range")
        first, last = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted).groups() if wanted else ("0", "")  # type: ignore[union-attr]
        start = int(first) if repository.ranges else 0
        end = min(int(last) + 1, len(data)) if last and repository.ranges else len(data)
        self.send_response(206 if wanted and repository.ranges else 200)
        self.send_header("X-Repo-Commit", repository.commit)
        self.send_header("ETag", f'"{_etag(name, data)}"')
        if name.endswith(LARGE):
            self.send_header("X-Linked-Etag", f'"{_etag(name, data)}"')
            self.send_header("X-Linked-Size", str(len(data)))
        self.send_header("Accept-Ranges", "bytes")
        if wanted and repository.ranges:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        if body:
            self.hub.downloads.append((name, wanted))
            cuts = repository.cuts.get(name)
            cut = min(cuts.pop(0), end) if cuts else end
            whole = self._send_part(name, data, start, cut if not repository.stalled else start + 1)
            if repository.stalled:
                self.hub.stopped.wait()
            self.close_connection = cut < end or not whole
        return None

    def _send_part(self, name: str, data: bytes | Sparse, start: int, end: int) -> bool:
        """Send it piece by piece; False if the client hung up."""
        try:
            for begin in range(start, end, PIECE):
                piece = data[begin : min(begin + PIECE, end)]
                self.wfile.write(piece)
                self.hub.sent[name] += len(piece)
        except ConnectionError:
            return False
        return True


def _etag(name: str, data: bytes | Sparse) -> str:
    data = data.start if isinstance(data, Sparse) else data
    if name.endswith(LARGE):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _info(name: str, repository: Repository) -> dict[str, Any]:
    return {
        "id": name,
        "sha": repository.commit,
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
