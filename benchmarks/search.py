"""Dense search at batch 64, against encoding and raw FAISS: of texts, of image files, and of ready tensors."""

from __future__ import annotations

from collections.abc import Callable

import faiss
import torch
from _measure import Result, Setting, batches, fastest, tiles

from morgana.corpus.images import load
from morgana.index import build
from morgana.retrieval.encoders.openclip import OpenCLIP
from morgana.retrieval.retrievers.dense import Dense
from morgana.types import Document, Query

BATCH, K = 64, 10


def bench(setting: Setting) -> list[Result]:
    encoder = OpenCLIP(setting.encoder)
    texts = [
        f"site {i}: a harbour with {i % 7} boats, opened in {1800 + i % 200}" for i in range(setting.choose(5000, 300))
    ]
    documents = [Document(f"d{i}", text) for i, text in enumerate(texts)]
    folder = setting.folder / "searched"
    index = build(documents, encoder, folder, overwrite=True, progress=False)
    raw = faiss.IndexFlatIP(encoder.dimension)
    raw.add(index.embeddings.vectors.numpy())
    dense = Dense(str(folder), encoder)
    paths = tiles(BATCH)
    (ready,) = batches(paths, BATCH)
    by_text = [Query(f"q{i}", texts[i]) for i in range(BATCH)]
    by_image = [Query(f"q{i}", image=path) for i, path in enumerate(paths)]
    bare: dict[str, tuple[list[Query], Callable[[], torch.Tensor]]] = {
        "encode + raw FAISS, text queries": (by_text, lambda: encoder.encode_text(texts[:BATCH])),
        "load + encode + raw FAISS, image queries": (
            by_image,
            lambda: encoder.encode_image(torch.cat([load(path) for path in paths])),
        ),
        "encode + raw FAISS, image queries, theirs decoded before": (by_image, lambda: encoder.encode_image(ready)),
    }

    def search(encode: Callable[[], torch.Tensor]) -> None:
        with torch.no_grad():
            raw.search(encode().cpu().numpy(), K)

    found = []
    for name, (queries, encode) in bare.items():
        dense(queries, K)
        runs = {"ours": lambda q=queries: dense(q, K), "bare": lambda e=encode: search(e)}
        seconds = fastest(setting.choose(10, 2), **runs)
        detail = f"{1000 * seconds['ours']:.0f} ms against {1000 * seconds['bare']:.0f} ms for {BATCH}"
        found.append(Result(f"Dense / {name}", seconds["ours"] / seconds["bare"], 1.10, detail=detail))
    return found
