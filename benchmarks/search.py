"""Dense search at batch 64, against encoding ready inputs and raw FAISS."""

from __future__ import annotations

import faiss
import torch
from _measure import Result, Setting, batches, fastest, tiles

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
    asked = {"text": [Query(f"q{i}", texts[i]) for i in range(BATCH)]}
    asked["image"] = [Query(f"q{i}", image=path) for i, path in enumerate(paths)]

    def bare(kind: str) -> None:
        with torch.no_grad():
            rows = encoder.encode_text(texts[:BATCH]) if kind == "text" else encoder.encode_image(ready)
        raw.search(rows.cpu().numpy(), K)

    found = []
    for kind, queries in asked.items():
        dense(queries, K)
        runs = {"ours": lambda q=queries: dense(q, K), "bare": lambda k=kind: bare(k)}
        seconds = fastest(setting.choose(10, 2), **runs)
        detail = f"{1000 * seconds['ours']:.0f} ms against {1000 * seconds['bare']:.0f} ms for {BATCH}"
        found.append(
            Result(
                f"Dense / encode + raw FAISS, {kind} queries", seconds["ours"] / seconds["bare"], 1.10, detail=detail
            )
        )
    return found
