"""LangChain's own standard suites, unchanged, over Morgana's parts."""

from __future__ import annotations

import pytest

pytest.importorskip("langchain_tests", reason="langchain-tests is not installed")

from langchain_tests.integration_tests import (
    ChatModelIntegrationTests,
    EmbeddingsIntegrationTests,
    RetrieversIntegrationTests,
    VectorStoreIntegrationTests,
)
from langchain_tests.unit_tests import ChatModelUnitTests, EmbeddingsUnitTests

from morgana.interop.langchain import ChatModel, Embeddings, Retriever, VectorStore
from morgana.retrieval.encoders.hash import HashEncoder
from morgana.types import Document, Hit

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


class TestVectorStore(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, tmp_path):
        return VectorStore(self.get_embeddings(), tmp_path / "x.index")


def shelf(queries, k):
    """A retriever that finds the same five documents for everybody."""
    hits = tuple(Hit(Document(f"d{i}", f"text {i}"), 1 - i / 10) for i in range(5))
    return [hits[:k] for _ in queries]


class TestRetriever(RetrieversIntegrationTests):
    @property
    def retriever_constructor(self):
        return Retriever

    @property
    def retriever_constructor_params(self):
        return {"retriever": shelf}

    @property
    def retriever_query_example(self):
        return "who operates the harbour?"


class TestEmbeddingsUnit(EmbeddingsUnitTests):
    @property
    def embeddings_class(self):
        return Embeddings

    @property
    def embedding_model_params(self):
        return {"encoder": "HashEncoder(dimension=32)"}


class TestEmbeddings(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self):
        return Embeddings

    @property
    def embedding_model_params(self):
        return {"encoder": HashEncoder(dimension=32)}


@pytest.fixture
def benchmark():
    """Runs what it is given once, so that the suite needs no benchmark plugin."""
    return lambda timed: timed()


class TestChatModelUnit(ChatModelUnitTests):
    @property
    def chat_model_class(self):
        return ChatModel

    @property
    def chat_model_params(self):
        return {"model": "atlas"}

    @property
    def supports_image_inputs(self):
        return True


class TestChatModel(ChatModelIntegrationTests):
    """The model is a random one, so only the form of its answers is tested; it calls no tools and counts no tokens."""

    @pytest.fixture(autouse=True)
    def _folder(self, tiny_llava_folder):
        self.folder = str(tiny_llava_folder)

    @property
    def chat_model_class(self):
        return ChatModel

    @property
    def standard_chat_model_params(self):
        return {"temperature": 0, "max_tokens": 4}

    @property
    def chat_model_params(self):
        return {"model": self.folder}

    @property
    def supports_image_inputs(self):
        return False  # the suite fetches its picture from the network; test_langchain_chat.py has one of its own

    @property
    def returns_usage_metadata(self):
        return False

    @property
    def model_override_value(self):
        return self.folder
