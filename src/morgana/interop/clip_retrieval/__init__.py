"""Folders in clip-retrieval's layout, read and written.

    img_emb/img_emb_0.npy    text_emb/text_emb_0.npy    metadata/metadata_0.parquet    image.index    text.index

Row i of all files with one number is one document: `image_path`, `caption` and other columns in the metadata, and its
vectors. This is how the `OutputSink` of clip-retrieval's inference writes, and where its `clip index` puts indexes.
"""

from morgana.interop.clip_retrieval.reading import read
from morgana.interop.clip_retrieval.writing import write

__all__ = ["read", "write"]
