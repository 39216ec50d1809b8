import numpy as np
import pytest
import torch

from morgana.index import Index, from_vectors
from morgana.index.kinds import _gpu, flat
from morgana.index.kinds._base import Faiss, library, viewed
from morgana.index.vectors import half
from morgana.retrieval.encoders.hash import HashEncoder
from morgana.spec import parse
from morgana.types import Document, SpecError

DIMENSION = 32
ENCODER = HashEncoder(dimension=DIMENSION)
KINDS = ("Flat()", "SQ8()", "HNSW()", "IVF()", "IVFPQ(bytes_=16)", 'Factory("IVF32,SQ8")', 'Factory("OPQ8,PQ8np")')


def drawn(count, seed):
    """Unit vectors so near each other that float16 queries change the order of many."""
    draw = np.random.default_rng(seed)
    made = draw.standard_normal((1, DIMENSION)) + 0.005 * draw.standard_normal((count, DIMENSION))
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module", params=KINDS)
def path(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("index") / "made"
    from_vectors([Document(f"v{n}") for n in range(2_500)], drawn(2_500, 0), ENCODER, path, kind=parse(request.param))
    return path


def found(path, device, k):
    index, queries = Index.open(path, ENCODER, device=device), torch.from_numpy(drawn(20, 0))
    return [[(hit.document.id, hit.score) for hit in hits] for hits in index.search(queries, k)]


@pytest.mark.parametrize("k", [1, 10, 2_100])
def test_a_device_changes_no_result(path, k):
    """On a GPU where there is one, for the exact kind, and on the CPU that stands in for it where there is none."""
    theirs, ours = found(path, "cuda", k), found(path, "cpu", k)
    if Index.open(path).segments[0].kind.exact or _gpu.asked("cuda") is None:
        assert theirs == ours
    else:
        assert sum(len({*one} & {*other}) for one, other in zip(theirs, ours, strict=True)) >= 0.9 * 20 * k


@pytest.mark.gpu
@pytest.mark.parametrize("spec", ["Flat()", "IVF()", "IVFPQ(bytes_=16)"])
def test_a_gpu_searches(tmp_path, spec):
    from_vectors([Document(f"v{n}") for n in range(2_500)], drawn(2_500, 0), ENCODER, tmp_path / "i", kind=parse(spec))
    (segment,) = Index.open(tmp_path / "i", ENCODER, device="cuda").segments
    searcher = segment.searcher.faiss if spec == "Flat()" else segment.searcher
    assert isinstance(searcher, _gpu.OnGPU)
    assert "Gpu" in type(library().downcast_index(searcher.moved.index)).__name__


class Rounded(Faiss):
    """What a GPU makes of float16 rows: it rounds the queries as well, and finds 2,048 at most."""

    def search(self, queries, k, only=None):
        assert only is None
        assert k <= 2_048
        return super().search(queries.astype(np.float16).astype(np.float32), k)


@pytest.mark.parametrize("path", ["Flat()"], indirect=True)
@pytest.mark.parametrize("k", [1, 10, 500, 2_100])
def test_rounded_queries_change_no_result(path, k, monkeypatch):
    wanted, rows = found(path, "cpu", k), half(drawn(2_500, 0))
    queries = drawn(20, 0)
    one, other = (kind(viewed(rows)).search(queries, 10)[1] for kind in (Faiss, Rounded))
    assert (one != other).any()  # the order of FAISS is another
    monkeypatch.setattr(flat, "on", lambda index, device: Rounded(index) if device == "cuda" else None)
    assert found(path, "cuda", k) == wanted


class Refusing(Faiss):
    def search(self, queries, k, only=None):
        raise RuntimeError("Error in void f() at /x/IVF.cu:12: GPU IVF index only supports nprobe selection up to 2048")


@pytest.mark.parametrize("path", ["Flat()"], indirect=True)
def test_what_a_gpu_refuses_is_searched_on_the_cpu_with_a_warning(path, monkeypatch):
    wanted = found(path, "cpu", 10)
    monkeypatch.setattr(flat, "on", lambda index, device: Refusing(index) if device == "cuda" else None)
    with pytest.warns(UserWarning, match="this search .*only supports nprobe.*searched on the CPU"):
        assert found(path, "cuda", 10) == wanted


def test_torchs_own_devices_are_taken(path):
    assert found(path, torch.device("cuda"), 10) == found(path, torch.device("cpu"), 10)


@pytest.mark.parametrize("device", [None, 3, "gpu", "cuda:", "cuda:x", "mps", "CUDA", "", "cuda:-1"])
def test_a_device_that_is_none_is_refused(path, device):
    with pytest.raises(SpecError, match=f"device='{device}'; an index is searched on 'cpu', 'cuda' or"):
        Index.open(path, ENCODER, device=device)
