"""Who reads one view, or one window, is told of no other: moved pixels move the scores of their own tokens."""

import pytest
import torch

from morgana.generation._packs import Pack, arranged, counted
from morgana.generation.attention import intervening
from morgana.generation.generators.hf import HF
from morgana.generation.interventions.debiased_attention import DebiasedAttention
from morgana.generation.interventions.image_masks import NeighbourAware
from morgana.generation.pruner import BEFORE, Choice, Watched
from morgana.generation.pruning.fastervlm import FasterVLM
from morgana.generation.pruning.fopru import FoPru
from morgana.generation.pruning.globalcom import GlobalCom
from morgana.generation.pruning.hiprune import HiPrune
from morgana.generation.pruning.hired import HiRED
from morgana.generation.pruning.uniform_grid import UniformGrid, lattice
from morgana.generation.pruning.zeroth_order import ZerothOrder
from morgana.generation.shortening import pruning
from morgana.generation.vision import Eyes
from morgana.types import Query, SpecError

TALL = (64, 32)  # height and width in pixels
WIDE, SQUARE = (32, 96), (32, 32)
CLASSES = FasterVLM(layer=-1), HiRED(layer=-1), GlobalCom(layer=-1)  # before it the CLS of InternVL is all zeros here
READERS = {
    "llava_next": (FoPru(), ZerothOrder(), FasterVLM(), HiRED()),
    "llava_onevision": (FoPru(), ZerothOrder()),
    "internvl": (FoPru(), ZerothOrder(), *CLASSES[:2]),
    "idefics3": (FoPru(), ZerothOrder()),
    "smolvlm": (FoPru(), ZerothOrder()),
}
PRUNERS = *CLASSES, HiPrune(), FoPru(), ZerothOrder(), UniformGrid()


class Look:
    """Remembers what it was shown and how another pruner scores it, and keeps the first tokens."""

    keep = 0.5

    def __init__(self, inner=None, asked=None):
        self.inner, self.asked, self.seen, self.scored = inner, asked, [], []

    def stages(self, depth):
        return BEFORE

    def watched(self, depth, eyes):
        return self.asked or self.inner.watched(depth, eyes)

    def choose(self, sight, count):
        self.seen.append(sight)
        if self.inner is not None:
            self.scored.append((sight.tokens, self.inner.scores(sight)))
        return Choice(torch.arange(count))


def picture(size, seed=3):
    return torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(seed))


def written(generator, *images):
    return generator.write(list(images), [Query("q", "What?")] * len(images), [()] * len(images))


def passed(generator, prompt, look):
    with torch.no_grad(), pruning(generator.network, (look,), prompt.spans) as kept:
        generator.network(**prompt.inputs)
    return kept


def scores(generator, prompt, pruner):
    """(L,) by token of the one prompt, and (L, D) what the language model is given for it."""
    look = Look(pruner)
    passed(generator, prompt, look)
    made = torch.full((prompt.spans[0].length,), float("nan"))
    for tokens, values in look.scored:
        made[tokens] = values
    return made, look.seen[0].row


def moved(after, before):
    """Which rows of two tensors differ, by a bit or more: these eyes look about nearly evenly, so changes are small."""
    return ((after != before) & ~before.isnan()).flatten(1).any(1)


@pytest.mark.parametrize(
    ("name", "pruner"), [(name, pruner) for name, few in READERS.items() for pruner in few], ids=repr
)
def test_a_change_in_one_view_moves_the_scores_of_its_tokens_and_no_others(families, name, pruner):
    generator = HF(families[name])
    prompt = written(generator, picture(WIDE if name == "internvl" else TALL))
    plain, embedded = scores(generator, prompt, pruner)
    pixels = prompt.inputs["pixel_values"]
    views = pixels.view(-1, *pixels.shape[-3:])
    owned = torch.zeros(len(plain), dtype=torch.long)
    for view in range(len(views)):
        clean = views[view].clone()
        views[view] += torch.linspace(-2, 2, clean[0].numel()).view_as(clean[0])
        new, states = scores(generator, prompt, pruner)
        views[view] = clean
        own = moved(states, embedded) & ~plain.isnan()
        assert own.any()
        assert torch.equal(moved(new[:, None], plain[:, None]), own)
        owned += own
    assert torch.equal(owned, (~plain.isnan()).long())


WINDOWED = [(24, 40), (32, 32), (40, 48)]  # 4 pixels a patch, 2 x 2 patches a token, 2 x 2 tokens a window
SIDE = 8  # pixels of a token's edge


def windows(size):
    """The windows of an image in the tower's order, each the places of its tokens in reading order."""
    rows, columns = (edge // SIDE for edge in size)
    found = {}
    for r in range(rows):
        for c in range(columns):
            found.setdefault((r // 2, c // 2), []).append(r * columns + c)
    return [found[key] for key in sorted(found)]


def shown(generator, *images, layers=(-2, -1)):
    look = Look(asked=Watched(vision=layers))
    passed(generator, written(generator, *images), look)
    return look.seen


def test_attention_in_windows_is_the_windows_attention_one_by_one(families):
    generator = HF(families["qwen2_5_vl"])
    caught = {}
    block = generator.network.get_encoder("image").blocks[0].attn
    handle = block.register_forward_hook(
        lambda m, args, kwargs, out: caught.update(kwargs, args=args), with_kwargs=True
    )
    try:
        sights = shown(generator, *map(picture, WINDOWED))
    finally:
        handle.remove()
    states = caught.get("hidden_states", caught["args"][0] if caught["args"] else None).double()
    cos, sin = (x.double()[:, None] for x in caught["position_embeddings"])
    weight, bias = block.qkv.weight.detach().double(), block.qkv.bias.detach().double()
    made = (states @ weight.T + bias).reshape(len(states), 3, block.num_heads, -1)
    half = made.shape[-1] // 2
    query, key = (
        x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin for x in (made[:, 0], made[:, 1])
    )  # (P, H, d)
    first = 0
    for sight, size in zip(sights, WINDOWED, strict=True):
        wanted, total = torch.zeros(len(sight.tokens), dtype=torch.float64), 4 * len(sight.tokens)
        for window in windows(size):
            rows = slice(first, first + 4 * len(window))
            product = torch.einsum("qhd,khd->hqk", query[rows], key[rows]) * query.shape[-1] ** -0.5
            wanted[window] = product.softmax(-1).mean(0).sum(0).reshape(-1, 4).mean(1) / total
            first = rows.stop
        torch.testing.assert_close(sight.received(-2).double(), wanted, atol=1e-6, rtol=1e-4)
        assert sight.grid == tuple(edge // SIDE for edge in size)
    assert first == len(states)


@pytest.mark.parametrize("size", WINDOWED)
def test_a_change_in_one_token_moves_the_scores_of_its_window_and_no_others(families, size):
    generator = HF(families["qwen2_5_vl"])
    prompt = written(generator, picture(SQUARE, 1), picture(size))
    (first, last), patches = prompt.spans[1].image[0], prompt.inputs["pixel_values"]

    def received():
        look = Look(FoPru())
        passed(generator, prompt, look)
        return [values for _, values in look.scored]

    other, plain = received()
    start = len(patches) - 4 * (last - first)
    for window in windows(size):
        own = slice(start + 4 * window[0], start + 4 * window[0] + 4)
        clean = patches[own].clone()
        patches[own] += torch.linspace(-2, 2, clean[0].numel())
        same, new = received()
        patches[own] = clean
        assert torch.equal(same, other)
        assert moved(new[:, None], plain[:, None]).nonzero().flatten().tolist() == window


def test_an_image_is_seen_in_a_batch_as_alone(families):
    for name, sizes in (("qwen2_5_vl", WINDOWED), ("internvl", (WIDE, SQUARE, TALL))):
        generator = HF(families[name])
        images = [picture(size, i) for i, size in enumerate(sizes)]
        together = shown(generator, *images)
        alone = [sight for image in images for sight in shown(generator, image)]
        assert len(together) == len(alone)
        for one, other in zip(together, alone, strict=True):
            assert one.grid == other.grid
            assert one.mosaic == other.mosaic
            for layer in (-2, -1):
                torch.testing.assert_close(one.received(layer), other.received(layer))
                torch.testing.assert_close(one.eye.keys(layer), other.eye.keys(layer))


@pytest.mark.parametrize("pruner", PRUNERS, ids=repr)
def test_a_batch_of_images_of_several_views_and_of_one_is_pruned_as_they_are_alone(families, pruner):
    generator = HF(families["internvl"])
    images = picture(WIDE), picture(SQUARE, 4), picture(TALL, 5)
    together = passed(generator, written(generator, *images), pruner).images(0)
    for image, (left,) in zip(images, together, strict=True):
        ((alone,),) = passed(generator, written(generator, image), pruner).images(0)
        assert left.tolist() == alone.tolist()
    if isinstance(pruner, UniformGrid):
        assert together[0][0].tolist() == [16 * view + t for view in range(4) for t in lattice(4, 4, 4).tolist()]


@pytest.mark.parametrize(("size", "mosaic"), [(WIDE, (1, 3)), ((96, 32), (3, 1)), (TALL, (2, 1)), (SQUARE, None)])
def test_the_overview_comes_first_and_its_tiles_lie_where_they_were_cut(families, size, mosaic):
    generator = HF(families["internvl"])
    prompt = written(generator, picture(SQUARE, 1), picture(size))
    look = Look(asked=Watched(grid=True))
    passed(generator, prompt, look)
    views = look.seen[1].siblings
    assert [sight.mosaic for sight in views] == [mosaic] * len(views)
    (first, last) = prompt.spans[1].image[0]
    assert int(views[0].tokens[0]) == last - 16
    assert [int(sight.tokens[0]) for sight in views[1:]] == list(range(first, last - 16, 16))


@pytest.mark.parametrize("shape", [(1, 4), (2, 2), (4, 1), (2, 3), (3, 2)])
def test_tiles_are_laid_as_the_overview_shows(shape):
    rows, columns = shape
    whole = picture((8 * rows, 8 * columns))
    tiles = [whole[0, :, 8 * r : 8 * r + 8, 8 * c : 8 * c + 8] for r in range(rows) for c in range(columns)]
    small = torch.nn.functional.interpolate(whole, (8, 8), mode="bicubic", antialias=True)[0]
    assert arranged(torch.stack(tiles), small) == shape


def test_views_that_do_not_fit_the_tokens_are_refused_by_who_reads_them():
    pixels = torch.rand(3, 3, 8, 8)
    assert counted([16, 16, 16], pixels) == []
    assert [pack.views for pack in counted([32, 16], pixels)] == [2, 1]
    with pytest.raises(SpecError, match=r"saw 3 views for images of \[20, 16\] tokens"):
        counted([20, 16], pixels)
    visual = torch.tensor([[True] * 4 + [False] + [True] * 3])
    eyes = Eyes(visual=visual, pixels=pixels)
    for look in (lambda: eyes.views(0), lambda: eyes.of(0, 4).received(-1)):
        with pytest.raises(SpecError, match=r"saw 3 views for images of \[4, 3\] tokens"):
            look()


def test_views_that_are_mixed_are_not_looked_at_and_those_behind_are_still_found():
    eyes = Eyes(packs=[Pack(3, 16, None), Pack(1, 16, torch.arange(16))], projected=torch.rand(4, 16, 2))
    assert eyes.views(0) is None
    with pytest.raises(SpecError, match="40 tokens are of 3 views and mix them"):
        eyes.of(0, 40).received(-1)
    assert torch.equal(eyes.of(1, 16).projected, eyes.projected[3:])


@pytest.mark.parametrize(("name", "size", "views"), [("llava_next", SQUARE, 3), ("internvl", WIDE, 4)])
def test_an_image_of_several_views_is_no_picture(families, name, size, views):
    """36 tokens of LLaVA-NeXT (an overview, 4 x 4 and 4 ends of rows) are a square number, and no square."""
    generator = HF(families[name])
    look = Look(asked=Watched())
    prompt = written(generator, picture(size))
    passed(generator, prompt, look)
    (sight,) = look.seen
    for ask in (lambda: sight.grid, lambda: sight.received(-1)):
        with pytest.raises(SpecError, match=rf"of {views} views"):
            ask()
    for part in (NeighbourAware(1), DebiasedAttention(aspect=2.0)):
        with (
            pytest.raises(SpecError, match="several views"),
            intervening(generator.network, (part,), prompt.spans),
            torch.no_grad(),
        ):
            generator.network(**prompt.inputs)


def test_a_square_of_tokens_is_taken_from_who_sees_one(families):
    for name, fits in (("llava", True), ("internvl", True), ("qwen2_5_vl", False), ("idefics3", False)):
        generator = HF(families[name])
        prompt = written(generator, picture(SQUARE))

        def run(generator=generator, prompt=prompt):
            with intervening(generator.network, (NeighbourAware(1),), prompt.spans), torch.no_grad():
                generator.network(**prompt.inputs)

        if fits:
            run()
        else:
            with pytest.raises(SpecError, match=r"no square of tokens; say NeighbourAware\(width=…\)"):
                run()
