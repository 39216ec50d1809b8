"""The eye's lessons: the labels say what the renderer drew, where it drew it."""

from dataclasses import replace

import numpy as np
import torch

from morgana.corpus.atlas.render import render
from morgana.corpus.atlas.world import COLOURS, OBJECTS, Things, site, view
from morgana.models.eye import CELL, WHOLE, crowd, labels, loss_of_reading, tiles
from morgana.seeds import rng


def test_a_group_is_labelled_in_the_cell_where_its_pixels_are():
    bare = view(0, replace(site(0, 5), things=()), 0, "clear")
    for place, cell in (("north-west", 0), ("centre", 4), ("south", 7)):
        seen = replace(bare, site=replace(bare.site, things=(Things("boat", "red", 2, place),)))
        changed = np.abs(render(seen, 96).astype(int) - render(bare, 96)).sum(2)
        by_cell = changed.reshape(3, 32, 3, 32).sum((1, 3)).ravel()
        assert by_cell.argmax() == cell
        cells, _ = labels([seen])
        wanted = [1 + OBJECTS.index("boat"), 1 + COLOURS.index("red"), 2]
        assert cells[0, cell].tolist() == wanted
        assert cells[0].sum() == sum(wanted)


def test_what_a_thick_cloud_may_hide_is_not_taught():
    seen = view(0, site(0, 5), 0, "thick cloud")
    cells, whole = labels([seen])
    assert (cells == -1).all()
    assert (whole[0, 4:] == -1).all()
    assert (whole[0, :4] >= 0).all()


def test_the_right_reading_costs_nothing_and_a_wrong_one_does():
    cells, whole = labels([view(0, site(0, n), 0, "clear") for n in range(6)])

    def reading(classes: torch.Tensor, sizes: tuple[int, ...]) -> torch.Tensor:
        hot = [torch.nn.functional.one_hot(c, n) for c, n in zip(classes.unbind(-1), sizes, strict=True)]
        return 50.0 * torch.cat(hot, -1).float()

    right = loss_of_reading((reading(cells, CELL), reading(whole, WHOLE)), (cells, whole))
    wrong = loss_of_reading((reading(0 * cells, CELL), reading(whole, WHOLE)), (cells, whole))
    assert right < 1e-6
    assert wrong > 1


def test_crowded_tiles_have_more_to_teach_and_batches_follow_from_the_step():
    seen = view(0, site(0, 5), 0, "clear")
    assert len(crowd(seen, rng(0, "crowd")).site.things) > len(seen.site.things) + 2
    first, again, next_ = tiles(0, 7, 4), tiles(0, 7, 4), tiles(0, 8, 4)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], next_[0])
