"""Does the right article spoil an answer that was right without it, does its place matter, and does BAIR cure that?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from morgana.corpus.atlas.corpus import Atlas
from morgana.eval.experiment import Experiment
from morgana.generation.generators.hf import HF
from morgana.generation.interventions.bair import BAIR
from morgana.retrieval.encoders.openclip import OpenCLIP
from morgana.retrieval.stages.oracle import Oracle


def recorruption(sites: int = 240, limit: int = 300, k: int = 3, seed: int = 0) -> Iterator[Experiment]:
    """No article, then the right article first, in the middle and last among k, each without and with BAIR.

    Expect knowledge questions to be unanswerable without an article and answered with it, wherever it stands if the
    model reads well, best at the ends if it does not ("lost in the middle"). Visual and presence questions need no
    article: where they get worse with one, that is recorruption. Conflict questions set article against image: the
    model that trusts its eyes keeps them right. BAIR gives the image its attention back, so it should cure some of the
    recorrupted at little cost to knowledge; its paper gives no figures to compare with.
    """
    world = Atlas(sites=sites, seed=seed, weather="clear")
    plain, restored = HF("atlas"), HF("atlas", interventions=(BAIR(),))
    alone = Experiment(world, OpenCLIP("atlas"), plain, stages=(Oracle(world, "none"),), k=k, limit=limit, seed=seed)
    yield alone
    for place in ("first", "middle", "last"):
        read = replace(alone, stages=(Oracle(world, place),))
        yield read
        yield replace(read, generator=restored)
