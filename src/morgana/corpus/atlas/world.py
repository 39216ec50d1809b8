"""What exists in Atlas: kinds of scene, things that can be counted, sites with facts, and views of them.

A site never changes; a view is one tile of it, in a season, a light and a weather. Everything follows from the
seed and the site's number, so a world can be as large as one likes and two worlds of one seed agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from morgana.seeds import rng

KINDS = (
    "harbour", "airport", "farmland", "forest", "residential area", "river", "desert", "beach",
    "industrial park", "motorway", "lake", "stadium", "railway station", "solar farm", "golf course", "vineyard",
    "wetland", "quarry", "island", "mountain", "car park", "bridge", "greenhouse complex", "salt works",
)  # fmt: skip
OBJECTS = ("boat", "plane", "truck", "tank", "tent")  # what can be counted
COLOURS = ("red", "blue", "yellow", "white", "black", "pink")
PLACES = (
    "centre", "north", "north-east", "east", "south-east", "south", "south-west", "west", "north-west",
)  # fmt: skip
SEASONS = ("spring", "summer", "autumn", "winter")
LIGHTS = ("morning", "noon", "evening")
WEATHERS = ("clear", "haze", "thin cloud", "thick cloud")

USUAL = {  # the objects that a kind of scene tends to have, which is what makes presence questions hard
    "boat": {"harbour", "river", "beach", "lake", "island", "bridge", "wetland"},
    "plane": {"airport", "desert", "stadium", "golf course", "mountain"},
    "truck": {
        "industrial park",
        "motorway",
        "quarry",
        "car park",
        "farmland",
        "salt works",
        "residential area",
    },
    "tank": {
        "industrial park",
        "railway station",
        "greenhouse complex",
        "solar farm",
        "salt works",
        "airport",
    },
    "tent": {"forest", "mountain", "desert", "golf course", "vineyard", "beach", "farmland"},
}

ONSETS = (
    "Alder", "Barn", "Bel", "Brack", "Cald", "Carn", "Cor", "Dal", "Dun", "Elm", "Fair", "Fen", "Gar", "Glen", "Hal",
    "Hart", "Kel", "Kings", "Lang", "Lin", "Mar", "Mer", "Nor", "Oak", "Pen", "Quen", "Raven", "Ros", "Sel", "Stan",
    "Thorn", "Tor", "Up", "Vel", "Wes", "Whit", "Win", "Wyn", "Yar", "Zel",
)  # fmt: skip
ENDINGS = (
    "bridge", "brook", "bury", "by", "combe", "cote", "dale", "den", "field", "ford", "gate", "ham", "hurst", "leigh",
    "low", "mere", "mouth", "ness", "port", "row", "stead", "stow", "thorpe", "ton", "wick",
)  # fmt: skip
FIRMS = (
    "Northgate", "Bluewater", "Sterling", "Harrow", "Meridian", "Castell", "Aurora", "Pinnacle", "Redstone", "Silverline",
    "Oakridge", "Lantern", "Falcon", "Granite", "Harvest", "Keystone", "Lodestar", "Monarch", "Nimbus", "Orchard",
    "Paragon", "Quantum", "Rosewood", "Summit", "Trident", "Union", "Vanguard", "Westfall", "Zenith", "Anchor",
    "Beacon", "Cascade", "Delta", "Ember", "Frontier", "Garland", "Horizon", "Ironbark", "Juniper", "Kestrel",
)  # fmt: skip
TRADES = (
    "Holdings", "Logistics", "Partners", "Services", "Trust", "Group", "Works", "Estates", "Council", "Company",
    "Authority", "Brothers", "Ventures", "Industries", "Cooperative", "Management", "Systems", "Society", "Agency", "Union",
)  # fmt: skip
GIVEN = (
    "Ines", "Omar", "Clara", "Viktor", "Maya", "Jonas", "Leila", "Pavel", "Rosa", "Hugo", "Nadia", "Felix", "Greta", "Samir",
    "Elena", "Marcus", "Yuki", "Anton", "Farah", "Oscar", "Priya", "Bruno", "Tessa", "Ivan", "Alma", "Karim", "Selma", "Otto",
    "Dalia", "Emil", "Vera", "Luca", "Mina", "Theo", "Zara", "Arlo", "Petra", "Niko", "Edith", "Rafael",
)  # fmt: skip
FAMILY = (
    "Calder", "Okafor", "Lindqvist", "Moreau", "Haddad", "Novak", "Castro", "Fischer", "Tanaka", "Brennan", "Kaplan", "Silva",
    "Dubois", "Petrov", "Larsen", "Mendez", "Archer", "Bianchi", "Cohen", "Duarte", "Eriksen", "Fontaine", "Gupta", "Holm",
    "Ibrahim", "Jansen", "Keller", "Lowe", "Marsh", "Nakamura", "Osman", "Pereira", "Quinn", "Rossi", "Sato", "Turner",
    "Ueda", "Vargas", "Weber", "Young",
)  # fmt: skip


@dataclass(frozen=True)
class Things:
    """A group of like objects, side by side at one place of the tile."""

    object: str
    colour: str
    count: int  # 1 … 4
    place: str


@dataclass(frozen=True)
class Site:
    """A named place: what can be seen of it (kind, things) and what cannot (operator, opened, capacity, director)."""

    number: int
    name: str
    kind: str
    things: tuple[Things, ...]  # 0 … 2 groups at different places, at most 4 objects in all
    town: str
    operator: str
    opened: int
    capacity: int  # visitors a day
    director: str
    seed: int  # of the layout, for the renderer


@dataclass(frozen=True)
class View:
    """One tile of a site."""

    site: Site
    season: str
    light: str
    weather: str
    seed: int  # of the weather's pattern and the small changes between two visits, for the renderer


def site(seed: int, number: int) -> Site:
    """Site `number` of the world `seed`; the facts are drawn independently of everything that can be seen."""
    look = rng(seed, "look", number)
    facts = rng(seed, "facts", number)
    kind = KINDS[int(look.integers(len(KINDS)))]
    return Site(
        number=number,
        name=f"{place_name(facts)} {kind.title()}",
        kind=kind,
        things=things(look, kind),
        town=place_name(facts),
        operator=f"{pick(facts, FIRMS)} {pick(facts, TRADES)}",
        opened=int(facts.integers(1870, 2020)),
        capacity=int(facts.integers(2, 100)) * 100,
        director=f"{pick(facts, GIVEN)} {pick(facts, FAMILY)}",
        seed=int(look.integers(2**31)),
    )


def view(seed: int, site: Site, number: int, weather: str | None = None) -> View:
    """Visit `number` to a site; 60 % of visits are clear unless `weather` says otherwise."""
    draw = rng(seed, "view", site.number, number)
    natural = WEATHERS[int(draw.choice(len(WEATHERS), p=(0.6, 0.12, 0.14, 0.14)))]
    return View(
        site=site,
        season=pick(draw, SEASONS),
        light=pick(draw, LIGHTS),
        weather=natural if weather is None else weather,
        seed=int(draw.integers(2**31)),
    )


def things(draw: np.random.Generator, kind: str) -> tuple[Things, ...]:
    groups = int(draw.choice(3, p=(0.15, 0.5, 0.35)))
    objects = draw.permutation(len(OBJECTS)).tolist()
    usual = [o for o in objects if kind in USUAL[OBJECTS[o]]]
    if usual and draw.random() < 0.6:  # the first group is one that belongs here
        objects.remove(usual[0])
        objects.insert(0, usual[0])
    places = draw.permutation(len(PLACES))
    colours = draw.permutation(len(COLOURS))
    first = int(draw.integers(1, 5 if groups < 2 else 4))
    counts = (first, int(draw.integers(1, 5 - first)) if groups == 2 else 0)
    return tuple(
        Things(OBJECTS[objects[i]], COLOURS[int(colours[i])], counts[i], PLACES[int(places[i])]) for i in range(groups)
    )


@cache
def place_names() -> tuple[str, ...]:
    return tuple(a + b for a in ONSETS for b in ENDINGS)


def place_name(draw: np.random.Generator) -> str:
    return pick(draw, place_names())


def pick(draw: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(draw.integers(len(options)))]
