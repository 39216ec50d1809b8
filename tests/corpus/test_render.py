"""Tiles show what their site says, the same in every process, and no shortcut tells the kinds apart."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from morgana.corpus.atlas.canvas import TILE
from morgana.corpus.atlas.render import render
from morgana.corpus.atlas.things import CELL, GRID, PAINTS
from morgana.corpus.atlas.world import (
    COLOURS,
    KINDS,
    LIGHTS,
    OBJECTS,
    PLACES,
    SEASONS,
    WEATHERS,
    Site,
    Things,
    View,
    site,
    view,
)
from morgana.types import SpecError

BARREN = {"desert", "salt works"}  # look alike all the year
DIGEST = """
import hashlib
from morgana.corpus.atlas.render import render
from morgana.corpus.atlas.world import site, view
pixels = [render(view(0, site(0, n), 0)).tobytes() for n in range(12)]
print(hashlib.blake2b(b"".join(pixels)).hexdigest())
"""


def seen(kind: str, *things: Things, number: int = 0, **changes: str) -> View:
    """A clear view of some site of the kind, with these things and nothing else."""
    place = next(s for s in (site(0, n) for n in range(500 * number, 500 * number + 500)) if s.kind == kind)
    return replace(view(0, replace(place, things=things), 0, "clear"), **changes)


def changed(a: View, b: View) -> NDArray[np.bool_]:
    """Pixels that differ between two views by more than a rounding."""
    return np.abs(render(a).astype(int) - render(b)).max(2) > 3


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_shows_texture_in_every_season(kind: str) -> None:
    tiles = [render(seen(kind, season=season)) for season in SEASONS]
    for tile in tiles:
        assert tile.shape == (96, 96, 3)
        assert tile.dtype == np.uint8
        assert tile.std() > 8
    assert np.array_equal(tiles[0], tiles[3]) == (kind in BARREN)


def test_the_same_view_is_the_same_tile_whatever_was_drawn_before() -> None:
    shown = view(0, site(0, 5), 2)
    first = render(shown)
    render(view(0, site(0, 6), 2))
    assert np.array_equal(first, render(shown))


def test_another_process_draws_the_same_bytes() -> None:
    there = subprocess.run([sys.executable, "-c", DIGEST], capture_output=True, text=True, check=True)
    pixels = [render(view(0, site(0, n), 0)).tobytes() for n in range(12)]
    assert there.stdout.strip() == hashlib.blake2b(b"".join(pixels)).hexdigest()


def test_visits_differ_a_little_and_sites_differ_a_lot() -> None:
    home = seen("harbour")
    again, elsewhere = replace(home, seed=home.seed + 1), seen("harbour", number=1)
    visit = np.abs(render(home).astype(int) - render(again)).mean()
    other = np.abs(render(home).astype(int) - render(elsewhere)).mean()
    assert 0 < visit < 0.6 * other


@pytest.mark.parametrize("size", [32, 64, 96, 150, 224])
def test_any_size_shows_the_same_scene(size: int) -> None:
    shown = seen("stadium", Things("tank", "red", 3, "north-west"))
    tile, usual = render(shown, size), render(shown)
    assert tile.shape == (size, size, 3)
    assert np.abs(coarse(tile) - coarse(usual)).mean() < 12


def coarse(tile: NDArray[np.uint8]) -> NDArray[np.float64]:
    """4 x 4 mean colours."""
    cuts = np.linspace(0, len(tile), 5).astype(int)
    return np.asarray([[tile[a:b, c:d].mean((0, 1)) for c, d in pairwise(cuts)] for a, b in pairwise(cuts)])


def test_a_size_too_small_to_show_anything_is_refused() -> None:
    with pytest.raises(SpecError, match="a tile of 8 px was asked for; the smallest"):
        render(seen("lake"), 8)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", OBJECTS)
def test_a_group_changes_only_its_place_and_can_be_counted(name: str, place: str) -> None:
    for count in (1, 2, 3, 4):
        kind = KINDS[(5 * count + 7 * PLACES.index(place) + OBJECTS.index(name)) % len(KINDS)]
        colour = COLOURS[(count + OBJECTS.index(name)) % len(COLOURS)]
        light = LIGHTS[(count + PLACES.index(place)) % len(LIGHTS)]
        group = Things(name, colour, count, place)
        where = changed(seen(kind, group, number=count, light=light), seen(kind, number=count, light=light))
        labels, found = ndimage.label(where, np.ones((3, 3)))
        areas = ndimage.sum_labels(where, labels, range(1, found + 1))
        assert (areas > 25).sum() == count
        rows, columns = np.nonzero(where)
        top, left = (CELL * at for at in GRID[place])
        assert top - 2 <= rows.min()
        assert rows.max() <= top + CELL + 1
        assert left - 2 <= columns.min()
        assert columns.max() <= left + CELL + 1


def test_one_group_does_not_move_another() -> None:
    boats, tents = Things("boat", "red", 2, "north"), Things("tent", "blue", 2, "centre")
    both, one, none = seen("lake", boats, tents), seen("lake", boats), seen("lake")
    assert np.array_equal(changed(both, one) | changed(one, none), changed(both, none))


@pytest.mark.parametrize("season", SEASONS)
@pytest.mark.parametrize("light", LIGHTS)
@pytest.mark.parametrize("name", OBJECTS)
def test_the_colour_of_a_thing_is_the_nearest_named_colour(name: str, light: str, season: str) -> None:
    names, paints = list(PAINTS), np.asarray(list(PAINTS.values()), float)
    for colour in COLOURS:
        group = Things(name, colour, 4, "centre")
        kind = KINDS[(COLOURS.index(colour) * 5 + OBJECTS.index(name)) % len(KINDS)]
        shown = seen(kind, group, light=light, season=season)
        pixels = render(shown)[changed(shown, seen(kind, light=light, season=season))].astype(float)
        distance = np.linalg.norm(pixels[:, None] - paints[None], axis=2)
        close = distance.min(1) < 70
        votes = np.bincount(distance.argmin(1)[close], minlength=len(names))
        rim = names.index("white") if colour in ("black", "blue") else names.index("black")
        votes[rim] = 0  # the outline and the shadow
        assert names[votes.argmax()] == colour


def test_weather_covers_more_the_thicker_it_is() -> None:
    shown = [
        seen(kind, number=number, season="summer")
        for kind in ("forest", "lake", "motorway", "quarry")
        for number in range(3)
    ]
    clear = np.stack([render(v) for v in shown]).astype(float)
    rises = {}
    for weather in WEATHERS[1:]:
        tiles = np.stack([render(replace(v, weather=weather)) for v in shown]).astype(float)
        rises[weather] = tiles - clear
        assert tiles.mean() > clear.mean() + 10
    covered = {weather: (rise.min(-1) > 25).mean() for weather, rise in rises.items()}
    assert 0.1 < covered["thin cloud"] < 0.5
    assert 0.25 < covered["thick cloud"] < 0.65
    assert rises["thick cloud"].min() < -15  # the shadows
    assert rises["haze"].std() < rises["thin cloud"].std() < rises["thick cloud"].std()


def test_the_nearest_tile_in_pixels_is_mostly_of_another_kind() -> None:
    homes = [site(3, n) for n in range(960)]
    tiles = np.stack([thumbnail(s) for s in homes])
    kinds = np.asarray([KINDS.index(s.kind) for s in homes])
    known, asked = tiles[:720], tiles[720:]
    distance = (known**2).sum(1)[None] - 2 * asked @ known.T
    accuracy = (kinds[:720][distance.argmin(1)] == kinds[720:]).mean()
    assert 1 / len(KINDS) < accuracy < 0.4


def thumbnail(home: Site) -> NDArray[np.float64]:
    return render(view(3, home, 0, "clear")).reshape(32, 3, 32, 3, 3).mean((1, 3)).ravel() / 255


def test_the_mean_colour_varies_more_within_a_kind_than_between_kinds() -> None:
    homes = [site(4, n) for n in range(480)]
    colours = np.asarray([render(view(4, s, 0, "clear"), 32).mean((0, 1)) for s in homes])
    kinds = np.asarray([KINDS.index(s.kind) for s in homes])
    means = np.asarray([colours[kinds == k].mean(0) for k in range(len(KINDS))])
    within = np.mean([colours[kinds == k].std(0).mean() for k in range(len(KINDS))])
    assert within > means.std(0).mean()


def test_places_are_a_grid_with_north_up() -> None:
    assert set(GRID) == set(PLACES)
    assert (GRID["north"], GRID["west"], GRID["centre"], GRID["south-east"]) == ((0, 1), (1, 0), (1, 1), (2, 2))
    assert 3 * CELL == TILE
