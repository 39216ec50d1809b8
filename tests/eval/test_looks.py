import pytest
import torch
from PIL import Image
from realism import write_maps

from morgana.corpus.images import save
from morgana.eval.looks import look, real_maps, separated, told_apart
from morgana.eval.naturalness import ssim
from morgana.types import SpecError


def pair(folder, name, cover=None):
    draw = torch.Generator().manual_seed(len(name))
    tile = (torch.rand(1, 3, 20, 20, generator=draw) * 255).round() / 255
    other = (tile * 0.8 * 255).round() / 255
    save(tile, folder / f"{name}-clean.png")
    save(other, folder / f"{name}.png")
    if cover is not None:
        save(torch.full((1, 3, 20, 20), cover), folder / f"{name}.cover.png")
    return folder / f"{name}-clean.png", folder / f"{name}.png", float(ssim(tile, other))


def test_a_look_is_the_mean_over_saved_images(tmp_path):
    first, second = pair(tmp_path, "a", 0.2), pair(tmp_path, "bb", 0.4)
    found = look({"a": first[:2], "bb": second[:2]})
    assert found.ssim.value == pytest.approx((first[2] + second[2]) / 2, abs=1e-6)
    assert found.cover.value == pytest.approx(0.3, abs=1e-3)
    assert found.groups == ("a", "bb")
    assert found.maps.shape == (2, 1, 64, 64)
    assert told_apart(found, found) is None  # too few to learn from


def test_images_without_opacity_have_none(tmp_path):
    found = look({"a": pair(tmp_path, "a")[:2], "bb": pair(tmp_path, "bb", 0.1)[:2]})
    assert found.cover is None
    assert len(found.maps) == 0
    with pytest.raises(SpecError, match="no images to look at"):
        look({})


def test_real_maps_are_cut_from_every_map_at_one_cover(tmp_path):
    maps, groups = real_maps(write_maps(tmp_path / "clouds"), 24, 0.15)
    assert maps.shape == (24, 1, 64, 64)
    assert sorted(set(groups)) == [f"map {n}" for n in range(6)]
    assert maps.mean((1, 2, 3)).sub(0.15).abs().max() < 0.01
    again, _ = real_maps(tmp_path / "clouds", 24, 0.15)
    assert torch.equal(maps, again)


def test_real_maps_are_told_from_blocks(tmp_path):
    maps, groups = real_maps(write_maps(tmp_path / "clouds"), 30, 0.15)
    blocks = torch.zeros(30, 1, 64, 64)
    for row in range(30):
        blocks[row, 0, row : row + 25, 5 : 5 + 25] = 0.9
    found = separated((blocks, [str(n) for n in range(30)]), (maps, groups))
    assert found.low > 0.9


def test_a_sheet_and_curves_are_pictures(tmp_path):
    from morgana.eval.pictures import Shot, contact_sheet, curves
    from morgana.eval.statistics import Estimate

    clean, judged, _ = pair(tmp_path, "a")
    shots = [Shot(clean, "0/5 weather"), Shot(judged, "3/5 weather: fog over the land and much more text", alarm=True)]
    contact_sheet([shots, shots], ["clean", "clouds"], tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (8 + 2 * 158, 26 + 8 + 2 * 194)
        colours = {c for _, c in sheet.crop((166, 188, 316, 222)).getcolors(100_000)}
    assert any(red > 200 and green < 190 and blue < 140 for red, green, blue in colours)  # the alarm
    with pytest.raises(SpecError, match="one shot a head"):
        contact_sheet([shots], ["clean"], tmp_path / "none.png")
    points = {0.1: Estimate(0.2, 0.1, 0.3, 9), 0.2: Estimate(0.5, 0.4, 0.6, 9)}
    curves({"Weather@5": {"random": points}, "AUC": {}}, "cover", tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as drawn:
        assert drawn.width > 400
    with pytest.raises(SpecError, match="no curve has a point"):
        curves({"AUC": {}}, "cover", tmp_path / "none.png")
