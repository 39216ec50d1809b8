"""Building an index of images on two Ray workers with half of the cores each, against the local build on all.

The workers have started and hold the model before the clock runs: what a cluster costs once is printed beside it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from importlib.util import find_spec

from _measure import Result, Setting, fastest, tiles

from morgana.cluster import Cluster
from morgana.index import build
from morgana.index.distributed import Distributed
from morgana.retrieval.encoders.openclip import OpenCLIP
from morgana.types import Document

WORKERS = 2


def bench(setting: Setting) -> Iterator[Result | str]:
    if find_spec("ray") is None:
        yield "left out: two Ray workers against the local build; `make slow` installs Ray"
        return
    encoder = OpenCLIP(setting.encoder)
    paths = tiles(setting.choose(4096, 96))
    documents = [Document(path.stem, image=path) for path in paths]
    cluster = Cluster(cpus=max(1, (os.cpu_count() or 1) // WORKERS))
    engine = Distributed(cluster, batches=4)

    def by_ray(some: list[Document] = documents) -> None:
        folder = setting.folder / "ray"
        build(some, encoder, folder, embed="image", overwrite=True, progress=False, engine=engine)

    def local() -> None:
        build(documents, encoder, setting.folder / "local", embed="image", overwrite=True, progress=False)

    start = time.perf_counter()
    try:
        by_ray(documents[: 64 * 4 * WORKERS])
        began = time.perf_counter() - start
        seconds = fastest(setting.choose(2, 1), ray=by_ray, local=local)
    finally:
        cluster.ray.shutdown()
    rates = [f"{len(paths) / seconds[name]:.0f}" for name in ("ray", "local")]
    detail = f"{rates[0]} against {rates[1]} images/s, after {began:.0f} s of starting"
    yield Result("two Ray workers / local build, throughput", seconds["local"] / seconds["ray"], 0.8, True, detail)
