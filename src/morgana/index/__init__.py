"""The index: a folder with a manifest and immutable segments of documents, vectors and search files."""

from morgana.index.builder import build
from morgana.index.index import Index
from morgana.index.verifying import verify

__all__ = ["Index", "build", "verify"]
