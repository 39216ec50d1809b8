import numpy as np
import pytest
import torch
from realism import write_aid, write_maps
from torch.testing import assert_close

from morgana.corpus._real import real_data
from morgana.corpus._views import view
from morgana.corpus.aid import AID
from morgana.corpus.clouds import (
    MAX_GAIN,
    MAX_OPACITY,
    Clouded,
    composite,
    drifted,
    fractal,
    maps_for,
    opacity,
    read_maps,
    real_clouds,
)
from morgana.corpus.images import load
from morgana.spec import parse
from morgana.types import SpecError, StoreError


@pytest.fixture
def clouds(tmp_path):
    return write_maps(tmp_path / "clouds")


@pytest.fixture
def clouded(tmp_path, clouds, monkeypatch):
    monkeypatch.setenv("MORGANA_CACHE", str(tmp_path / "cache"))
    return Clouded(AID(str(write_aid(tmp_path / "aid"))), str(clouds), cover=0.2)


def test_a_whole_view_is_one_of_the_eight_orientations():
    image = torch.rand(1, 1, 8, 8)
    eight = [t for k in range(4) for r in [torch.rot90(image, k, (2, 3))] for t in (r, r.flip(3))]
    seen = set()
    for seed in range(40):
        found = view(image, np.random.default_rng(seed), (8, 8), (1.0, 1.0))
        near = [i for i, other in enumerate(eight) if torch.allclose(found, other, atol=1e-4)]
        assert len(near) == 1
        seen |= set(near)
    assert seen == set(range(8))


def test_a_zoomed_view_stays_inside_and_differs_by_row():
    ramp = torch.linspace(0.2, 0.8, 32).expand(4, 1, 32, 32)
    found = view(ramp, np.random.default_rng(0), (16, 16), (0.3, 0.5), tilt=0.2)
    assert found.min() >= 0.2 - 1e-5
    assert found.max() <= 0.8 + 1e-5
    assert len({round(float(row.mean()), 5) for row in found}) == 4


def test_opacity_has_the_cover_and_the_ceiling_that_were_asked_for():
    shapes = fractal(np.random.default_rng(0), 12, (40, 40))
    cover = torch.linspace(0.02, 0.3, 12)
    alpha = opacity(shapes, cover)
    thin = shapes.mean((1, 2, 3)) * MAX_GAIN < cover
    assert_close(alpha.mean((1, 2, 3))[~thin], cover[~thin], atol=1e-3, rtol=0)
    assert alpha.max() <= MAX_OPACITY
    assert opacity(0.01 * shapes, cover).mean() < 0.03


def test_a_composite_lies_between_the_tile_and_white():
    tile, alpha = torch.rand(2, 3, 4, 4), torch.tensor([0.0, 1.0]).view(2, 1, 1, 1)
    found = composite(tile, alpha, 0.9)
    assert_close(found[0], tile[0])
    assert_close(found[1], torch.full((3, 4, 4), 0.9))


def test_maps_without_a_cloud_are_left_out_and_the_splits_share_none(clouds):
    maps = read_maps(clouds)
    assert maps.shape == (6, 1, 100, 100)
    train, dev = maps_for(clouds, "train"), maps_for(clouds, "dev")
    assert (len(train), len(dev), len(maps_for(clouds, "all"))) == (4, 2, 6)
    assert all(not torch.equal(a, b) for a in train for b in dev)
    with pytest.raises(SpecError, match="no split 'test'"):
        maps_for(clouds, "test")


def test_blurred_maps_lose_their_grain(clouds):
    rough = load(clouds / "map_0.png")[:, :1, :100, :100]
    assert read_maps(clouds)[:1].diff(dim=2).abs().mean() < 0.5 * rough.diff(dim=2).abs().mean()
    assert read_maps(clouds)[0].mean() == pytest.approx(float(rough.mean()), abs=0.01)


def test_missing_maps_are_named(tmp_path):
    with pytest.raises(StoreError, match=r"no cloud maps \(\*\.png\) in .*nowhere"):
        read_maps(tmp_path / "nowhere")
    with pytest.raises(SpecError, match=r"reaches a mean cover of 0\.5"):
        real_clouds(torch.full((1, 1, 20, 20), 0.1), np.random.default_rng(0), (20, 20), 0.5)


def test_clouded_tiles_have_the_cover_and_keep_their_names(clouded):
    plain = clouded.corpus.queries()
    found = clouded.queries()
    assert [q.id for q in found] == [q.id for q in plain]
    assert clouded.qrels() == clouded.corpus.qrels()
    assert clouded.documents() == clouded.corpus.documents()
    for before, after in zip(plain, found, strict=True):
        alpha = load(after.image.with_name(f"{after.image.stem}.cover.png"))[:, :1]
        assert alpha.mean() == pytest.approx(0.2, abs=0.004)
        tile, seen = load(before.image), load(after.image)
        white = ((seen - tile * (1 - alpha)) / alpha)[(alpha > 0.15).expand_as(seen)]
        assert white.max() - white.min() < 0.06  # one grey level of cloud over the tile
        assert 0.86 < white.mean() < 1.02


def test_clouded_tiles_are_written_once_and_always_the_same(clouded, tmp_path, monkeypatch):
    first = {q.id: q.image.read_bytes() for q in clouded.queries()}
    times = {q.id: q.image.stat().st_mtime_ns for q in clouded.queries()}
    again = parse(repr(clouded))
    assert again == clouded
    assert {q.id: q.image.stat().st_mtime_ns for q in again.queries()} == times
    monkeypatch.setenv("MORGANA_CACHE", str(tmp_path / "elsewhere"))
    assert {q.id: q.image.read_bytes() for q in parse(repr(clouded)).queries()} == first


def test_an_impossible_cover_is_refused(clouded):
    with pytest.raises(SpecError, match=r"a cover above 0 and up to 0\.6"):
        Clouded(clouded.corpus, clouded.clouds, cover=12)


def test_views_of_maps_are_random_and_within_range(clouds):
    found = drifted(read_maps(clouds), np.random.default_rng(0), 5, (30, 40))
    assert found.shape == (5, 1, 30, 40)
    assert 0 <= found.min() <= found.max() <= 1
    assert len({round(float(row.mean()), 5) for row in found}) == 5


def test_real_data_are_looked_for_where_it_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("MORGANA_DATA", str(tmp_path))
    (tmp_path / "clouds").mkdir()
    assert real_data("clouds") == tmp_path / "clouds"
    with pytest.raises(StoreError, match="set MORGANA_DATA"):
        real_data("aid")


def test_the_real_maps_give_real_clouds(shared_data):
    if not (shared_data / "clouds").is_dir():
        pytest.skip("the cloud maps are not among the real data")
    maps = maps_for(shared_data / "clouds", "all")
    assert 15 <= len(maps) <= 32
    alpha = real_clouds(maps, np.random.default_rng(0), (150, 150), 0.12)
    assert alpha.mean() == pytest.approx(0.12, abs=0.002)
