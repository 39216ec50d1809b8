"""The same perturbations, bit for bit, as two libraries that nobody here wrote.

    uv pip install foolbox; uv pip install --no-deps torchattacks; pytest -m peers

torchattacks asks for an old requests, hence --no-deps.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from morgana.attacks.searches.fgsm import FGSM
from morgana.attacks.searches.pgd import PGD
from morgana.attacks.threats.l2 import L2
from morgana.attacks.threats.linf import Linf
from morgana.retrieval.encoders.openclip import OpenCLIP
from morgana.seeds import seeded

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]
STEPS, BATCH, DOCUMENTS = 10, 4, 12


class Classifier(nn.Module):
    """A retriever as a classifier over its documents: logits are 100 × cosine."""

    def __init__(self, encoder, documents):
        super().__init__()
        self.encoder, self.documents = encoder, documents
        self.anchor = nn.Parameter(torch.zeros(()))  # the libraries read the device off a parameter

    def forward(self, pixels):
        return 100 * self.encoder.encode_image(pixels) @ self.documents.T


@pytest.fixture(scope="module")
def model(tiny_clip_folder):
    encoder = OpenCLIP(str(tiny_clip_folder))
    with seeded(1, "documents"), torch.no_grad():  # of images, so that no document wins by far and gradients live
        documents = encoder.encode_image(torch.rand(DOCUMENTS, 3, 40, 40))
    return Classifier(encoder, documents).eval()


@pytest.fixture(scope="module")
def images():
    with seeded(0, "peers"):
        return torch.randint(0, 256, (BATCH, 3, 40, 40)).float() / 255


@pytest.fixture(scope="module")
def labels(model, images):
    with torch.no_grad():
        return model(images).argmax(1)


def objective(model, labels, *, targeted):
    sign = -1 if targeted else 1
    return lambda pixels: sign * functional.cross_entropy(model(pixels), labels, reduction="none")


def ours(model, images, labels, threat, rate, *, targeted):
    search = PGD(steps=STEPS, rate=rate, random_start=False)
    return search.run(images, objective(model, labels, targeted=targeted), threat).last["pixels"]


def by_torchattacks(attack, images, labels, *, targeted):
    if targeted:
        attack.set_mode_targeted_by_label(quiet=True)
    return attack(images, labels)


def by_foolbox(attack, model, images, labels, epsilon, *, targeted):
    import foolbox

    criterion = (foolbox.criteria.TargetedMisclassification if targeted else foolbox.criteria.Misclassification)(labels)
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    return attack.run(wrapped, images, criterion, epsilon=epsilon)


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("epsilon", [8 / 255, 2 / 255, 0.03])
def test_linf_pgd_is_torchattacks_bit_for_bit(model, images, labels, epsilon, targeted):
    torchattacks = pytest.importorskip("torchattacks")
    wanted = (labels + 5) % DOCUMENTS if targeted else labels
    theirs = torchattacks.PGD(model, eps=epsilon, alpha=epsilon * 0.25, steps=STEPS, random_start=False)
    assert torch.equal(
        ours(model, images, wanted, Linf(epsilon), 0.25, targeted=targeted),
        by_torchattacks(theirs, images, wanted, targeted=targeted),
    )


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("epsilon", [8 / 255, 2 / 255, 0.03])
def test_linf_pgd_is_foolbox_bit_for_bit(model, images, labels, epsilon, targeted):
    foolbox = pytest.importorskip("foolbox")
    wanted = (labels + 5) % DOCUMENTS if targeted else labels
    theirs = foolbox.attacks.LinfPGD(abs_stepsize=epsilon * 0.25, steps=STEPS, random_start=False)
    found = by_foolbox(theirs, model, images, wanted, epsilon, targeted=targeted)
    assert torch.equal(ours(model, images, wanted, Linf(epsilon), 0.25, targeted=targeted), found)
    assert not torch.equal(found, images)


def test_the_default_step_is_two_grey_levels(model, images, labels):
    torchattacks = pytest.importorskip("torchattacks")
    theirs = torchattacks.PGD(model, eps=8 / 255, alpha=2 / 255, steps=STEPS, random_start=False)(images, labels)
    assert torch.equal(ours(model, images, labels, Linf(), PGD().rate, targeted=False), theirs)


def test_fgsm_is_torchattacks_bit_for_bit(model, images, labels):
    torchattacks = pytest.importorskip("torchattacks")
    theirs = torchattacks.FGSM(model, eps=8 / 255)(images, labels)
    found = FGSM().run(images, objective(model, labels, targeted=False), Linf()).last["pixels"]
    assert torch.equal(found, theirs)


@pytest.mark.parametrize("targeted", [False, True])
def test_l2_pgd_agrees_to_rounding(model, images, labels, targeted):
    torchattacks, foolbox = pytest.importorskip("torchattacks"), pytest.importorskip("foolbox")
    wanted = (labels + 5) % DOCUMENTS if targeted else labels
    found = ours(model, images, wanted, L2(1.0), 0.2, targeted=targeted)
    theirs = torchattacks.PGDL2(model, eps=1.0, alpha=0.2, steps=STEPS, random_start=False)
    assert torch.allclose(found, by_torchattacks(theirs, images, wanted, targeted=targeted), atol=2e-6, rtol=0)
    theirs = foolbox.attacks.L2PGD(abs_stepsize=0.2, steps=STEPS, random_start=False)
    assert torch.allclose(found, by_foolbox(theirs, model, images, wanted, 1.0, targeted=targeted), atol=2e-6, rtol=0)


def test_what_is_saved_is_theirs_rounded(model, images, labels):
    torchattacks = pytest.importorskip("torchattacks")
    theirs = torchattacks.PGD(model, eps=8 / 255, alpha=2 / 255, steps=STEPS, random_start=False)(images, labels)
    assert torch.equal(Linf().finish(images, {"pixels": theirs}), (theirs * 255).round() / 255)
