"""What counts as a secret, and that texts come out without it."""

from __future__ import annotations

import base64
from urllib.parse import quote

import pytest

from luthier.errors import DataError
from luthier.redact import MASK, found_in, redact, redact_words, secret_name


@pytest.mark.parametrize(
    "name",
    "HF_TOKEN HUGGING_FACE_HUB_TOKEN TOKEN WANDB_API_KEY OPENAI_APIKEY AWS_SECRET_ACCESS_KEY "
    "AWS_ACCESS_KEY_ID PGPASSWORD MYSQL_PWD KAGGLE_KEY GPG_PASSPHRASE MY_CREDENTIALS SENTRY_DSN "
    "hf_hub_token --hf-hub-token use_auth_token swanlab_api_key swanlab_lark_secret "
    "swanlab_lark_webhook_url".split(),
)
def test_names_of_secrets(name: str) -> None:
    assert secret_name(name)


@pytest.mark.parametrize(
    "name",
    "PWD OLDPWD HOME TOKENIZERS_PARALLELISM max_new_tokens split_special_tokens add_special_tokens run_name "
    "seed ignore_pad_token_for_loss micro_batch_tokens SSH_AUTH_SOCK kto_tag keyboard".split(),
)
def test_names_that_are_none(name: str) -> None:
    assert not secret_name(name)


def test_values_of_the_environment_in_every_spelling(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "pass/word with 100%"
    monkeypatch.setenv("SHOP_PASSWORD", secret)
    packed = base64.b64encode(secret.encode()).decode()
    for form in (secret, quote(secret), quote(secret, safe=""), packed):
        assert redact(f"a {form} b").replace(MASK, "").strip("= ab") == ""
        assert found_in(f"x {form}") == "the value of $SHOP_PASSWORD"


def test_passwords_of_urls(monkeypatch: pytest.MonkeyPatch) -> None:
    assert redact("at https://me:pw@host/x and //me@host") == f"at https://{MASK}@host/x and //me@host"
    monkeypatch.setenv("https_proxy", "http://me:proxypw1@proxy:8080")
    assert redact("proxypw1 failed") == f"{MASK} failed"


@pytest.mark.parametrize(
    "text",
    [
        "hf_" + "aB3" * 12, "ghp_" + "aB3" * 12, "AKIA" + "A1B2" * 4, "sk-proj-" + "aB3_" * 9,
        "xoxb-1234567890-ab", "-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----",
        "eyJhbGciOiJI.eyJzdWIiOiJm.x",
    ],
)  # fmt: skip
def test_shapes_of_tokens(text: str) -> None:
    assert found_in(f"x {text} y") and redact(f"x {text} y") == f"x {MASK} y"


def test_harmless_values_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("A_TOKEN", "true"),
        ("B_KEY", "12345678"),
        ("C_SECRET", "/"),
        ("PGPASSWORD", "postgres"),
    ):
        monkeypatch.setenv(name, value)
    for text in (
        "is true",
        "12345678 rows",
        "a/b",
        "saves/postgres/run",
        "hf_internal",
        "Qwen/Qwen3-0.6B",
        "a:b@c",
    ):
        assert found_in(text) == ""
    assert found_in("postgres") == "the value of $PGPASSWORD"


def test_command_lines() -> None:
    words = "train --hf_hub_token abc ms_hub_token=abc --api-key=abc seed=1 --do_train --use_auth_token --x y"
    shown = (
        f"train --hf_hub_token {MASK} ms_hub_token={MASK} --api-key={MASK} seed=1 --do_train --use_auth_token"
    )
    assert redact_words(words.split()) == [*shown.split(), "--x", "y"]


def test_errors_are_free_of_them() -> None:
    assert str(DataError("no answer from https://me:pw@host")) == f"no answer from https://{MASK}@host"
