from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from morgana.attacks.composed import Composed
from morgana.attacks.goals.hide import Hide
from morgana.attacks.goals.impersonate import Impersonate
from morgana.attacks.poison import file_name, poison, reindexed
from morgana.attacks.searches.noise import Noise
from morgana.attacks.searches.pgd import PGD
from morgana.attacks.target import aim
from morgana.attacks.threats.cloud_overlay import CloudOverlay
from morgana.attacks.threats.l2 import L2
from morgana.attacks.threats.linf import Linf
from morgana.corpus.images import load, save
from morgana.seeds import seeded
from morgana.types import Document, Query, SpecError, StoreError


@pytest.fixture
def queries(world, tmp_path):
    found = []
    for row in (0, 5, 10):
        path = tmp_path / f"tile{row}.png"
        save(world.tiles[row : row + 1], path)
        found.append(Query(f"tile{row}", "what is here?", path))
    return found


def aiming(world):
    return lambda pixels, items: aim(world.around, world.encoder, pixels, items, world.qrels)


@pytest.mark.parametrize("threat", [Linf(), L2(1.0), CloudOverlay(max_cover=0.2)], ids=repr)
def test_queries_come_back_with_other_images_in_the_threat(world, queries, threat, tmp_path):
    attack = Composed(Hide(), threat, PGD(steps=2))
    items, closing = poison(queries, attack, world.encoder, aiming(world), tmp_path / "out")
    assert [(q.id, q.text) for q in items] == [(q.id, q.text) for q in queries]
    assert all(new.image != old.image for new, old in zip(items, queries, strict=True))
    changes = [(load(new.image) - load(old.image)).abs().max() for new, old in zip(items, queries, strict=True)]
    assert closing.largest == pytest.approx(float(max(changes)))
    assert closing.excess <= 1e-9
    assert (closing.count, closing.nan) == (3, 0)
    assert str(closing).startswith(f"3 images: largest perturbation {closing.largest * 255:.3f}/255, NaN 0, min ")
    maps = list((tmp_path / "out").glob("*.cover.png"))
    assert len(maps) == (3 if isinstance(threat, CloudOverlay) else 0)
    assert all(float(load(path).double().mean()) <= 0.2 for path in maps)


def test_an_image_is_the_same_in_any_batch(world, queries, tmp_path):
    attack = Composed(Hide(), Linf(), PGD(steps=2))
    together, _ = poison(queries, attack, world.encoder, aiming(world), tmp_path / "a", seed=3)
    alone, _ = poison(queries[1:2], attack, world.encoder, aiming(world), tmp_path / "b", seed=3)
    other, _ = poison(queries[1:2], attack, world.encoder, aiming(world), tmp_path / "c", seed=4)
    assert torch.equal(load(together[1].image), load(alone[0].image))
    assert not torch.equal(load(other[0].image), load(alone[0].image))


def test_images_of_unequal_size_are_attacked_apart_and_stay_in_order(world, queries, tmp_path):
    with seeded(0):
        save(torch.rand(1, 3, 24, 40), tmp_path / "wide.png")
    mixed = [queries[0], Query("wide", image=tmp_path / "wide.png"), queries[1]]
    items, _ = poison(mixed, Composed(Hide(), Linf(), Noise()), world.encoder, aiming(world), tmp_path / "out")
    assert [item.id for item in items] == [item.id for item in mixed]
    assert load(items[1].image).shape == (1, 3, 24, 40)


def test_an_image_in_the_corpus_takes_another_place(world, tmp_path):
    """Poison one document's image so that it is embedded near another: it now ranks where that one did."""
    save(world.tiles[0:1], tmp_path / "doc.png")
    document = Document("scene0-4", image=tmp_path / "doc.png", metadata={"topic": "scene0"})
    attack = Composed(Impersonate("scene3-7"), Linf(96 / 255), PGD(steps=40, rate=0.1))
    (poisoned,), _ = poison([document], attack, world.encoder, aiming(world), tmp_path / "out")
    assert poisoned.metadata == document.metadata
    before = reindexed(world.around, world.encoder, [document])
    after = reindexed(world.around, world.encoder, [poisoned])
    near = world.around.matrix[world.around.row("scene3-7")][None]

    def rank(around):
        return [hit.document.id for hit in around.search(near, 60)[0]].index("scene0-4")

    assert rank(after) <= 8 < rank(before)  # right behind the scene's own eight


def test_a_file_that_left_the_threat_is_refused(world, queries, tmp_path):
    @dataclass(frozen=True)
    class Cheat:
        inner: Composed

        @property
        def threat(self):
            return self.inner.threat

        def attack(self, pixels, victim, target):
            made = self.inner.attack(pixels, victim, target)
            return made._replace(pixels=(made.pixels + 1 / 255).clamp(0, 1))

    cheat = Cheat(Composed(Hide(), Linf(0.0), Noise()))
    with pytest.raises(StoreError, match=r"outside Linf\(epsilon=0.0\) after saving"):
        poison(queries, cheat, world.encoder, aiming(world), tmp_path / "out")


def test_an_item_without_an_image_is_refused(world, tmp_path):
    with pytest.raises(SpecError, match="'q1' has no image"):
        poison([Query("q1")], Composed(Hide(), Linf(), Noise()), world.encoder, aiming(world), tmp_path)


def test_a_full_disk_is_told(world, queries, tmp_path, little_space):
    with little_space(100), pytest.raises(StoreError, match="cannot write"):
        poison(queries, Composed(Hide(), Linf(), Noise()), world.encoder, aiming(world), tmp_path / "out")


def test_ids_become_file_names():
    assert file_name("tile-7.b") == "tile-7.b"
    names = [file_name(id) for id in ("a/b", "a_b", "a:b", "../a", ".hidden", "x" * 300, "x.cover", "")]
    assert len(set(names)) == len(names)
    assert all("/" not in name and not name.startswith(".") and len(name) < 120 for name in names)
