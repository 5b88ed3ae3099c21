"""Data sets of a hub, from a cache laid out on disk: no network is used or needed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from luthier.data import registry, sources
from luthier.data.sources import hub
from luthier.data.spec import DatasetSpec
from luthier.errors import DataError, MissingPackage

CARD = """---
license: mit
configs:
- config_name: en
  data_files:
  - split: train
    path: en/part-*.jsonl
  - split: test
    path: ["en/held.jsonl"]
- config_name: zh
  default: true
  data_files: zh/**/*.jsonl
---
# A data set
"""
FILES = ("en/part-0.jsonl", "en/part-1.jsonl", "en/held.jsonl", "zh/a.jsonl", "zh/b/c.jsonl", "readme.txt")


def lay_out(root: Path, names, card=None) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f'{{"text": "{name}"}}\n')
    if card:
        (root / "README.md").write_text(card)
    return root


def selected(root, **options):
    spec = DatasetSpec("d", "hf", "org/name", **options)
    return [file.relative_to(root).as_posix() for file in hub.select(root, spec)]


def test_the_card_says_which_files(tmp_path):
    root = lay_out(tmp_path, FILES, CARD)
    assert selected(root) == ["zh/a.jsonl", "zh/b/c.jsonl"]
    assert selected(root, subset="en") == ["en/part-0.jsonl", "en/part-1.jsonl"]
    assert selected(root, subset="en", split="test") == ["en/held.jsonl"]
    with pytest.raises(DataError, match='no subset "fr" -> use one of en, zh'):
        selected(root, subset="fr")
    with pytest.raises(DataError, match='no split "dev" -> use one of test, train'):
        selected(root, subset="en", split="dev")


@pytest.mark.parametrize(
    "names, options, expected",
    [
        (["a.json", "b.json"], {}, ["a.json", "b.json"]),
        (["data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"], {},
         ["data/train-00000-of-00001.parquet"]),
        (["train.csv", "dev.csv"], {"split": "validation"}, ["dev.csv"]),
        (["all.json", "test.json"], {}, ["all.json"]),
        (["data/train_sft-0.parquet", "data/train_gen-0.parquet"], {"split": "train_sft"},
         ["data/train_sft-0.parquet"]),
        (["en/a.json", "zh/a.json"], {"subset": "zh"}, ["zh/a.json"]),
        (["dpo_en.json", "dpo_zh.json"], {"subset": "en"}, ["dpo_en.json"]),
        (["python/a.parquet", "java/a.parquet"], {"folder": "python"}, ["python/a.parquet"]),
    ],
)  # fmt: skip
def test_names_say_it_where_there_is_no_card(tmp_path, names, options, expected):
    assert selected(lay_out(tmp_path, names), **options) == expected


def test_slices_are_refused():
    with pytest.raises(DataError, match=r'split "train\[:10\]": slices are not read'):
        hub.fetch(DatasetSpec("d", "hf", "a/b", split="train[:10]"))


def run(code: str, **environment) -> subprocess.CompletedProcess:
    """huggingface_hub reads its environment when imported, so each check is a process of its own."""
    keep = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    return subprocess.run(
        [sys.executable, "-c", code], env={**keep, **environment}, capture_output=True, text=True, timeout=60
    )


def test_offline_cache_is_read(tmp_path):
    folder = tmp_path / "hub" / "datasets--org--name"
    lay_out(folder / "snapshots" / "abc", FILES, CARD)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    code = (
        "from luthier.data import registry, sources\n"
        "(spec,) = registry.specs(['org/name'], 'data')\n"
        "print(spec.formatting, [(row.source, row.data['text']) for row in sources.read(spec)])"
    )
    done = run(code, HF_HOME=str(tmp_path), HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "text [('a.jsonl:1', 'zh/a.jsonl'), ('c.jsonl:1', 'zh/b/c.jsonl')]"


def test_offline_and_not_in_the_cache(tmp_path):
    code = (
        "from luthier.data import registry\nfrom luthier.errors import DataError\n"
        "try:\n    registry.specs(['org/name'], 'data')\nexcept DataError as error:\n    print(error)"
    )
    done = run(code, HF_HOME=str(tmp_path), HF_HUB_OFFLINE="1")
    assert done.stdout.startswith(
        "data set org/name: org/name: it is not in the cache, and HF_HUB_OFFLINE forbids"
    )
    assert "hf download --repo-type dataset org/name" in done.stdout


def test_modelscope_is_an_optional_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "modelscope", None)
    with pytest.raises(MissingPackage, match=r'pip install "luthier\[modelscope\]"'):
        list(sources.read(DatasetSpec("d", "ms", "a/b")))


def test_missing_package_is_raised_by_the_registry_too(monkeypatch):
    monkeypatch.setitem(sys.modules, "modelscope", None)
    with pytest.raises(MissingPackage):
        registry.specs(["ms:a/b"], "data")
