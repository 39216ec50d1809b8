"""The index: a folder with a manifest, documents, vectors and a FAISS file."""

from morgana.index.builder import build
from morgana.index.index import Index

__all__ = ["Index", "build"]
