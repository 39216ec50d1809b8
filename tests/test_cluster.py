"""A real cluster of two node processes on this machine; the same results as without it, also when a worker dies."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from morgana.cluster import Cluster, built, spelled
from morgana.corpus.image_folder import ImageFolder
from morgana.corpus.images import save
from morgana.index import add, build, delete
from morgana.index.distributed import Distributed
from morgana.index.kinds.flat import Flat
from morgana.index.kinds.ivf import IVF
from morgana.index.manifest import staging
from morgana.index.ranking import joined
from morgana.index.sharding import Shard, divide, marked
from morgana.retrieval.encoders.hash import HashEncoder
from morgana.retrieval.retrievers.dense import Dense
from morgana.retrieval.retrievers.sharded import Sharded
from morgana.types import Document, Query, SpecError, StoreError

ENCODER = HashEncoder(dimension=32)
quiet = pytest.mark.filterwarnings("ignore")  # Ray's own


def documents(count):
    return [
        Document(f"d{n}", f"text number {n % 90}" if n % 41 else "\0", metadata={"n": str(n)}) for n in range(count)
    ]


def content(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def queries(count=12):
    return [Query(f"q{n}", f"number {n * 7}") for n in range(count)]


def test_ray_is_not_imported_until_a_cluster_is_asked_for():
    import subprocess

    code = "import sys, morgana.cluster, morgana.spec as s; s.registry(); sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_shards_are_at_least_one():
    with pytest.raises(SpecError, match="shards=0; it must be at least 1"):
        Sharded("x", shards=0)


def test_only_registered_parts_travel():
    assert built(spelled(ENCODER)) == ENCODER

    class Mine:
        def __repr__(self):
            return "Mine()"

    with pytest.raises(SpecError, match=r"Mine\(\) cannot travel to workers, as it is no registered part"):
        spelled(Mine())


@pytest.fixture(scope="module", params=[Flat(), IVF(lists=4, probe=2)], ids=repr)
def index(request, tmp_path_factory):
    """Two segments with ties, deleted documents, and documents of two vectors."""
    folder = tmp_path_factory.mktemp("sharded")
    import torch

    save(torch.rand(1, 3, 8, 8), folder / "a.png")
    path = build(documents(300), ENCODER, folder / "index", kind=request.param, progress=False).path
    add(path, [Document(f"x{n}", f"text number {n}") for n in range(40)], ENCODER)
    return delete(path, [f"d{n}" for n in range(1, 300, 7) if n % 41])


@pytest.mark.parametrize("shards", [1, 2, 3, 7])
@pytest.mark.parametrize("k", [1, 5, 500])
def test_shards_joined_find_what_one_search_finds(index, shards, k):
    """The shards in this process, where they are no slower to start."""
    cuts = divide(index.segments, shards)
    assert sorted(c for some in cuts for c in some)[0].start == 0
    assert sum(c.end - c.start for some in cuts for c in some) == sum(s.about.vectors for s in index.segments)
    parts = [Shard(str(index.path), marked(index), some) for some in cuts]

    def propose(vectors, many, thorough):
        return joined([part.propose(vectors, many, thorough) for part in parts])

    vectors = ENCODER.encode_text([q.text for q in queries()])
    assert index.search(vectors, k, propose=propose) == index.search(vectors, k)
    assert len(cuts) == (min(shards, 7) if index.manifest.kind == "Flat()" else min(shards, 2))


def test_documents_of_two_vectors_are_not_cut_apart(tmp_path):
    import torch
    from fakes import ConvEncoder

    save(torch.rand(1, 3, 8, 8), tmp_path / "a.png")
    both = [Document(f"d{n}", f"text {n}", tmp_path / "a.png") for n in range(10)]
    made = build(both, ConvEncoder(16), tmp_path / "index", embed="both", progress=False)
    cuts = [c for some in divide(made.segments, 3) for c in some]
    assert all(c.start % 2 == 0 for c in cuts)
    assert len(cuts) == 3


def test_a_shard_of_an_index_that_has_changed_is_refused(tmp_path):
    made = build(documents(20), ENCODER, tmp_path / "index", progress=False)
    (cuts,) = divide(made.segments, 1)
    delete(made.path, ["d1"])
    with pytest.raises(StoreError, match="was changed after it was divided; open it again"):
        Shard(str(made.path), marked(made), cuts)


def patiently(start):
    """Ray gives a node 30 seconds to start, which are few where much else runs."""
    for _ in range(4):
        try:
            return start()
        except Exception as error:  # Ray raises bare ones
            why = str(error)
    pytest.skip(f"this machine is too busy to start a Ray node: {why}")


@pytest.fixture(scope="module")
def cluster():
    """Two node processes of one CPU each, with small object stores."""
    pytest.importorskip("ray", reason="Ray is an extra: pip install 'morgana[ray]'")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_AUTH_MODE"] = "disabled"  # else a token in the home is asked of the driver, and not of these nodes
    from ray.cluster_utils import Cluster as Nodes

    node = {"num_cpus": 1, "object_store_memory": 80 << 20}
    nodes = patiently(lambda: Nodes(initialize_head=True, head_node_args={"include_dashboard": False, **node}))
    patiently(lambda: nodes.add_node(**node))
    made = Cluster(nodes.address)
    yield made
    made.ray.shutdown()
    nodes.shutdown()


@quiet
@pytest.mark.slow
def test_a_cluster_that_runs_on_this_machine_is_joined_without_its_address(cluster):
    cluster.ray.shutdown()
    assert Cluster().slots == 2
    assert len(cluster.ray.nodes()) == 2


@quiet
@pytest.mark.slow
def test_a_build_on_two_nodes_ends_in_the_bytes_of_a_local_one(cluster, tmp_path):
    import torch

    for n in range(40):
        save(torch.rand(1, 3, 32, 32), tmp_path / "images" / f"{n:02d}.png")
        (tmp_path / "images" / f"{n:02d}.txt").write_text(f"caption {n}")
    (tmp_path / "images" / "bad.png").write_bytes(b"x")
    assert cluster.slots == 2
    for name, corpus in (("texts", documents(700)), ("pictures", ImageFolder(str(tmp_path / "images")))):
        whole = build(corpus, ENCODER, tmp_path / name, batch_size=16, fold=True, progress=False)
        engine = Distributed(cluster, batches=2)
        made = build(corpus, ENCODER, tmp_path / f"{name}-ray", batch_size=16, fold=True, progress=False, engine=engine)
        assert content(made.path) == content(whole.path)


def workers():
    """Process ids of the workers that are at a task, by asking the system."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if place.read_bytes().startswith(b"ray::embedded"):
                found.append(int(place.parent.name))
        except OSError:
            continue
    return found


@quiet
@pytest.mark.slow
def test_a_worker_that_is_killed_in_the_middle_of_a_build_is_replaced(cluster, tmp_path):
    many, killed, enough = documents(6_000), [], threading.Event()

    def kill():
        while not killed and not enough.is_set():
            state = staging(tmp_path / "index") / "state.json"
            for pid in workers() if state.exists() else ():
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
                break
            time.sleep(0.005)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        engine = Distributed(cluster, batches=4)
        made = build(many, ENCODER, tmp_path / "index", batch_size=16, progress=False, engine=engine, seconds=0)
    finally:
        enough.set()
        killer.join()
    assert killed, "no worker was at work"
    whole = build(many, ENCODER, tmp_path / "whole", batch_size=16, progress=False)
    assert content(made.path) == content(whole.path)


@quiet
@pytest.mark.slow
def test_a_build_that_was_stopped_goes_on_with_the_other_engine(cluster, tmp_path):
    def stopping():
        yield from documents(700)[:500]
        raise KeyboardInterrupt

    options = {"batch_size": 16, "progress": False}
    with pytest.raises(KeyboardInterrupt):
        build(stopping(), ENCODER, tmp_path / "index", seconds=0, engine=Distributed(cluster, batches=2), **options)
    assert staging(tmp_path / "index").is_dir()
    made = build(documents(700), ENCODER, tmp_path / "index", **options)
    assert content(made.path) == content(build(documents(700), ENCODER, tmp_path / "whole", **options).path)


@quiet
@pytest.mark.slow
def test_sharded_finds_what_dense_finds_and_outlives_an_actor(cluster, index):
    dense, sharded = Dense(str(index.path)), Sharded(str(index.path), shards=2, batch_size=5)
    for k in (1, 7, 400):
        assert sharded(queries(), k) == dense(queries(), k)
    cluster.ray.kill(sharded._actors[0], no_restart=False)
    assert sharded(queries(), 7) == dense(queries(), 7)


@quiet
@pytest.mark.slow
def test_an_error_of_a_worker_is_raised_as_it_is(cluster, tmp_path):
    made = build(documents(20), ENCODER, tmp_path / "index", progress=False)
    sharded = Sharded(str(made.path))
    sharded._dense.opened  # noqa: B018 - opened before the change
    delete(made.path, ["d1"])
    with pytest.raises(StoreError, match="was changed after it was divided; open it again"):
        sharded(queries(), 3)


@quiet
@pytest.mark.slow
def test_a_study_on_two_nodes_has_the_records_of_a_local_run(cluster, tmp_path):
    from dataclasses import replace

    from morgana.attacks.cloudweb import CloudWeb
    from morgana.corpus.atlas import Atlas
    from morgana.eval.experiment import Experiment
    from morgana.eval.records import load
    from morgana.eval.studies import Study, run_study
    from morgana.retrieval.encoders.openclip import OpenCLIP
    from morgana.spec import parse

    clean = Experiment(Atlas(sites=12), OpenCLIP("atlas"), limit=4)
    attacked = replace(clean, attack=CloudWeb(), member="random")
    study = Study("two", "two cells", (clean, attacked))
    assert parse(repr(attacked)) == attacked
    local = run_study(study, tmp_path / "local", progress=False)
    spread = run_study(study, tmp_path / "ray", progress=False, cluster=cluster)
    assert [c.rows for c in spread.cells] == [c.rows for c in local.cells]
    for e in study.experiments:
        place = Path("cells") / e.id / "records.jsonl"
        assert load(tmp_path / "ray" / place) == load(tmp_path / "local" / place) != []
    with pytest.raises(StoreError, match="records already; pass --resume"):
        run_study(study, tmp_path / "ray", progress=False, cluster=cluster, resume=False)
