"""LangChain and Morgana through each other's interfaces; importing this imports langchain-core, importing morgana not.

Names are LangChain's own: each class is LangChain's interface of that name over a part of Morgana. `Theirs` goes the
other way: a vector store or retriever of LangChain's as a retriever of Morgana's.
"""

from morgana.interop.langchain._documents import from_langchain, to_langchain
from morgana.interop.langchain.chat import ChatModel
from morgana.interop.langchain.compressor import Compressor
from morgana.interop.langchain.embeddings import Embeddings
from morgana.interop.langchain.retriever import Retriever
from morgana.interop.langchain.runnable import Runnable
from morgana.interop.langchain.store import VectorStore
from morgana.interop.langchain.theirs import Theirs, fill

__all__ = [
    "ChatModel",
    "Compressor",
    "Embeddings",
    "Retriever",
    "Runnable",
    "Theirs",
    "VectorStore",
    "fill",
    "from_langchain",
    "to_langchain",
]
