"""Files go where LM Studio and Jan look for them, whole, and never over another; commands for the others."""

import errno
import json
import os
import shlex
from pathlib import Path

import pytest
import yaml

from luthier.errors import ExportError
from luthier.export import places


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "APPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(places.sys, "platform", "linux")
    return tmp_path


@pytest.fixture
def file(tmp_path):
    found = tmp_path / "out/tuned-q4_k_m.gguf"
    found.parent.mkdir()
    found.write_bytes(b"GGUF" * 1000)
    return found


def test_lm_studio(home, file):
    (home / ".lmstudio/models").mkdir(parents=True)
    found = places.install("lmstudio", file, "tuned")
    assert found == home / ".lmstudio/models/luthier/tuned/tuned-q4_k_m.gguf"
    assert found.samefile(file)  # a second name, no second copy
    other = file.with_name("tuned-f16.gguf")
    other.write_bytes(b"other")
    assert places.install("lmstudio", other, "tuned").parent == found.parent
    with pytest.raises(ExportError, match="is there already, and is not overwritten -> remove it first"):
        places.install("lmstudio", file, "tuned")
    assert found.read_bytes() == file.read_bytes()


@pytest.mark.parametrize("how", ["pointer", "settings", "old"])
def test_lm_studio_elsewhere(how, home, file):
    place = home / "elsewhere"
    place.mkdir()
    if how == "pointer":
        (home / ".lmstudio-home-pointer").write_text(f"{place}\n")
        wanted = place / "models"
    elif how == "settings":
        (home / ".lmstudio").mkdir()
        (home / ".lmstudio/settings.json").write_text(json.dumps({"downloadsFolder": str(place)}))
        wanted = place
    else:
        (home / ".cache/lm-studio").mkdir(parents=True)
        wanted = home / ".cache/lm-studio/models"
    assert places.install("lmstudio", file, "a/b c").relative_to(wanted).parts[:2] == ("luthier", "a-b-c")


def test_jan(home, file):
    data = home / ".local/share/Jan/data"
    data.mkdir(parents=True)
    found = places.install("jan", file, "tuned 1")
    assert found == data / "llamacpp/models/tuned-1/model.gguf" and found.samefile(file)
    told = yaml.safe_load(found.with_name("model.yml").read_text())
    assert told == {
        "model_path": "llamacpp/models/tuned-1/model.gguf",
        "name": "tuned-1",
        "size_bytes": 4000,
        "model_size_bytes": 4000,
        "embedding": False,
    }
    assert (data / told["model_path"]).is_file()
    with pytest.raises(ExportError, match="Jan has a model of this name already"):
        places.install("jan", file, "tuned 1")
    assert sorted(path.name for path in found.parent.parent.iterdir()) == ["tuned-1"]


def test_jan_elsewhere(home, file):
    place = home / "big disk"
    place.mkdir()
    settings = home / ".config/Jan/settings.json"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps({"data_folder": str(place)}))
    (home / ".local/share/Jan/data").mkdir(parents=True)
    assert places.install("jan", file, "t").is_relative_to(place)
    settings.write_text("{")
    assert places.install("jan", file, "t").is_relative_to(home / ".local/share/Jan/data")


@pytest.mark.parametrize(("platform", "folder"), [("darwin", "Library/Application Support/Jan/data")])
def test_jan_on_another_system(platform, folder, home, monkeypatch):
    monkeypatch.setattr(places.sys, "platform", platform)
    (home / folder).mkdir(parents=True)
    assert places.jan_data() == home / folder


@pytest.mark.parametrize(("where", "looked"), [("lmstudio", ".lmstudio"), ("jan", "Jan/data")])
def test_a_program_that_is_not_here(where, looked, home, file):
    with pytest.raises(ExportError, match=f"is not here .*{looked}.* install it"):
        places.install(where, file, "tuned")


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EPERM])
def test_on_another_disk_it_is_copied(number, home, file, monkeypatch):
    (home / ".lmstudio").mkdir()
    link = os.link

    def refusing(source, target):
        if Path(source) == file or number == errno.EPERM:
            raise OSError(number, "refused")
        link(source, target)

    monkeypatch.setattr(places.os, "link", refusing)
    found = places.install("lmstudio", file, "tuned")
    assert found.read_bytes() == file.read_bytes() and not found.samefile(file)
    assert [path.name for path in found.parent.iterdir()] == [file.name]
    with pytest.raises(ExportError, match="is not overwritten"):
        places.install("lmstudio", file, "tuned")
    assert [path.name for path in found.parent.iterdir()] == [file.name]


def test_commands(tmp_path):
    serve, imported = places.serve(Path("a b/tuned.gguf"), 8192)
    assert shlex.split(serve)[:5] == ["llama-server", "-m", "a b/tuned.gguf", "--jinja", "-c"]
    assert shlex.split(imported) == [
        "lms",
        "import",
        "a b/tuned.gguf",
        "--user-repo",
        "luthier/tuned",
        "--copy",
    ]
    plain = shlex.split(places.vllm(tmp_path, 4096, "tuned"))
    assert plain[:3] == ["vllm", "serve", str(tmp_path)] and "--chat-template" not in plain
    assert plain[plain.index("--max-model-len") + 1] == "4096"
    (tmp_path / "chat_template.jinja").write_text("x")
    assert str(tmp_path / "chat_template.jinja") in shlex.split(places.vllm(tmp_path, 4096, "tuned"))
