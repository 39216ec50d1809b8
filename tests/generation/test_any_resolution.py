"""Images of several views (LLaVA-NeXT, LLaVA-OneVision), and patches merged in squares (InternVL, Idefics3)."""

import pytest
import torch

from morgana.generation.generators.hf import HF
from morgana.generation.pruner import BEFORE, Choice, Watched
from morgana.generation.pruning.fastervlm import FasterVLM
from morgana.generation.pruning.globalcom import GlobalCom
from morgana.generation.pruning.hired import HiRED
from morgana.generation.pruning.uniform_grid import UniformGrid
from morgana.generation.shortening import pruning
from morgana.generation.vision import seeing
from morgana.spec import components
from morgana.types import Query, SpecError

SIDE = 4  # patches of a view


class Look:
    """Remembers what it was shown, and keeps the first tokens."""

    keep = 0.5

    def __init__(self, *, split=True):
        self.seen, self.split = [], split

    def stages(self, depth):
        return BEFORE

    def watched(self, depth, eyes):
        return Watched(vision=(-1,), grid=True) if self.split else Watched()

    def choose(self, sight, count):
        self.seen.append(sight)
        return Choice(torch.arange(count))


def looked(folder, pixels, pruner):
    generator = HF(folder)
    prompt = generator.write([pixels], [Query("q", "What?")], [()])
    with torch.no_grad(), pruning(generator.network, (pruner,), prompt.spans) as kept:
        generator.network(**prompt.inputs)
    return generator, prompt, kept


@pytest.fixture
def tall():
    """Twice as high as wide: tiles below each other."""
    return torch.rand(1, 3, 64, 32, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("name", ["llava_next", "llava_onevision"])
def test_every_view_is_shown_with_its_own_patches(families, name, tall):
    look = Look()
    generator, prompt, _ = looked(families[name], tall, look)
    ((first, last),) = prompt.spans[0].image
    views = look.seen[0].siblings
    assert [s.number for s in views] == list(range(len(views)))
    assert views[0].grid == (SIDE, SIDE)
    assert views[0].mosaic == (2, 1)
    owned = torch.cat([s.tokens for s in views])
    ends = [t for t in range(first, last) if t not in owned.tolist()]
    assert len(owned) == len(owned.unique()) == sum(r * c for r, c in (s.grid for s in views))
    assert len(ends) == sum(r for r, _ in (s.grid for s in views[1:]))  # the end of every row of the mosaic
    with torch.no_grad():
        core = generator.network.model
        states = prompt.inputs["pixel_values"][0]
        seen = generator.network.get_encoder("image")(states, output_hidden_states=True).last_hidden_state
    assert len(seen) == len(views)
    assert "pack_image_features" not in vars(core)
    if name == "llava_next":  # its projector works patch by patch, so the states of a view can be made alone
        with torch.no_grad():
            layer = core.config.vision_feature_layer
            tower = generator.network.get_encoder("image")(states, output_hidden_states=True).hidden_states[layer]
            alone = core.multi_modal_projector(tower[:, 1:])
        for sight in views:
            torch.testing.assert_close(sight.states, alone[sight.number][sight.eye.picked], atol=1e-5, rtol=1e-4)
        assert views[1].cls(-1).shape == (len(views[1].tokens),)


def test_without_need_of_views_an_image_is_shown_whole(families, tall):
    look = Look(split=False)
    _, prompt, _ = looked(families["llava_next"], tall, look)
    ((first, last),) = prompt.spans[0].image
    assert [len(s.tokens) for s in look.seen[0].siblings] == [last - first]


@pytest.mark.parametrize(
    "pruner", [FasterVLM(0.5), HiRED(0.4), GlobalCom(0.25), UniformGrid(10), FasterVLM(7)], ids=repr
)
def test_the_views_of_an_image_share_its_budget(families, tall, pruner):
    _, prompt, kept = looked(families["llava_next"], tall, pruner)
    ((first, last),) = prompt.spans[0].image
    look = Look()
    looked(families["llava_next"], tall, look)
    views = look.seen[0].siblings
    ends = last - first - sum(len(s.tokens) for s in views)
    left = kept.images(0)[0][0]
    whole = sum(len(s.tokens) for s in views)
    wanted = pruner.keep if isinstance(pruner.keep, int) else round(pruner.keep * whole)
    assert len(left) == wanted + ends
    if isinstance(pruner, HiRED):
        overview = [t for t in left.tolist() if t < SIDE * SIDE]
        assert len(overview) == min(SIDE * SIDE, round(0.5 * wanted))


@pytest.mark.parametrize("name", ["internvl", "idefics3", "smolvlm", "qwen2_vl", "qwen2_5_vl"])
def test_attention_of_patches_goes_to_the_token_that_they_became(families, name, pixels):
    """Move one patch behind the vision tower, and see which visual token moves."""
    generator = HF(families[name])
    network = generator.network
    prompt = generator.write([pixels[:1]], [Query("q", "What?")], [()])
    images = {k: v for k, v in prompt.inputs.items() if k in ("pixel_values", "image_grid_thw", "pixel_attention_mask")}
    spans = prompt.spans[0].image[0]
    count, caught, move = spans[1] - spans[0], {}, [None]

    def bump(module, args, output):
        state = output.last_hidden_state if hasattr(output, "last_hidden_state") else output
        caught["patches"] = state.shape[-2]
        if move[0] is not None:
            with torch.no_grad():
                state.reshape(-1, state.shape[-2], state.shape[-1])[0, move[0], ::3] += 3
        return output

    def tokens():
        with torch.no_grad():
            found = network.get_image_features(**images)
            found = found.pooler_output if hasattr(found, "pooler_output") else found
            return (found[0] if not isinstance(found, torch.Tensor) or found.ndim == 3 else found)[:count]

    tower = network.get_encoder(modality="image")
    merged = name.startswith("qwen")
    handle = (tower.blocks[-1] if merged else tower).register_forward_hook(bump)
    try:
        plain = tokens()
        with seeing(network, Watched(vision=(-1,)), ()) as eyes:
            tokens()
            eye = eyes.of(0, count)
        for patch in range(1, caught["patches"], 3):
            move[0] = patch
            moved = (tokens() - plain).abs().amax(-1)
            one = torch.zeros(caught["patches"])
            one[patch] = 1
            assert int(moved.argmax()) == int(eye.tokenwise(one).argmax())
            assert int((moved > 1e-4).sum()) == 1
    finally:
        handle.remove()


def test_every_pruner_works_on_every_family_or_says_what_it_lacks(family, pixels, query, hits):
    name, folder = family
    plain, lacking = HF(folder).prefill([pixels[:1]], [query], [hits]), []
    for cls in components("pruner"):
        made = cls(tau=1.1) if cls.__name__ == "ToDRELate" else cls()
        try:
            logits = HF(folder, pruner=made).prefill([pixels[:1]], [query], [hits])
        except SpecError:
            lacking.append(cls.__name__)
            continue
        assert torch.isfinite(logits).all()
        assert not torch.equal(logits, plain), cls
    if name in ("llava", "llava_next", "internvl"):
        assert set(lacking) <= {"FlowCut"}
    elif name != "paligemma":  # which sees its prompt in full, and is refused
        assert not {"UniformGrid", "FoPru", "HiPrune", "ZerothOrder", "MMTok", "FastV"} & set(lacking)


@pytest.mark.parametrize("cls", components("pruner"), ids=lambda cls: cls.__name__)
def test_a_prompt_that_sees_itself_in_full_is_refused(families, pixels, query, hits, cls):
    made = cls(tau=1.1) if cls.__name__ == "ToDRELate" else cls()
    with pytest.raises(SpecError, match="a mask of two dimensions"):
        HF(families["paligemma"], pruner=made).prefill([pixels[:1]], [query], [hits])
