import math
import sys

import pytest
import torch
from torch.autograd.forward_ad import dual_level, make_dual, unpack_dual

from morgana.generation.generators.hf import HF
from morgana.generation.interventions import bair
from morgana.generation.interventions.bair import BAIR, penalty, restore, solve
from morgana.generation.layout import Layout
from morgana.generation.prompts import Spans
from morgana.generation.view import Reference, View
from morgana.generation.visual import Probe, sharpness
from morgana.types import SpecError

CPU = torch.device("cpu")


def layout(*rows):
    """Rows of (padding, first visual, one past the last visual); prompts of 40 tokens."""
    return Layout(tuple(Spans(pad, 40, 40, ((a, b),) if b > a else (), (), (38, 39)) for pad, a, b in rows), CPU)


RAGGED = layout((0, 5, 21), (7, 9, 25), (3, 10, 16), (11, 0, 0))


@pytest.fixture
def scores():
    made = torch.randn(4, 3, 1, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 3
    for i, spans in enumerate(RAGGED.spans):
        made[i, ..., : spans.start] = float("-inf")
    return made


@pytest.fixture
def reference():
    draw = torch.Generator().manual_seed(2)
    odds = torch.randn(4, 3, dtype=torch.float64, generator=draw)
    return Reference({0: odds}, {0: torch.rand(4, 3, dtype=torch.float64, generator=draw) * 0.8})


def columns(spans):
    visual = [t for a, b in spans.image for t in range(a, b)]
    return visual, [t for t in range(spans.start, spans.stop) if t not in visual]


def plainly(part, row, spans, log_odds, sharp):
    """The equations of the paper for one head, in plain Python on floats."""
    visual, text = columns(spans)
    if not visual:
        return row
    seen, words = [float(row[t]) for t in visual], [float(row[t]) for t in text]
    mean = sum(seen) / len(seen)
    deviation = math.sqrt(sum((e - mean) ** 2 for e in seen) / (len(seen) - 1))
    z = [(e - mean) / deviation for e in seen]
    g = [v / (1 + math.exp(-v)) for v in z]

    def spread(t):
        top = max(t * v for v in g)
        p = [math.exp(t * v - top) for v in g]
        p = [v / sum(p) for v in p]
        return 1 + sum(v * math.log(v) for v in p if v > 0) / math.log(len(p))

    low, high = 0.0, 100.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if spread(middle) < min(0.99, part.gamma_s * sharp) else (low, middle)
    warm = [low * v for v in g]
    shift = log_odds + math.log(sum(map(math.exp, words))) - math.log(sum(map(math.exp, warm)))
    made = row.clone()
    for t, e, w in zip(visual, seen, warm, strict=True):
        made[t] = e + part.alpha_v * (w + shift - e)
    count, fifth = len(words), int(len(words) / 5)
    average = sum(words) / count
    primacy = max(0.0, sum(words[:fifth]) / fifth - average)
    recency = max(0.0, sum(words[-fifth:]) / fifth - average)
    for j, (t, e) in enumerate(zip(text, words, strict=True), 1):
        pen = primacy * max(0.0, 1 - 2 * j / count) ** 2 + recency * max(0.0, 2 * j / count - 1) ** 2
        made[t] = e - part.alpha_t * (pen if j <= count - part.safe_tail else 0)
    return made


@pytest.mark.parametrize(
    "part", [BAIR(), BAIR(1.0, 0.0), BAIR(0.3, 2.0, 0.5, 4), BAIR(0.0, 1.0), BAIR(1.0, 1.0, 3.0)], ids=repr
)
def test_it_is_the_equations_of_the_paper_head_by_head(part, scores, reference):
    made = part.edit(scores, View(RAGGED, 0, reference))
    for i, spans in enumerate(RAGGED.spans):
        for head in range(3):
            wanted = plainly(
                part,
                scores[i, head, 0],
                spans,
                float(reference.log_odds[0][i, head]),
                float(reference.sharpness[0][i, head]),
            )
            torch.testing.assert_close(made[i, head, 0], wanted, atol=1e-6, rtol=1e-6)


def test_fully_restored_attention_has_the_mass_and_sharpness_wanted(scores, reference):
    made = BAIR(1.0, 0.0).edit(scores, View(RAGGED, 0, reference)).softmax(-1)
    for i, spans in enumerate(RAGGED.spans[:3]):
        seen = made[i, :, 0, columns(spans)[0]]
        torch.testing.assert_close(seen.sum(-1), reference.log_odds[0][i].sigmoid(), atol=1e-6, rtol=0)
        p = seen / seen.sum(-1, keepdim=True)
        sharp = 1 + (p * p.log()).sum(-1) / math.log(p.shape[-1])
        torch.testing.assert_close(sharp, reference.sharpness[0][i], atol=1e-4, rtol=0)


def test_nothing_is_done_without_strength_or_without_an_image(scores, reference):
    assert torch.equal(BAIR(0.0, 0.0).edit(scores, View(RAGGED, 0, reference)), scores)
    assert torch.equal(BAIR(1.0, 1.0).edit(scores, View(RAGGED, 0, reference))[3], scores[3])
    blind = layout((0, 0, 0))
    assert torch.equal(BAIR(1.0, 1.0).edit(scores[:1], View(blind, 0, None)), scores[:1])


def test_the_penalty_only_lowers_text_and_spares_the_middle(scores):
    whole = scores.masked_fill(scores.isneginf(), 0)
    pen, safe = penalty(whole, RAGGED, 0), penalty(whole, RAGGED, 5)
    assert (pen >= 0).all()
    assert (pen > 0).any()
    for i, spans in enumerate(RAGGED.spans):
        visual, text = columns(spans)
        assert (pen[i, ..., : spans.start] == 0).all()
        assert (pen[i, ..., visual] == 0).all()
        if len(text) % 2 == 0:
            assert (pen[i, ..., text[len(text) // 2 - 1]] == 0).all()
        assert (safe[i, ..., text[-5:]] == 0).all()
        assert torch.equal(safe[i, ..., text[:-5]], pen[i, ..., text[:-5]])
    assert penalty(torch.full_like(scores, 1.5), RAGGED, 0).abs().max() < 1e-12


@pytest.mark.parametrize("part", [BAIR(1.0, 0.0), BAIR(1.0, 1.0)], ids=repr)
def test_what_a_row_does_not_see_takes_no_part(part, scores, reference):
    scores[:, :, :, :12] = float("-inf")  # as under a sliding window
    made = part.edit(scores, View(RAGGED, 0, reference))
    assert torch.equal(made.isneginf(), scores.isneginf())
    higher = part.edit(scores + 20, View(RAGGED, 0, reference))
    torch.testing.assert_close(higher.softmax(-1), made.softmax(-1), atol=1e-9, rtol=0)


def test_the_mass_and_sharpness_wanted_are_those_of_what_is_seen(scores, reference):
    scores[:, :, :, :12] = float("-inf")
    made = BAIR(1.0, 0.0).edit(scores, View(RAGGED, 0, reference)).softmax(-1)
    for i, spans in enumerate(RAGGED.spans[:3]):
        seen = made[i, :, 0, [t for t in columns(spans)[0] if t >= 12]]
        torch.testing.assert_close(seen.sum(-1), reference.log_odds[0][i].sigmoid(), atol=1e-6, rtol=0)
        p = seen / seen.sum(-1, keepdim=True)
        sharp = 1 + (p * p.log()).sum(-1) / math.log(p.shape[-1])
        torch.testing.assert_close(sharp, reference.sharpness[0][i], atol=1e-4, rtol=0)


def test_several_rows_of_one_head_share_its_target(scores):
    one = layout((0, 5, 21))
    both = scores[:1, :1].expand(-1, -1, 2, -1)
    target = Reference({0: torch.zeros(1, 1).double()}, {0: torch.full((1, 1), 0.3).double()})
    made = BAIR().edit(both, View(one, 0, target))
    assert torch.equal(made[:, :, 0], made[:, :, 1])


def test_with_the_penalty_the_image_gets_at_least_its_mass(scores, reference):
    made = BAIR(1.0, 1.0).edit(scores, View(RAGGED, 0, reference)).softmax(-1)
    for i, spans in enumerate(RAGGED.spans[:3]):
        assert (made[i, :, 0, columns(spans)[0]].sum(-1) >= reference.log_odds[0][i].sigmoid() - 1e-9).all()


def test_a_flat_image_a_single_visual_token_and_extreme_targets_stay_finite(scores):
    scores[..., 5:21] = 2.0
    one = layout((0, 5, 6), (7, 9, 25), (3, 10, 16), (11, 0, 0))
    odds = torch.tensor([[80.0, -80.0, 0.0]] * 4, dtype=torch.float64)
    for sharp in (0.0, 0.5, 1.0, float("nan")):
        target = Reference({0: odds}, {0: torch.full_like(odds, sharp)})
        made = BAIR(1.0, 1.0).edit(scores, View(one, 0, target))
        assert torch.equal(made.isneginf(), scores.isneginf())
        assert made.softmax(-1).isfinite().all()


def test_the_scale_follows_its_equation_when_differentiated():
    shape = torch.randn(1, 2, 1, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(3), requires_grad=True)
    sharp = torch.tensor([[[[0.2]], [[0.6]]]], dtype=torch.float64, requires_grad=True)
    count = torch.full((1, 1, 1, 1), 7)
    torch.testing.assert_close(sharpness(solve(shape, sharp) * shape, count), sharp, atol=1e-5, rtol=0)
    assert torch.autograd.gradcheck(solve, (shape, sharp), eps=1e-4, atol=1e-2, rtol=1e-2)


def test_it_cannot_run_without_a_calibration_that_fits(scores, reference):
    with pytest.raises(SpecError, match="calibration pass"):
        BAIR().edit(scores, View(RAGGED, 0, None))
    with pytest.raises(SpecError, match="does not fit layer 1"):
        BAIR().edit(scores, View(RAGGED, 1, reference))
    with pytest.raises(SpecError, match="does not fit"):
        BAIR().edit(scores[:, :2], View(RAGGED, 0, reference))
    with pytest.raises(SpecError, match=r"alpha_v is -0\.1"):
        BAIR(-0.1)
    with pytest.raises(SpecError, match="alpha_t is nan"):
        BAIR(alpha_t=float("nan"))


def test_inside_a_model_every_layer_and_head_hits_its_target(folder, pixels, query, hits):
    generator, probe, bare = HF(folder, interventions=(BAIR(1.0, 0.0),)), Probe(), Probe()
    images, asked = [pixels[:1], pixels[1:]], [query, query]
    with torch.no_grad():
        generator.prefill(images, asked, [hits, hits[:1]], probe=probe)
        HF(folder).prefill(images, asked, [(), ()], probe=bare)
    assert len(probe.log_odds) == 3
    for layer in probe.log_odds:
        mass = probe.log_odds[layer].sigmoid()
        torch.testing.assert_close(mass, bare.log_odds[layer].sigmoid(), atol=2e-6, rtol=0)
        torch.testing.assert_close(probe.sharpness[layer], bare.sharpness[layer].clamp(max=0.99), atol=1e-4, rtol=0)


def row_by_row(shape, sharp):
    """`solve` by the compiled loop."""
    rows = pytest.importorskip("morgana.generation.interventions._bair_rows")
    lower = (shape - shape.amax(-1, keepdim=True))[0, :, 0].numpy()
    made = [rows.solve(x, t, rows.moments(x)[1]) for x, t in zip(lower, sharp.flatten().tolist(), strict=True)]
    return torch.tensor(made, dtype=shape.dtype).view_as(sharp)


@pytest.mark.parametrize("kind", ["even", "one token stands out", "two halves", "two tokens nearly tie", "heavy tails"])
@pytest.mark.parametrize("count", [3, 144, 2880])
@pytest.mark.parametrize("compiled", [False, True], ids=["torch", "numba"])
def test_the_scale_is_found_on_rows_of_any_shape(kind, count, compiled):
    made = torch.randn(1, 16, 1, count, dtype=torch.float64, generator=torch.Generator().manual_seed(count))
    if kind == "one token stands out":
        made = made * 0.1 + 20 * (torch.arange(count) == 0)
    elif kind == "two halves":
        made = made * 0.01 + 5 * (torch.arange(count) < count // 2)
    elif kind == "two tokens nearly tie":
        made = made * 0.001 + 3 * (torch.arange(count) < 2)
    elif kind == "heavy tails":
        made = made.sign() * made.abs() ** 3
    shape = torch.nn.functional.silu((made - made.mean(-1, keepdim=True)) / made.std(-1, keepdim=True))
    total = torch.full((1, 1, 1, 1), count)
    wanted = torch.linspace(0, 0.99, 16, dtype=torch.float64)[None, :, None, None]
    scale = row_by_row(shape, wanted) if compiled else solve(shape, wanted)
    best = sharpness(100 * shape, total)
    torch.testing.assert_close(sharpness(scale * shape, total), torch.minimum(wanted, best), atol=1e-6, rtol=0)


@pytest.mark.parametrize("standing", [2, 3])
@pytest.mark.parametrize("count", [50, 144, 2880])
@pytest.mark.parametrize("compiled", [False, True], ids=["torch", "numba"])
def test_the_scale_is_found_where_entropy_is_flat(count, standing, compiled):
    """Some tokens stand out: for a long way the entropy is their number's logarithm, and steps from there are long."""
    made = 0.001 * torch.randn(1, 40, 1, count, dtype=torch.float64, generator=torch.Generator().manual_seed(standing))
    made[..., :standing] += 5
    shape = torch.nn.functional.silu((made - made.mean(-1, keepdim=True)) / made.std(-1, keepdim=True))
    flat = 1 - math.log(standing) / math.log(count)
    wanted = (flat + torch.cat([torch.zeros(1), 10.0 ** -torch.linspace(1, 9, 39)]).double()).clamp(max=0.99)
    wanted[::2] = 2 * flat - wanted[::2]
    wanted, total = wanted[None, :, None, None], torch.full((1, 1, 1, 1), count)
    scale = row_by_row(shape, wanted) if compiled else solve(shape, wanted)
    best = sharpness(100 * shape, total)
    torch.testing.assert_close(sharpness(scale * shape, total), torch.minimum(wanted, best), atol=1e-6, rtol=0)


def test_a_row_that_cannot_be_as_sharp_as_asked_has_no_slope_in_its_scale():
    """Two tokens nearly tie: T stays at 100 whatever the scores, and only T's being 100 is differentiated."""
    seen = torch.tensor([2.0, 2.001, 0, 0, -1, -1, 0, 0.5, 0.3, 0.2], dtype=torch.float64).view(1, 1, 1, -1)
    draw = torch.Generator().manual_seed(0)
    weight = torch.randn(seen.shape, dtype=torch.float64, generator=draw)
    sharp = torch.full((1, 1, 1, 1), 0.9, dtype=torch.float64, requires_grad=True)
    start = seen.clone().requires_grad_()
    assert solve(start, sharp).item() == 100
    (restore(start, sharp) * weight).sum().backward()
    assert sharp.grad.item() == 0
    for place in range(10):
        step = 1e-7 * (torch.arange(10) == place).double()
        up, down = ((restore(seen + s * step, sharp.detach()) * weight).sum() for s in (1, -1))
        torch.testing.assert_close(start.grad[0, 0, 0, place], (up - down) / 2e-7, atol=1e-3, rtol=1e-4)


def test_a_prompt_that_is_all_image_is_edited():
    alone = layout((0, 0, 40))
    target = Reference({0: torch.zeros(1, 3, dtype=torch.float64)}, {0: torch.full((1, 3), 0.5, dtype=torch.float64)})
    given = torch.randn(1, 3, 1, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert BAIR().edit(given, View(alone, 0, target)).isfinite().all()


WHOLE = {"amid": layout((0, 5, 21), (0, 5, 21)), "first": layout((0, 0, 16)), "last": layout((0, 30, 40))}
WHOLE |= {"all": layout((0, 0, 40)), "one": layout((0, 7, 8))}
ANY = {"shifted": layout((0, 5, 21), (0, 6, 22)), "padded": layout((3, 5, 21), (0, 5, 21)), "ragged": RAGGED}


def given(spans, heads=3, scale=3.0):
    """Scores of float32 and what a calibration found, for a layout."""
    draw = torch.Generator().manual_seed(4)
    made = torch.randn(len(spans.spans), heads, 1, 40, generator=draw) * scale
    odds, sharp = torch.randn(len(made), heads, generator=draw), torch.rand(len(made), heads, generator=draw) * 0.9
    return made, Reference({0: odds}, {0: sharp})


@pytest.fixture
def loops(monkeypatch):
    """How often the compiled loop is asked."""
    rows, asked = pytest.importorskip("morgana.generation.interventions._bair_rows"), []

    def edit(*args):
        asked.append(args)
        return rows.edit(*args)

    monkeypatch.setattr(bair, "loop", lambda: edit)
    return asked


@pytest.mark.parametrize(
    "part", [BAIR(), BAIR(1.0, 0.0), BAIR(0.3, 2, 0.5, 4), BAIR(0, 1.0), BAIR(1, 1.0, 3.0)], ids=repr
)
@pytest.mark.parametrize("spans", WHOLE)
def test_the_compiled_loop_says_what_the_equations_and_torch_say(part, spans, loops, monkeypatch):
    where = WHOLE[spans]
    scores, reference = given(where)
    before = scores.clone()
    made = part.edit(scores, View(where, 0, reference))
    assert len(loops) == 1
    assert torch.equal(scores, before)
    monkeypatch.setattr(bair, "loop", lambda: None)
    torch.testing.assert_close(made, part.edit(scores, View(where, 0, reference)), atol=2e-5, rtol=1e-5)
    if spans in ("all", "one"):  # the equations divide by the text, and by tokens less one
        return
    for i, prompt in enumerate(where.spans):
        for head in range(3):
            targets = (float(x[0][i, head]) for x in (reference.log_odds, reference.sharpness))
            wanted = plainly(part, scores[i, head, 0].double(), prompt, *targets)
            torch.testing.assert_close(made[i, head, 0].double(), wanted, atol=5e-6, rtol=1e-6)


def test_the_compiled_loop_hits_mass_and_sharpness(loops):
    where = WHOLE["amid"]
    scores, reference = given(where, heads=8)
    seen = BAIR(1.0, 0.0).edit(scores, View(where, 0, reference)).double().softmax(-1)[..., 0, 5:21]
    torch.testing.assert_close(seen.sum(-1), reference.log_odds[0].double().sigmoid(), atol=1e-6, rtol=0)
    p = seen / seen.sum(-1, keepdim=True)
    sharp = 1 + (p * p.log()).sum(-1) / math.log(16)
    torch.testing.assert_close(sharp, reference.sharpness[0].double(), atol=1e-6, rtol=0)
    assert loops


@pytest.mark.parametrize("sharp", [0.0, 0.5, 1.0, float("nan")])
@pytest.mark.parametrize("spans", WHOLE)
def test_flat_images_and_extreme_targets_stay_finite_in_the_compiled_loop(spans, sharp, loops):
    where = WHOLE[spans]
    scores, _ = given(where, scale=200.0)
    scores[..., where.visual.run] = 2.0
    odds = torch.tensor([[80.0, -80.0, float("inf")]]).expand(len(scores), 3)
    made = BAIR(1.0, 1.0).edit(scores, View(where, 0, Reference({0: odds}, {0: torch.full_like(odds, sharp)})))
    assert made.isfinite().all()
    assert loops


def test_the_compiled_loop_is_for_whole_rows_without_gradients(loops):
    for where in ANY.values():
        scores, reference = given(where)
        for i, spans in enumerate(where.spans):
            scores[i, ..., : spans.start] = float("-inf")
        BAIR().edit(scores, View(where, 0, reference))
    padded, plain = ANY["padded"], WHOLE["amid"]
    scores, reference = given(padded)
    BAIR().edit(scores, View(padded, 0, reference))  # finite where nobody looks
    assert BAIR().edit(given(plain)[0].double(), View(plain, 0, reference)).dtype == torch.float64
    assert not loops
    where = WHOLE["amid"]
    scores, reference = given(where)
    hidden = scores.index_fill(-1, torch.tensor([8]), float("-inf"))
    BAIR().edit(hidden, View(where, 0, reference))
    scores.requires_grad_()
    BAIR().edit(scores, View(where, 0, reference)).sum().backward()
    assert scores.grad is not None
    reference.log_odds[0].requires_grad_()
    BAIR().edit(scores.detach(), View(where, 0, reference)).sum().backward()
    assert reference.log_odds[0].grad is not None
    assert not loops
    assert BAIR(0.0, 0.0).edit(hidden, View(where, 0, None)) is hidden


def test_several_rows_of_a_head_share_its_target_in_the_compiled_loop(loops):
    where = WHOLE["amid"]
    scores, reference = given(where)
    both = BAIR().edit(scores.expand(-1, -1, 2, -1), View(where, 0, reference))
    assert torch.equal(both[:, :, 0], both[:, :, 1])
    assert torch.equal(both[:, :, :1], BAIR().edit(scores, View(where, 0, reference)))
    assert len(loops) == 2


def test_powers_are_right_from_the_faintest_on():
    rows = pytest.importorskip("morgana.generation.interventions._bair_rows")
    assert max(abs(rows.power(x) / math.exp(x) - 1) for x in torch.linspace(-80, 0, 4001).tolist()) < 3e-8
    assert rows.power(-1e9) == pytest.approx(math.exp(-80))


def test_scores_that_hardly_differ_are_standardised_alike(loops, monkeypatch):
    where = WHOLE["amid"]
    scores, reference = given(where)
    scores[..., where.visual.run] *= 1e-5
    made = BAIR().edit(scores, View(where, 0, reference))
    assert loops
    monkeypatch.setattr(bair, "loop", lambda: None)
    torch.testing.assert_close(made, BAIR().edit(scores, View(where, 0, reference)), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("count", [30, 45])
def test_scores_of_another_length_are_not_read_beyond_their_end(count, loops):
    where = WHOLE["amid"]
    scores, reference = given(where)
    wrong = scores[..., :1].expand(-1, -1, -1, count).contiguous()
    with pytest.raises((RuntimeError, IndexError)):
        BAIR().edit(wrong, View(where, 0, reference, clear=True))
    assert not loops


@pytest.mark.filterwarnings("ignore:`torch.jit.script`", "ignore:There is a performance drop")  # torch's own
def test_forward_derivatives_and_vmap_go_through_torch(loops):
    where = WHOLE["first"]
    scores, reference = given(where)

    def edit(x):
        return BAIR().edit(x, View(where, 0, reference, clear=True))

    _, along = torch.func.jvp(edit, (scores,), (torch.ones_like(scores),))
    torch.testing.assert_close(along, torch.ones_like(along), atol=1e-4, rtol=0)  # a shift of all scores is kept
    with dual_level():
        along = unpack_dual(edit(make_dual(scores, torch.ones_like(scores)))).tangent
    torch.testing.assert_close(along, torch.ones_like(along), atol=1e-4, rtol=0)
    many = torch.func.vmap(edit)(torch.stack([scores, scores + 1]))
    torch.testing.assert_close(many[1] - 1, many[0], atol=1e-4, rtol=0)
    assert not loops


@pytest.mark.parametrize("error", [OSError("no libllvmlite.so"), ImportError("numpy is too new"), EOFError("cut off")])
def test_a_numba_that_fails_is_said_and_torch_serves(error, monkeypatch):
    rows = pytest.importorskip("morgana.generation.interventions._bair_rows")

    def edited(*_):
        raise error

    monkeypatch.setattr(rows, "edited", edited)
    bair.loop.cache_clear()
    try:
        with pytest.warns(UserWarning, match=rf"{type(error).__name__}: {error}.*torch does its work.*delete"):
            assert bair.loop() is None
        assert bair.loop() is None
    finally:
        bair.loop.cache_clear()


def test_without_numba_nothing_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "morgana.generation.interventions._bair_rows", raising=False)
    bair.loop.cache_clear()
    try:
        assert bair.loop() is None
    finally:
        bair.loop.cache_clear()


def test_the_loop_compiles_where_nothing_can_be_kept(monkeypatch):
    rows = pytest.importorskip("morgana.generation.interventions._bair_rows")
    monkeypatch.setattr("numba.core.caching.CacheImpl._locator_classes", [])
    assert rows.compiled(lambda x: x + 1)(1) == 2
