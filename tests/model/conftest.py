"""One tiny base for the whole folder: tests copy what they change."""

import pytest

import tiny


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """A Qwen3 with separate output layer, and its tokenizer."""
    return tiny.make_model(tmp_path_factory.mktemp("base"), "qwen3")


@pytest.fixture(scope="session")
def tied(tmp_path_factory):
    """The same with one matrix for input embeddings and output layer."""
    return tiny.make_model(tmp_path_factory.mktemp("tied"), "qwen3", tie_word_embeddings=True)
