"""What every pruner owes, on a tiny LLaVA and a tiny Qwen2-VL."""

import re
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from morgana.generation.generators.hf import HF
from morgana.generation.interventions.cmai import CMAI
from morgana.generation.plan import Kept
from morgana.generation.prompts import Prompt, Spans
from morgana.generation.pruner import BEFORE, Choice, Scored, Stage, Watched, at, budget, top
from morgana.generation.pruning.debiased import Debiased
from morgana.generation.pruning.fastervlm import FasterVLM
from morgana.generation.pruning.fastv import FastV
from morgana.generation.shortening import pruning
from morgana.spec import components
from morgana.types import Query, SpecError

NEEDS_CLS = {"FasterVLM", "FlowCut", "GlobalCom", "HiRED", "Recoverable", "Turbo", "VMTC", "VTCCLS"}
NAMES = {cls.__name__: cls for cls in components("pruner")}
FEWER = {"FourierVLM", "SEATS"}  # may keep fewer than their budget


def made(name, keep):
    cls = NAMES[name]
    if name == "ToDRELate":
        return cls(keep if keep in (1.0, 16, 400) else 0, tau=1.1)  # always due
    if name == "Debiased":
        return Debiased(FasterVLM(keep))
    return cls(keep) if any(f.name == "keep" for f in fields(cls)) else cls()


def usable(name, folder):
    if "qwen" in folder and name in NEEDS_CLS | {"Debiased"}:
        pytest.skip("this vision tower has no CLS token, which test_what_a_model_lacks_is_named shows")


@pytest.fixture
def batch(pixels, query, hits):
    return [pixels[:1], None, pixels[1:]], [query, query, Query("b", "1987?")], [hits, (), hits[:1]]


def passed(generator, batch):
    prompt = generator.write(*batch)
    with torch.no_grad(), pruning(generator.network, generator.pruners, prompt.spans) as kept:
        return generator.network(**prompt.inputs, logits_to_keep=1).logits[:, -1], kept


@pytest.mark.parametrize("name", NAMES)
class TestPruner:
    def test_keeps_its_budget_in_order_and_the_same_every_time(self, folder, name, batch):
        usable(name, folder)
        generator = HF(folder, pruner=made(name, 5))
        logits, kept = passed(generator, batch)
        again, _ = passed(generator, batch)
        assert torch.equal(logits, again)
        depth = 3
        wanted = [5 if act.done == 1 else 0 for act in kept.acts if act.done >= 1]
        for i, spans in enumerate(kept.spans):
            for layer in range(depth):
                for found in kept.images(layer)[i]:
                    assert (found.diff() > 0).all()
                    assert not len(found) or (found[0] >= 0 and found[-1] < 16)
            last = [len(found) for found in kept.images(depth - 1)[i]]
            assert last == [wanted[-1]] * len(spans.image) or (name in FEWER and sum(last) <= 5)
        assert not torch.allclose(logits[0], HF(folder).prefill(*batch)[0], atol=1e-4)

    def test_keeping_all_changes_no_bit(self, folder, name, batch):
        usable(name, folder)
        pruned = HF(folder, pruner=made(name, 1.0))
        assert torch.equal(HF(folder).prefill(*batch), pruned.prefill(*batch))
        spans = pruned.write(*batch).spans
        assert all(Kept((made(name, keep),), spans, 3).idle for keep in (16, 400))

    def test_a_row_does_not_depend_on_its_batch(self, folder, name, batch):
        usable(name, folder)
        generator = HF(folder, pruner=made(name, 0.4))
        together = generator.prefill(*batch)
        for i in (0, 2):
            alone = generator.prefill(*([given[i]] for given in batch))[0]
            torch.testing.assert_close(alone, together[i], atol=5e-4, rtol=1e-4)

    def test_an_attack_passes_through(self, tiny_llava_folder, name, pixels, query, hits):
        pixels = pixels[:1].requires_grad_()
        loss = HF(str(tiny_llava_folder), pruner=made(name, 5)).loss(pixels, query, hits, "Bluewater").sum()
        (grad,) = torch.autograd.grad(loss, pixels)
        assert torch.isfinite(grad).all()
        assert grad.abs().amax() > 0

    def test_several_images_share_one_budget(self, tiny_llava_folder, name, pixels):
        network = HF(str(tiny_llava_folder)).network
        prompt = two_images(pixels)
        pruner = made(name, 5)
        with torch.no_grad(), pruning(network, (pruner,), prompt.spans) as kept:
            network(**prompt.inputs)
        left = sum(len(found) for found in kept.images(2)[0])
        assert left == {"SEATS": 0, "ToDRELate": 0}.get(name, 10) or (name == "FourierVLM" and left <= 10)

    def test_refuses_a_budget_that_is_none(self, name):
        for keep in (0.0, 1.5, -1, True):
            with pytest.raises(SpecError, match="neither a count"):
                replace(made(name, 5), **({"pruner": FasterVLM(keep)} if name == "Debiased" else {"keep": keep}))


def two_images(pixels):
    """[2, 18) and [20, 36) are images."""
    ids = torch.randint(10, 300, (1, 50), generator=torch.Generator().manual_seed(0))
    ids[0, 2:18] = ids[0, 20:36] = 3
    spans = Spans(0, 50, 50, ((2, 18), (20, 36)), (), (36, 48))
    return Prompt({"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels}, (spans,))


class Spy:
    """A pruner that remembers the scores it was asked for."""

    def __init__(self, pruner):
        self.pruner, self.found = pruner, []
        self.keep, self.stages, self.watched = pruner.keep, pruner.stages, pruner.watched
        if hasattr(pruner, "narrow"):
            self.narrow = pruner.narrow

    def choose(self, sight, count):
        self.found.append(self.pruner.scores(sight))
        return self.pruner.choose(sight, count)


@pytest.mark.parametrize("name", [name for name in NAMES if isinstance(made(name, 5), Scored)])
def test_scores_are_differentiable_in_the_pixels(tiny_llava_folder, name, pixels, query, hits):
    generator = HF(str(tiny_llava_folder))
    pixels = pixels[:1].requires_grad_()
    prompt, spy = generator._shared(pixels, query, hits), Spy(made(name, 5))
    with pruning(generator.network, (spy,), prompt.spans):
        generator.network(**prompt.inputs)
    for scores in spy.found:
        finite = scores[torch.isfinite(scores)]
        weight = torch.rand(len(finite), generator=torch.Generator().manual_seed(1)).to(finite)
        (grad,) = torch.autograd.grad((finite * weight).sum(), pixels, retain_graph=True)
        assert grad.abs().amax() > 0


@pytest.mark.parametrize("name", sorted(NEEDS_CLS))
def test_what_a_model_lacks_is_named(tiny_qwen2vl_folder, name, batch):
    with pytest.raises(SpecError, match=r"CLS|batch of images"):
        HF(str(tiny_qwen2vl_folder), pruner=NAMES[name](3)).prefill(*batch)


def test_equal_budgets_cost_equal_cache(tiny_llava_folder, batch):
    from morgana.generation.cost import prefill_cost

    before = [n for n in NAMES if made(n, 4).stages(3) == ((0, 1.0),) and n != "FourierVLM"]
    assert len(before) > 15
    costs = {prefill_cost(HF(str(tiny_llava_folder), pruner=made(n, 4)), *batch)[1:] for n in before}
    assert len(costs) == 1


def test_a_share_is_of_each_image():
    assert [budget(keep, 144) for keep in (1.0, 0.5, 0.25, 0.11, 0.05, 16, 200)] == [144, 72, 36, 16, 7, 16, 144]


BLIND = Watched()


class Own:
    """The longest embeddings, unless something else is said; nothing of it is checked when it is built."""

    def __init__(self, keep=5, stages=BEFORE, watched=BLIND, choice=None):
        self.keep, self.given, self.read, self.choice = keep, stages, watched, choice

    def __repr__(self):
        return "Own"

    def stages(self, depth):
        return self.given

    def watched(self, depth, eyes):
        return self.read

    def choose(self, sight, count):
        return self.choice(sight) if self.choice else top(sight.states.norm(dim=-1), count)


WRONG = {
    "a count that is none": (Own(3.5), "Own: keep=3.5 is neither a count"),
    "a whole float": (Own(3.0), "Own: keep=3.0 is neither a count"),
    "no keep": (Own(None), "Own: keep=None is neither a count"),
    "half of it": (Own(stages=(Stage(0, 0.5),)), r"Own has \[0.5\] of what goes"),
    "falling": (Own(stages=(Stage(0, 0.8), Stage(1, 0.5), Stage(2, 1.0))), "let them rise to 1"),
    "never": (Own(stages=()), "let them rise to 1"),
    "a bare stage": (Own(stages=Stage(0, 1.0)), "give a tuple of them"),
    "a named layer": (Own(stages=(Stage("two", 1.0),)), "give a tuple of them"),
    "a layer too far": (Own(watched=Watched(text=(9,))), "Own watches layer 9 of a model of 3"),
    "a change too far": (Own(watched=Watched(moves=(-1,))), "Own watches layer -1 of a model of 3"),
    "a bare layer": (Own(watched=Watched(text=1)), "Watched of tuples"),
    "nothing watched": (Own(watched=None), "Own watches None"),
    "floats": (Own(choice=lambda s: Choice(torch.arange(5.0))), r"index is a tensor \(5,\) of float32"),
    "a list": (Own(choice=lambda s: Choice([1, 2])), "index is a list"),
    "a table": (Own(choice=lambda s: Choice(torch.arange(4)[None])), r"index is a tensor \(1, 4\)"),
    "a mask": (Own(choice=lambda s: Choice(s.places > 12)), "of bool, not integers"),
    "a bare tensor": (Own(choice=lambda s: torch.arange(4)), "Own made a tensor .*, not a Choice"),
    "no choice": (Own(choice=lambda s: None), "Own made a NoneType, not a Choice"),
    "narrow states": (Own(choice=lambda s: Choice(torch.arange(4), s.states[:4, :3])), r"states are a tensor \(4, 3\)"),
    "too few states": (Own(choice=lambda s: Choice(torch.arange(4), s.states[:2])), r"not \(4, "),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_a_pruner_of_ones_own_does_wrong_is_named(tiny_llava_folder, batch, case):
    pruner, message = WRONG[case]
    with pytest.raises(SpecError, match=message):
        passed(HF(str(tiny_llava_folder), pruner=pruner), batch)


@pytest.mark.parametrize("shared", [None, (5,), (11, -1), (5.0, 5.0), (1, 2)], ids=str)
def test_a_budget_that_is_divided_wrongly_is_named(tiny_llava_folder, pixels, shared):
    network, prompt, pruner = HF(str(tiny_llava_folder)).network, two_images(pixels), Own()
    pruner.share = lambda sights, counts: shared
    with pytest.raises(SpecError, match="Own shared"), pruning(network, (pruner,), prompt.spans):
        network(**prompt.inputs)


@pytest.mark.parametrize(
    ("pruners", "message"),
    [
        (FasterVLM(3), "no tuple of pruners"),
        ((FastV,), "no pruner; give one that is built"),
        ((CMAI(),), "CMAI.* is no pruner"),
    ],
    ids=repr,
)
def test_pruning_says_what_it_takes(tiny_llava_folder, batch, pruners, message):
    generator = HF(str(tiny_llava_folder))
    spans = generator.write(*batch).spans
    with pytest.raises(SpecError, match=message), pruning(generator.network, pruners, spans):
        pass


def test_what_stayed_is_told_of_layers_that_there_are_and_after_a_pass(tiny_llava_folder, batch):
    generator = HF(str(tiny_llava_folder), pruner=FastV(5, layer=1))
    prompt = generator.write(*batch)
    with torch.no_grad(), pruning(generator.network, generator.pruners, prompt.spans) as kept:
        with pytest.raises(SpecError, match="has not seen the prompts"):
            kept.images(2)
        generator.network(**prompt.inputs)
        assert len(kept.images(2)[0][0]) == 5
    for layer in (-1, 3):
        with pytest.raises(SpecError, match=f"layer {layer} of a model of 3 layers"):
            kept.images(layer)


def test_a_pruner_chooses_in_full_precision_under_autocast(tiny_llava_folder, batch):
    seen = []

    def choice(sight):
        seen.append((sight.states @ sight.states.T).dtype)
        return Choice(torch.arange(5))

    with torch.autocast("cpu", torch.bfloat16):
        passed(HF(str(tiny_llava_folder), pruner=Own(choice=choice)), batch)
        assert torch.is_autocast_enabled("cpu")
    assert set(seen) == {torch.float32}


NAN = float("nan")


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("AIMPrune", {"first": 0.9, "last": 0.2}),
        ("AIMPrune", {"first": 3, "last": 1}),
        *(("AIMPrune", {"heat": heat}) for heat in (0.0, -1.0, NAN)),
        ("AIMPrune", {"steps": -3}),
        ("AdaptInfer", {"done": (0.9, 0.6, 1.0)}),
        ("SEATS", {"late": 0.0}),
        ("GlobalCom", {"heat": NAN}),
        ("Recoverable", {"seen": NAN}),
        ("Recoverable", {"recovered": NAN}),
        ("ZerothOrder", {"step": NAN}),
        *(("ToDRELate", {"tau": tau}) for tau in (-1.0, NAN)),
        *(
            (name, {weight: value})
            for name, weight in (
                ("CATP", "weight"),
                ("CATPLate", "weight"),
                ("Turbo", "alpha"),
                ("VFlowOpt", "weight"),
                ("MMTok", "alpha"),
            )
            for value in (-1.0, NAN, float("inf"))
        ),
    ],
    ids=str,
)
def test_a_setting_that_can_mean_nothing_is_refused(name, settings):
    with pytest.raises(SpecError, match="|".join(settings)):
        NAMES[name](16, **settings)


@pytest.mark.parametrize(
    "pruner",
    [
        NAMES["AIMPrune"](16, first=20, last=0.5),
        NAMES["SEATS"](16, late=16),
        FastV(16, layer=-0.5),
    ],
    ids=repr,
)
def test_layers_in_an_order_that_cannot_be_are_refused_where_the_depth_is_known(pruner):
    with pytest.raises(SpecError, match="layer"):
        pruner.stages(32)
    with pytest.raises(SpecError, match="no share of the depth"):
        at(NAN, 32)


GUIDE = Path(__file__).resolve().parents[2] / "docs/pruning.md"
BLOCKS = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), flags=re.S)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_the_examples_run_as_they_stand(number, tiny_llava_folder, batch):
    """With the bundled model's name for a tiny random one."""
    made = {"__name__": "example"}
    code = BLOCKS[number].replace('"atlas"', repr(str(tiny_llava_folder))).replace("224", "32")
    exec(compile(code, f"{GUIDE.name}, block {number}", "exec"), made)
    if "Loudest" in made:
        _, made["kept"] = passed(HF(str(tiny_llava_folder), pruner=made["Loudest"](4)), batch)
    if "kept" in made:
        assert [len(found) for found in made["kept"].images(2)[0]] == [4]
