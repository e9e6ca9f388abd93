"""A Hub on loopback: the endpoints that pushing and loading use, and the faults that a network has."""

import base64
import hashlib
import itertools
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote

TOKEN = "hf_" + "aVerySecretTokenOfNobody" * 2


@dataclass
class Repo:
    """Commits, which are whole sets of files, and the branches that name them."""

    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    gitignore: str | None = None

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        """Add a commit that holds exactly these files."""
        oid = hashlib.sha1(f"{len(self.commits)} {branch} {sorted(files)}".encode()).hexdigest()
        self.commits[oid] = files
        self.branches[branch] = oid
        return oid

    @property
    def files(self) -> dict[str, bytes]:
        """What lies on main."""
        return self.commits[self.branches["main"]]


@dataclass
class Fault:
    """What happens to the next `times` requests whose method and path fit, in place of an answer."""

    pattern: str
    times: int
    status: int | None = None  # None: the connection breaks
    is_late: bool = False  # after the request was obeyed
    before: Callable[[], object] | None = None
    message: str = "the server has a bad day"
    code: str | None = None


class HubServer(ThreadingHTTPServer):
    """Start with `with HubServer() as hub`; then ask `hub.repos` and `hub.requests` what happened."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.repos: dict[str, Repo] = {}  # "models/user/name"
        self.large: dict[str, bytes] = {}  # by SHA-256
        self.requests: list[str] = []
        self.faults: list[Fault] = []
        self.lock = threading.RLock()

    def __enter__(self) -> "HubServer":
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def fail(self, pattern: str, times: int = 1, **fault) -> None:
        """Plan a fault for requests such as `POST /api/models/user/name/commit/main`."""
        self.faults.append(Fault(pattern, times, **fault))

    def asked(self, pattern: str) -> list[str]:
        """The requests that fit."""
        return [request for request in self.requests if re.search(pattern, request)]

    @property
    def writes(self) -> list[str]:
        """The requests that change something."""
        return [request for request in self.requests if not request.startswith(("GET", "HEAD"))]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 20  # head and body in one packet: two would wait 40 ms for each other
    server: HubServer

    def log_message(self, *_: object) -> None:
        """Silence."""

    def do(self) -> None:
        self.path, _, query = self.path.partition("?")
        self.query = parse_qs(query)
        request = f"{self.command} {unquote(self.path)}"
        with self.server.lock:
            self.server.requests.append(request)
            fault = next((f for f in self.server.faults if f.times and re.search(f.pattern, request)), None)
            if fault is not None:
                fault.times -= 1
        if fault is None:
            return self.route()
        if fault.before is not None:
            fault.before()
            return self.route()
        if fault.is_late:
            self.body()
            self.wfile, answer = _Sink(), self.wfile
            self.route()
            self.wfile = answer
        elif fault.status is not None:
            self.body()
        else:
            self.rfile.read(min(100, int(self.headers.get("Content-Length", 0))))  # the rest is never heard
        if fault.status is None:
            self.close_connection = True
            return self.connection.close()
        return self.error(fault.status, fault.code, fault.message)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do

    def body(self) -> bytes:
        if not hasattr(self, "_body"):
            if self.headers.get("Transfer-Encoding") == "chunked":
                chunks = []
                while size := int(self.rfile.readline(), 16):
                    chunks.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                self._body = b"".join(chunks)
            else:
                self._body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        return self._body

    def handle_one_request(self) -> None:
        self.__dict__.pop("_body", None)
        super().handle_one_request()

    def answer(self, content: object, status: int = 200, **headers: object) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": len(data), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def error(self, status: int, code: str | None = None, message: str | None = None) -> None:
        headers = {name: value for name, value in (("X_Error_Code", code), ("X_Error_Message", message)) if value}
        self.answer({"error": message or code}, status, **headers)

    def route(self) -> None:
        body = self.body()
        token = self.headers.get("Authorization")
        is_trusted = token == f"Bearer {TOKEN}"
        path = unquote(self.path).strip("/")
        if token is not None and not is_trusted:
            return self.error(401, message="Invalid credentials in Authorization header")
        if self.command not in ("GET", "HEAD") and not is_trusted and not path.startswith("upload/"):
            return self.error(401, message="Invalid username or password.")
        if path == "api/repos/create":
            return self.create(json.loads(body))
        if path == "api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if match := re.fullmatch(r"upload/(\w+)", path):
            if hashlib.sha256(body).hexdigest() != match[1]:
                return self.error(400, message="another hash")
            self.server.large[match[1]] = body
            return self.answer(b"")
        for pattern, handle in (
            (r"api/(models|datasets)/([^/]+/[^/]+)/(preupload|commit|branch|revision|tree)/(.+)", self.api),
            (r"api/(models|datasets)/([^/]+/[^/]+)()()", self.api),
            (r"(datasets)?/?([^/]+/[^/]+)\.git/(info/lfs/objects/batch)()", self.api),
            (r"(datasets)?/?([^/]+/[^/]+)/(resolve)/(.+)", self.api),
        ):
            if match := re.fullmatch(pattern, path):
                kind, name, action, rest = match.groups()
                repo = self.server.repos.get(f"{kind or 'models'}/{name}")
                if repo is None or (repo.private and not is_trusted):
                    return self.error(404, "RepoNotFound", "Repository not found")
                return handle(repo, f"{kind or 'models'}/{name}", action, rest, body)
        return self.error(404, message="no such endpoint")

    def create(self, wanted: dict) -> None:
        name = f"{wanted.get('type', 'model')}s/{wanted['organization']}/{wanted['name']}"
        with self.server.lock:
            if name in self.server.repos:
                return self.error(409, message="You already created this repo")
            repo = self.server.repos[name] = Repo(private=wanted.get("visibility") == "private")
            repo.commit("main", {".gitattributes": b"*.safetensors filter=lfs\n"})
        return self.answer({"url": f"{self.server.url}/{name.removeprefix('models/')}", "name": name})

    def api(self, repo: Repo, name: str, action: str, rest: str, body: bytes) -> None:
        if action == "info/lfs/objects/batch":
            objects = json.loads(body)["objects"]
            for one in objects:
                if one["oid"] not in self.server.large:
                    one["actions"] = {"upload": {"href": f"{self.server.url}/upload/{one['oid']}"}}
            return self.answer({"transfer": "basic", "objects": objects})
        revision, _, inside = rest.partition("/")
        if rest.startswith("refs/pr/"):
            revision, inside = "/".join(rest.split("/")[:3]), "/".join(rest.split("/")[3:])
        oid = repo.branches.get(revision or "main", revision)
        if action == "branch":
            repo.branches.setdefault(rest, json.loads(body)["startingPoint"])
            return self.answer({})
        if oid not in repo.commits:
            return self.error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        files = repo.commits[oid]
        if action == "preupload":
            return self.answer({"files": [self.mode(repo, files, one) for one in json.loads(body)["files"]]})
        if action == "commit":
            with self.server.lock:
                return self.commit(repo, name, revision, body)
        if action == "tree":
            return self.answer([self.entry(path, data) for path, data in sorted(files.items())])
        if action == "resolve":
            return self.resolve(oid, files, inside)
        siblings = [{"rfilename": path} for path in sorted(files)]
        info = {"id": name.partition("/")[2], "sha": oid, "private": repo.private, "siblings": siblings, "tags": []}
        return self.answer({**info, "downloads": 0, "likes": 0, "gated": False, "disabled": False})

    def mode(self, repo: Repo, files: dict[str, bytes], wanted: dict) -> dict:
        path = wanted["path"]
        there = files.get(path)
        is_large = is_lfs(path)
        oid = None if there is None else hashlib.sha256(there).hexdigest() if is_large else git_hash(there)
        is_ignored = repo.gitignore is not None and re.search(repo.gitignore, path) is not None
        mode = "lfs" if is_large else "regular"
        return {"path": path, "uploadMode": mode, "shouldIgnore": is_ignored, "oid": oid}

    def commit(self, repo: Repo, name: str, revision: str, body: bytes) -> None:
        header, *operations = [json.loads(line) for line in body.splitlines()]
        head = repo.branches[revision]
        if header["value"].get("parentCommit", head) != head:
            return self.error(412, message="A commit has happened since. Please refresh and try again.")
        files = dict(repo.commits[head])
        for operation in operations:
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                if value["oid"] not in self.server.large:
                    return self.error(400, message=f"{value['path']} was not uploaded")
                files[value["path"]] = self.server.large[value["oid"]]
            else:
                del files[value["path"]]
        extra = {}
        if "create_pr" in self.query:
            number = next(n for n in itertools.count(1) if f"refs/pr/{n}" not in repo.branches)
            revision, extra = f"refs/pr/{number}", {"pullRequestUrl": f"{self.server.url}/{name}/discussions/{number}"}
        oid = repo.commit(revision, files)
        url = f"{self.server.url}/{name.removeprefix('models/')}/commit/{oid}"
        return self.answer({"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": "", **extra})

    def entry(self, path: str, data: bytes) -> dict:
        entry = {"type": "file", "path": path, "size": len(data), "oid": git_hash(data)}
        if is_lfs(path):
            entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
        return entry

    def resolve(self, oid: str, files: dict[str, bytes], path: str) -> None:
        if path not in files:
            return self.answer(b"", 404, X_Error_Code="EntryNotFound", X_Repo_Commit=oid)
        data = files[path]
        etag = hashlib.sha256(data).hexdigest() if is_lfs(path) else git_hash(data)
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": oid}
        if (start := re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))) and int(start[1]):
            headers["Content-Range"] = f"bytes {start[1]}-{len(data) - 1}/{len(data)}"
            return self.answer(data[int(start[1]) :], 206, **headers)
        return self.answer(data, **headers)


class _Sink:
    """Hears an answer that nobody else does."""

    def write(self, data: bytes) -> int:
        return len(data)

    def flush(self) -> None:
        """Nothing to do."""


def is_lfs(path: str) -> bool:
    """Whether the Hub keeps a file apart from git."""
    return path.endswith((".safetensors", ".gz", ".png"))


def git_hash(data: bytes) -> str:
    """The name that git gives to a file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
