"""A model of the hub by its name: pinned to a commit, data alone is fetched, offline it is what was fetched last."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.programs import call

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's interface as fetching a model needs, over the files of a folder."""

    folder = None
    asked: list = []  # noqa: RUF012

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def log_message(self, *_):
        pass

    def answer(self, body):
        path = self.path.partition("?")[0]
        self.asked.append(path)
        names = sorted(file.name for file in self.folder.iterdir())
        if path in ("", "/"):
            self.send(b"hub", body)
        elif path.startswith("/api/models/some/model/tree/"):
            tree = [{"type": "file", "path": n, "oid": "0", "size": (self.folder / n).stat().st_size} for n in names]
            self.send(json.dumps(tree).encode(), body)
        elif path.startswith("/api/models/some/model"):
            found = {"id": "some/model", "sha": COMMIT, "siblings": [{"rfilename": name} for name in names]}
            self.send(json.dumps(found).encode(), body)
        elif (
            path.startswith(("/some/model/resolve/main/", f"/some/model/resolve/{COMMIT}/"))
            and (file := self.folder / path.rpartition("/")[2]).is_file()
        ):
            content = file.read_bytes()
            etag = hashlib.sha1(content, usedforsecurity=False).hexdigest()
            self.send(content, body, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def send(self, content, body, headers=None):
        self.send_response(200)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)


@pytest.fixture
def hub(tmp_path, monkeypatch, published_folder):
    """The address of a hub with one model, beside whose data stand a program and a file that Python would unpickle."""
    (published_folder / "modeling_evil.py").write_text("raise SystemExit(3)")
    (published_folder / "pytorch_model.bin").write_bytes(b"not to be fetched")
    Hub.folder, Hub.asked = published_folder, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(tmp_path / "hub"),
        "HF_HUB_OFFLINE": "0",
    }
    server.shutdown()
    server.server_close()


def predicted(tmp_path, environment, name="some/model"):
    words = [f"run={name}", "prompt=ab", "temperature=0", "max_new_tokens=4"]
    return call("scripts/predict.py", *words, cwd=tmp_path, env=environment)


def test_a_model_is_fetched_once_and_read_again_offline(hub, tmp_path):
    first = predicted(tmp_path, hub)
    assert first.returncode == 0, first.stderr
    fetched = {path.rpartition("/")[2] for path in Hub.asked if "/resolve/" in path}
    assert fetched == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    offline = predicted(tmp_path, hub | {"HF_HUB_OFFLINE": "1"})
    assert (offline.returncode, offline.stdout) == (0, first.stdout), offline.stderr


def test_a_run_keeps_the_commit_that_it_started_from(hub, tmp_path):
    done = call("train.py", "init_from=some/model", "--cfg", "job", cwd=tmp_path, env=hub)
    assert done.returncode == 0, done.stderr
    assert f"init_from: some/model@{COMMIT}" in done.stdout
    assert "/model.safetensors" not in " ".join(Hub.asked)  # its config.json alone


@pytest.mark.parametrize(
    ("name", "more", "said"),
    [
        ("some/other", {}, "neither a folder here nor a model of the hub"),
        ("some/model", {"HF_HUB_OFFLINE": "1"}, "out of reach"),
    ],
)
def test_what_cannot_be_had_is_told_in_one_line(name, more, said, hub, tmp_path):
    done = predicted(tmp_path, hub | more, name)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert f"run: {name}: " in done.stderr and said in done.stderr
