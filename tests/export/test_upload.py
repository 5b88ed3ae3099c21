"""Uploading: huggingface_hub itself talks to a small hub on this machine."""

import base64
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import tiny
from luthier.config import Config, load
from luthier.errors import MissingPackage, UsageError
from luthier.export import upload

TOKEN = "hf_" + "a1B2" * 9
PUSH = (
    "from pathlib import Path; from luthier.config import Config; from luthier.export import upload;"
    "import sys; c = Config(export_hub_model_id=sys.argv[2]);"
    "upload.check(c); upload.push(Path(sys.argv[1]), c)"
)


class Hub(ThreadingHTTPServer):
    """Takes what huggingface_hub sends: `files` by path; or refuses all with `status`."""

    daemon_threads = True

    def __init__(self, status=200):
        super().__init__(("127.0.0.1", 0), Answer)
        self.status, self.files, self.tokens = status, {}, set()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    def log_message(self, *_):
        """Not to stderr."""

    def do_GET(self):
        self.reply({}, 404)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.tokens.add(self.headers.get("Authorization"))
        kind = self.path.split("?")[0].removeprefix("/api/")
        if self.server.status != 200:
            self.reply({"error": "refused by the hub"}, self.server.status)
        elif kind == "repos/create":
            self.server.created = json.loads(body)
            name = f"{self.server.created['organization']}/{self.server.created['name']}"
            self.reply({"url": f"{self.server.address}/{name}", "name": name, "id": name})
        elif kind.endswith("preupload/main"):
            asked = [one["path"] for one in json.loads(body)["files"]]
            modes = [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in asked]
            self.reply({"files": modes})
        elif kind.endswith("commit/main"):
            self.take([json.loads(line) for line in body.splitlines()])
            self.reply(
                {
                    "success": True,
                    "commitUrl": f"{self.server.address}/maria/orders/commit/0",
                    "commitOid": "0" * 40,
                }
            )
        else:
            self.reply({})

    def take(self, lines):
        self.server.message = lines[0]["value"]["summary"]
        for line in lines[1:]:
            value = line["value"]
            self.server.files[value["path"]] = base64.b64decode(value["content"])

    def reply(self, found, status=200):
        data = json.dumps(found).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def hub():
    made = Hub()
    yield made
    made.shutdown()
    made.server_close()


def run(command, address, home, **more):
    keys = {"HF_ENDPOINT": address, "HF_TOKEN": TOKEN, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    env = {key: value for key, value in os.environ.items() if not key.startswith("HF_")} | keys | more
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, env=env)


@pytest.fixture
def folder(tmp_path):
    """What an export may leave: files, a folder, one whose proof failed, one that is hidden."""
    place = tmp_path / "out"
    (place / "hf").mkdir(parents=True)
    for name in ("README.md", "hf/config.json", "run-f16.gguf.failed", ".lock"):
        (place / name).write_text(f"{name}\n")
    return place


def test_everything_that_is_proved_is_uploaded_private(hub, folder, tmp_path):
    done = run(["-c", PUSH, str(folder), "maria/orders"], hub.address, tmp_path / "home")
    assert done.returncode == 0, done.stderr
    assert hub.files == {"README.md": b"README.md\n", "hf/config.json": b"hf/config.json\n"}
    assert hub.created == {"name": "orders", "organization": "maria", "visibility": "private"}
    assert hub.message.startswith("Exported by luthier")
    assert f"uploaded: {hub.address}/maria/orders" in done.stderr
    assert hub.tokens == {f"Bearer {TOKEN}"}
    assert TOKEN not in done.stderr + done.stdout


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "log in again: hf auth login"),
        (403, "may not write there"),
        (404, "there is no such owner"),
        (500, "check the network"),
    ],
)
def test_a_refusal_says_what_to_do_and_how_to_repeat(status, words, folder, tmp_path):
    refusing = Hub(status)
    done = run(["-c", PUSH, str(folder), "maria/orders"], refusing.address, tmp_path / "home")
    refusing.shutdown()
    refusing.server_close()
    last = done.stderr.split("luthier.errors.ExportError: ")[-1]
    assert done.returncode == 1
    assert last.startswith("maria/orders: not uploaded: ") and words in last
    assert f"is whole and proved in {folder}" in last
    assert f"hf upload maria/orders {folder} . --private --exclude '*.failed'" in last
    assert TOKEN not in done.stderr


def test_nobody_answers(folder, tmp_path):
    with Hub() as gone:
        address = gone.address
        gone.shutdown()
    done = run(["-c", PUSH, str(folder), "maria/orders"], address, tmp_path / "home")
    assert "maria/orders: not uploaded" in done.stderr and "check the network" in done.stderr


def test_an_export_is_pushed_after_it_is_proved(hub, tmp_path):
    base = tiny.make_model(tmp_path / "base")
    words = ["-m", "luthier", "export", f"model_name_or_path={base}", f"export_dir={tmp_path / 'out'}"]
    words += ["template=chatml", "--push", "maria/orders", "export_hub_private=false"]
    done = run(words, hub.address, tmp_path / "home", OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    assert hub.created["visibility"] == "public"
    assert {"README.md", "config.json", "model.safetensors", "export.json", "Modelfile"} <= set(hub.files)
    assert hub.files["model.safetensors"] == (tmp_path / "out/model.safetensors").read_bytes()
    assert b"## Are these files what was trained?" in hub.files["README.md"]


@pytest.mark.parametrize("name", ["orders", "maria/", "/orders", "a/b/c", "maria/my orders", "maria/../x"])
def test_names_that_no_hub_has(name):
    with pytest.raises(UsageError, match="is no name on a hub -> owner/name"):
        upload.check(Config(export_hub_model_id=name))


def test_without_a_token_or_a_network_nothing_begins(folder, tmp_path):
    done = run(["-c", PUSH, str(folder), "maria/orders"], "http://127.0.0.1:9", tmp_path, HF_TOKEN="")
    assert "UsageError: --push: there is no token for the hub -> hf auth login" in done.stderr
    done = run(["-c", PUSH, str(folder), "maria/orders"], "http://127.0.0.1:9", tmp_path, HF_HUB_OFFLINE="1")
    assert "UsageError: --push: HF_HUB_OFFLINE keeps us from the hub" in done.stderr


def test_the_key_of_llama_factory_and_the_word_of_ours():
    asked = ["model_name_or_path=x/y", "export_dir=out"]
    config = load([*asked, "export_hub_model_id=maria/orders", "hub=hf"], "export")
    assert (config.export_hub_model_id, config.export_hub_private, config.hub) == (
        "maria/orders",
        True,
        "huggingface",
    )
    assert load(upload.words([*asked, "--push", "maria/orders"]), "export") == load(
        [*asked, "export_hub_model_id=maria/orders"], "export"
    )


def test_modelscope_needs_its_package():
    config = Config(export_hub_model_id="maria/orders", hub="modelscope")
    try:
        import modelscope  # noqa: F401
    except ImportError:
        with pytest.raises(MissingPackage, match=r'pip install "luthier\[modelscope\]"'):
            upload.check(config)
    else:
        upload.check(config)
    assert upload.command(upload.Path("out"), config) == "modelscope upload maria/orders out"
