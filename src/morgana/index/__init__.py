"""The index: a folder with a manifest and immutable segments of documents, vectors and search files."""

from morgana.index.builder import build
from morgana.index.changing import add, delete, upsert
from morgana.index.filters import Where
from morgana.index.index import Index
from morgana.index.merging import compact, merge
from morgana.index.ready import from_vectors
from morgana.index.verifying import verify

__all__ = ["Index", "Where", "add", "build", "compact", "delete", "from_vectors", "merge", "upsert", "verify"]
