"""SmoothGuard with ten noisy copies, against eleven generations one after the other."""

from __future__ import annotations

from _measure import Result, Setting, fastest

from morgana.corpus.atlas import Atlas
from morgana.corpus.images import load
from morgana.defenses.smoothguard import SmoothGuard
from morgana.generation.generators.hf import HF
from morgana.types import Hit


def bench(setting: Setting) -> list[Result]:
    generator = HF(setting.generator, max_new_tokens=setting.choose(32, 4))
    guard = SmoothGuard(generator, sigma=0.05, n=10)
    world = Atlas(sites=3)
    query = world.queries()[0]
    assert query.image is not None
    image, hits = load(query.image), tuple(Hit(d, 0.5) for d in world.documents()[:2])
    copies = guard.candidates(image, query)

    def sequential() -> None:
        for copy in copies:
            generator.generate([copy], [query], [hits])

    def ours() -> None:
        guard.generate([image], [query], [hits])

    ours()
    seconds = fastest(setting.choose(3, 1), ours=ours, bare=sequential)
    detail = f"{seconds['ours']:.2f} s against {seconds['bare']:.2f} s"
    return [Result("SmoothGuard(n=10) / 11 generations", seconds["ours"] / seconds["bare"], 0.6, detail=detail)]
