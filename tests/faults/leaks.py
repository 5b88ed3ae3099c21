"""Secrets in the environment and in words: none of them is in any file, on the screen or in an error."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import tasks
from faults.bench import Bench, Done, Trial

KEY = "-----BEGIN {0}-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUfault\n-----END {0}-----".format(
    "OPENSSH PRIVATE KEY"
)
# variable -> (its value, the part of it that nobody may see)
SECRETS: dict[str, tuple[str, str]] = {
    **{name: (value, value) for name, value in {
        "HF_TOKEN": "hf_FaultsAbCdEfGhIjKlMnOpQrStUvWxYz01",
        "HUGGING_FACE_HUB_TOKEN": "hf_OldNameAbCdEfGhIjKlMnOpQrStUvWx02",
        "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234503",
        "SWANLAB_API_KEY": "SwanlabFaultsKey04",
        "MODELSCOPE_API_TOKEN": "ms-01234567-89ab-cdef-0123-456789abcd05",
        "OPENAI_API_KEY": "sk-proj-FaultsAbCdEfGhIjKlMnOpQrSt06",
        "ANTHROPIC_API_KEY": "sk-ant-FaultsAbCdEfGhIjKlMnOpQrSt07",
        "AWS_ACCESS_KEY_ID": "AKIAFAULTSEXAMPLE080",
        "AWS_SECRET_ACCESS_KEY": "wJalrFaults/K7MDENG+bPxRfiCYEXAMPLE09",
        "AWS_SESSION_TOKEN": "FwoGZXIvYXdzEFaultsSession10",
        "AZURE_CLIENT_SECRET": "azure~Faults.Secret11",
        "GOOGLE_API_KEY": "AIzaSyFaults-0123456789abcdefghijklmn12",
        "GITHUB_TOKEN": "ghp_FaultsAbCdEfGhIjKlMnOpQrStUvWxYz13",
        "GITLAB_TOKEN": "glpat-Faults-AbCdEfGhIj14",
        "SLACK_BOT_TOKEN": "xoxb-0123456789-Faults15",
        "DOCKER_PASSWORD": "docker pass/word 16",
        "PGPASSWORD": "postgresFaults17",
        "MYSQL_PWD": "mysql%Faults18",
        "KAGGLE_KEY": "kaggleFaults0123456789abcdef19",
        "COMET_API_KEY": "cometFaults20",
        "MLFLOW_TRACKING_PASSWORD": "mlflowFaults21",
        "CLEARML_API_SECRET_KEY": "clearmlFaults22",
        "JWT": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJmYXVsdHMifQ.Faults23",
        "MY_COMPANY_CREDENTIALS": "company:Faults24",
        "SSH_PRIVATE_KEY": KEY,
    }.items()},
    "DATABASE_URL": ("postgresql://shop:dbFaults%2F25@db.example:5432/shop", "dbFaults%2F25"),
    "MLFLOW_TRACKING_URI": ("https://user:mlflowFaults26@mlflow.example", "mlflowFaults26"),
    "no_such_proxy": ("http://proxy:proxyFaults27@proxy.example:8080", "proxyFaults27"),
}  # fmt: skip
WRITTEN = "WrittenByTheUserFaults28"  # a secret that stands in a word, in no variable
HIDDEN = {**{name: part for name, (_, part) in SECRETS.items()}, "a word": WRITTEN}
URL = f"https://user:{WRITTEN}@hub.example/owner/name"


def spelled(secret: str) -> set[bytes]:
    """A secret as it is, URL-quoted, as JSON, line by line, and in base64 wherever it begins."""
    found = {secret, quote(secret), quote(secret, safe=""), json.dumps(secret)[1:-1]}
    found |= {line for line in secret.splitlines() if len(line) > 30 and "KEY" not in line}
    for offset in range(3):
        packed = base64.b64encode(b"\0" * offset + secret.encode()).decode()
        found.add(packed[4 if offset else 0 : (offset + len(secret)) // 3 * 4])
    return {form.encode() for form in found}


FORMS = {name: spelled(secret) for name, secret in HIDDEN.items()}


def seen(folder: Path, done: Done) -> str:
    """Where a secret is found, "" when nowhere."""
    places = [("standard output", done.out.encode()), ("standard error", done.err.encode())]
    places += [(str(p.relative_to(folder)), p.read_bytes()) for p in folder.rglob("*") if p.is_file()]
    places += [(f"the name {p.name}", str(p).encode()) for p in folder.rglob("*")]
    return "; ".join(
        f"${name} in {where}"
        for where, content in places
        for name, forms in FORMS.items()
        if any(form in content for form in forms)
    )


def _environment(folder: Path) -> dict[str, str]:
    """All secrets, talkative libraries, and every cache where it can be searched."""
    places = {
        "LUTHIER_CACHE": "cache",
        "XDG_CACHE_HOME": "xdg",
        "HF_HOME": "hf",
        "TMPDIR": "tmp",
        "HOME": "home",
    }
    for place in places.values():
        (folder / place).mkdir()
    talk = {"TRANSFORMERS_VERBOSITY": "debug", "HF_HUB_VERBOSITY": "debug", "DATASETS_VERBOSITY": "debug"}
    return {
        **{name: value for name, (value, _) in SECRETS.items()},
        **{name: str(folder / place) for name, place in places.items()},
        **talk,
        "ACCELERATE_LOG_LEVEL": "DEBUG",
    }


def _cases(folder: Path, base: list[str], run: str) -> dict[str, tuple[Sequence[str], int]]:
    """name -> (words, exit code)"""
    (folder / "bad.json").write_text('[{"instruction": "a", ', encoding="utf-8")
    (folder / "interpolated.yaml").write_text("project: ${oc.env:WANDB_API_KEY}\n", encoding="utf-8")
    (folder / "default.yaml").write_text("project: ${oc.env:DATABASE_URL}\n", encoding="utf-8")
    train = ["train", *base, "output_dir=other"]
    again = f"output_dir={folder / 'other'}"
    token = HIDDEN["HF_TOKEN"]
    return {
        "check": (["check", *base], 0),
        "check as JSON": (["check", *base, "--format", "json"], 0),
        "predict": (["predict", run, "--dataset", str(folder / "data" / "intent.json"), "max_samples=2"], 0),
        "export": (["export", run, f"export_dir={folder / 'exported'}"], 0),
        "runs show": (["runs", "show", run], 0),
        "runs reproduce": (["runs", "reproduce", run], 0),
        "a key that is ignored": ([*train, "swanlab_lark_secret=" + WRITTEN, again], 0),
        "hf_hub_token=": ([*train, f"hf_hub_token={token}"], 2),
        "--hf_hub_token": ([*train, "--hf_hub_token", WRITTEN], 2),
        "--ms-hub-token=": ([*train, f"--ms-hub-token={WRITTEN}"], 2),
        "push_to_hub_token in check": (["check", *base, "--push_to_hub_token", WRITTEN], 2),
        "a misspelt token": ([*train, f"hf_hub_tokn={token}"], 2),
        "a token as a name": ([*train, f"run_name={token}"], 2),
        "a token within a name": ([*train, f"project=shop-{token}-1"], 2),
        "a variable's value": ([*train, f"run_name={HIDDEN['PGPASSWORD']}"], 2),
        "interpolated": ([*train, "interpolated.yaml"], 2),
        "interpolated from a URL": ([*train, "default.yaml"], 2),
        "a URL as model": ([*train, f"model_name_or_path={URL}"], 2),
        "a URL as data set": ([*train, f"dataset={URL}"], 2),
        "a URL as data set in data show": (["data", "show", URL], 2),
        "a URL as a word": (["train", URL], 2),
        "an unknown key": ([*train, "nonsense=1"], 2),
        "bad data": ([*train, "dataset=bad.json"], 1),
        "a template that is none": ([*train, "template=qwne"], 2),
        "a model that is none": ([*train, "model_name_or_path=./nowhere"], 2),
        "a hub that is not reached": ([*train, "model_name_or_path=owner/name"], 1),
        "a directory that is not ours": (["train", *base, f"output_dir={folder / 'data'}"], 1),
        "a run that explodes": ([*train, "learning_rate=1e30", "max_grad_norm=0"], 1),
    }  # fmt: skip


def secrets(bench: Bench, count: int) -> Iterator[Trial]:
    """A training with evaluation and prediction; then each verb, kind of error and way to give a secret."""
    folder = bench.folder()
    env = _environment(folder)
    settings = tasks.make(
        folder, max_steps=2, eval_strategy="steps", eval_steps=1, eval_dataset="intent", max_samples=8,
        do_predict=True, predict_with_generate=True, max_new_tokens=2, run_name="${oc.env:LANG,none}",
    )  # fmt: skip
    words = tasks.words(settings)
    done = bench.luthier(["train", *words], folder, env)
    yield Trial("train, evaluate, predict", _judged(folder, done, 0))
    base = [word for word in words if not word.startswith(("output_dir=", "do_predict=", "max_steps="))]
    base += ["max_steps=2", "output_dir=other"]
    cases = _cases(folder, base, str(folder / "run"))
    names = list(cases)
    for name in [names[k * len(names) // count] for k in range(count)] if count < len(names) else names:
        done = bench.luthier(cases[name][0], folder, env)
        yield Trial(name, _judged(folder, done, cases[name][1]))
    if count >= len(names):
        yield from _fresh(folder, words, env)


def _judged(folder: Path, done: Done, code: int) -> str:
    found = seen(folder, done)
    if found:
        return found[:1000]
    return "" if done.code == code else f"exit code {done.code}, not {code}: {(done.out + done.err)[-800:]}"


def _fresh(folder: Path, words: list[str], env: Mapping[str, str]) -> Iterator[Trial]:
    """Processes that import everything under these variables, with a hub whose address holds a password."""
    hub = {"HF_ENDPOINT": f"http://user:{WRITTEN}@127.0.0.1:9", "HF_HUB_OFFLINE": "0", "HF_DEBUG": "1"}
    for name, changes, code in (
        ("a training of its own", ["output_dir=fresh"], 0),
        ("a model of a hub that does not answer", ["output_dir=fresh2", "model_name_or_path=owner/name"], 1),
        ("data of a hub that does not answer", ["output_dir=fresh3", "dataset=owner/name"], 1),
    ):
        command = [sys.executable, "-m", "luthier", "train", *words, *changes]
        ran = subprocess.run(
            command, cwd=folder, env={**os.environ, **env, **hub}, capture_output=True, text=True, check=False
        )
        yield Trial(name, _judged(folder, Done(ran.returncode, ran.stdout, ran.stderr, 0.0), code))
