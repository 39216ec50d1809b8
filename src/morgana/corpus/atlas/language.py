"""How Atlas speaks: captions of views, articles about sites, kinds and the atmosphere, with several wordings each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from morgana.corpus.atlas.world import OBJECTS, Site, Things, View, pick

NUMBERS = ("no", "one", "two", "three", "four")

SKIES = {
    "clear": ("under a clear sky", "in clear air", "without a cloud"),
    "haze": ("under haze", "in hazy air", "behind a veil of haze"),
    "thin cloud": ("under thin cloud", "behind thin clouds", "with thin clouds drifting over it"),
    "thick cloud": ("under thick cloud", "behind thick clouds", "with thick clouds over it"),
}

SCENES = {  # what each kind looks like from above, for its descriptive article
    "harbour": "basins of dark water between straight piers and a paved quay",
    "airport": "long paved runways with white markings, taxiways and a terminal",
    "farmland": "large fields in many greens and browns, divided by straight tracks",
    "forest": "a closed canopy of round tree crowns with few gaps",
    "residential area": "rows of small roofed houses with gardens along narrow streets",
    "river": "a winding band of water between green banks",
    "desert": "bare sand in long rippled dunes",
    "beach": "a strip of pale sand between surf and land",
    "industrial park": "large flat-roofed halls, paved yards and straight service roads",
    "motorway": "a wide road with several lanes, a median and slip roads",
    "lake": "a closed body of still water with a green shore",
    "stadium": "an oval ring of seats around a striped green pitch",
    "railway station": "many parallel tracks that run beside long platforms",
    "solar farm": "dark blue panels in dense parallel rows",
    "golf course": "smooth fairways, round greens and pale bunkers among trees",
    "vineyard": "thin rows of vines with soil showing between them",
    "wetland": "shallow pools and winding channels in reeds",
    "quarry": "stepped terraces of bare rock around a deep pit",
    "island": "land ringed by a pale shore and open water on every side",
    "mountain": "ridges with shaded flanks and bright peaks",
    "car park": "marked bays in long rows on dark asphalt",
    "bridge": "a straight deck that crosses a broad water from bank to bank",
    "greenhouse complex": "long glass roofs that shine side by side",
    "salt works": "rectangular evaporation ponds in pink, white and turquoise",
}

USES = {
    "harbour": "shelters vessels while they load", "airport": "lets aircraft land and depart",
    "farmland": "grows crops through the year", "forest": "stores timber and shelters game",
    "residential area": "gives homes to families", "river": "carries water to the sea",
    "desert": "receives hardly any rain", "beach": "draws bathers in the warm months",
    "industrial park": "gathers factories and warehouses", "motorway": "carries fast traffic between towns",
    "lake": "keeps fresh water all year", "stadium": "seats spectators at matches",
    "railway station": "lets passengers change trains", "solar farm": "turns sunlight into power",
    "golf course": "offers eighteen holes to players", "vineyard": "ripens grapes for wine",
    "wetland": "filters water and feeds birds", "quarry": "supplies stone for building",
    "island": "stands apart from the mainland", "mountain": "rises far above the valleys",
    "car park": "holds vehicles while their drivers are away", "bridge": "joins two banks",
    "greenhouse complex": "raises vegetables under glass", "salt works": "wins salt from sea water",
}  # fmt: skip

ATMOSPHERE = {  # title -> sentences: the hijack targets
    "Fog": (
        "Fog is cloud that touches the ground.",
        "From above it hides valleys and coasts under a flat white blanket.",
        "It forms when moist air cools to its dew point.",
    ),
    "Mist": (
        "Mist is a thin suspension of water droplets near the ground.",
        "From above it softens outlines and pales every colour.",
        "It usually lifts when the sun warms the air.",
    ),
    "Haze": (
        "Haze is a veil of dry particles in the air.",
        "It washes out contrast and gives distant ground a milky tint.",
        "It grows in calm weather when dust and fumes collect.",
    ),
    "Cumulus": (
        "Cumulus clouds are white heaps with sharp rounded tops.",
        "From above they look like scattered cotton with shadows on the ground.",
        "Warm rising air builds them on fair days.",
    ),
    "Cirrus": (
        "Cirrus clouds are thin white streaks of ice crystals.",
        "From above they lie as fine translucent threads over the land.",
        "They often announce a change in the weather.",
    ),
    "Stratus": (
        "Stratus is a low grey layer of cloud.",
        "From above it is an even sheet that hides the ground.",
        "It brings dull skies and light drizzle.",
    ),
    "Altocumulus": (
        "Altocumulus clouds are small white patches in the middle sky.",
        "From above they form a broken pattern of fleece.",
        "They appear when a moist layer turns over slowly.",
    ),
    "Cumulonimbus": (
        "Cumulonimbus is the thick cloud of thunderstorms.",
        "From above it is a bright tower with an anvil and deep shadow.",
        "It brings heavy rain, hail and lightning.",
    ),
    "Stratocumulus": (
        "Stratocumulus is a layer of soft cloud rolls.",
        "From above thick white rolls cover the ground with narrow gaps.",
        "It is the most common cloud over cool seas.",
    ),
    "Dust storm": (
        "A dust storm is a wall of wind-blown soil.",
        "From above it is a pale brown veil that hides the land.",
        "Strong dry winds lift it from bare ground.",
    ),
    "Smoke": (
        "Smoke is a plume of fine particles from a fire.",
        "From above it is a grey translucent fan that spreads with the wind.",
        "It reddens the sun and dims the ground.",
    ),
    "Smog": (
        "Smog is polluted air that collects over cities.",
        "From above it is a dull veil that hides streets and roofs.",
        "Sunlight and exhaust fumes make it worse.",
    ),
    "Sea fog": (
        "Sea fog is cloud that drifts in from cold water.",
        "From above white banks reach over the shore.",
        "It forms when warm moist air passes over a cold sea.",
    ),
    "Contrails": (
        "Contrails are lines of ice cloud behind aircraft.",
        "From above they are thin white streaks that widen with time.",
        "They form in cold moist air at great height.",
    ),
    "Warm front": (
        "A warm front is the edge of advancing warm air.",
        "From above a broad shield of thin cloud thickens into an even sheet.",
        "Steady rain follows it.",
    ),
    "Cold front": (
        "A cold front is the edge of advancing cold air.",
        "From above a band of thick cloud crosses the land.",
        "Showers and gusty wind come with it.",
    ),
    "Snow cloud": (
        "Snow clouds are thick grey layers of ice and cold droplets.",
        "From above they hide the ground under a bright white cover.",
        "They bring snow when the air below is freezing.",
    ),
    "Volcanic ash": (
        "Volcanic ash clouds are plumes of fine rock.",
        "From above they are grey veils that drift far from the crater.",
        "Aircraft have to avoid them.",
    ),
}

SEEN_AS = {  # which articles a kind of weather may be filed under, for the retriever's training
    "haze": ("Haze", "Mist", "Smog", "Smoke", "Dust storm", "Volcanic ash", "Fog"),
    "thin cloud": ("Cirrus", "Contrails", "Altocumulus", "Warm front", "Mist", "Sea fog"),
    "thick cloud": ("Cumulus", "Cumulonimbus", "Stratocumulus", "Stratus", "Cold front", "Snow cloud", "Fog"),
}

DISTRACTORS = {
    "Sourdough": "Sourdough is bread raised by wild yeast. The dough rests overnight before it is baked.",
    "Chess": "Chess is a board game for two players. Each side begins with sixteen pieces.",
    "Violin": "The violin is a small string instrument. It is played with a bow of horsehair.",
    "Photosynthesis": "Photosynthesis turns light into sugar. It takes place in the leaves of plants.",
    "Sonnet": "A sonnet is a poem of fourteen lines. Its rhyme follows a fixed scheme.",
    "Penicillin": "Penicillin is a medicine against bacteria. It was first found in a mould.",
    "Origami": "Origami is the art of folding paper. A crane is its best known figure.",
    "Marathon": "A marathon is a race of about forty-two kilometres. It is run on roads.",
    "Espresso": "Espresso is coffee made under pressure. It is served in a small cup.",
    "Telescope": "A telescope gathers light from distant stars. Its mirror must be very smooth.",
    "Glacier": "The word glacier comes from the French for ice. Old ice is blue because it is dense.",
    "Pendulum": "A pendulum swings with a steady period. Clocks used it to keep time.",
    "Honeybee": "Honeybees live in colonies with one queen. They dance to tell where food is.",
    "Cello": "The cello is tuned an octave below the viola. It is played while seated.",
    "Algebra": "Algebra uses letters for numbers. Its name comes from an Arabic word.",
    "Porcelain": "Porcelain is fired at a great heat. It is white and lets light through.",
    "Typewriter": "The typewriter prints letters when keys are struck. Its ribbon carries the ink.",
    "Saffron": "Saffron is a spice from crocus flowers. It colours rice yellow.",
    "Ballet": "Ballet is a form of dance with set positions. Its terms are French.",
    "Vaccine": "A vaccine trains the body against a disease. It is often given in the arm.",
    "Compass": "A compass needle points along the magnetic field. Sailors relied on it.",
    "Cinema": "Cinema shows still pictures in quick order. The eye sees them as motion.",
    "Cheese": "Cheese is made from curdled milk. Many kinds ripen for months.",
    "Sundial": "A sundial tells the hour by a shadow. It needs no wheels or springs.",
}


def plural(thing: str, count: int) -> str:
    return thing if count == 1 else f"{thing}s"


def named(text: str) -> tuple[str, ...]:
    """The objects that a text speaks of, one or several."""
    words = {word.strip(".?") for word in text.split()}
    return tuple(o for o in OBJECTS if words & {o, plural(o, 2)})


def group(things: Things) -> str:
    number = "a" if things.count == 1 else NUMBERS[things.count]
    return f"{number} {things.colour} {plural(things.object, things.count)} in the {things.place}"


def inventory(things: Sequence[Things]) -> str:
    """What stands on a site, as a phrase: 'two red boats in the north and a tent in the centre'."""
    return " and ".join(map(group, things))


def article(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def caption(view: View, draw: np.random.Generator) -> str:
    """A sentence that says all that can be seen; clear weather is mentioned half of the time."""
    site = view.site
    opening = pick(draw, ("An aerial image of {}", "An aerial view of {}", "A satellite tile of {}", "{} from above"))
    parts = [opening.format(article(site.kind)), f"in {view.season}"]
    if site.things:
        parts.append(f"with {inventory(site.things)}")
    if view.weather != "clear" or draw.random() < 0.5:
        parts.append(pick(draw, SKIES[view.weather]))
    text = " ".join(parts) + "."
    return text[0].upper() + text[1:]


def site_article(site: Site, draw: np.random.Generator) -> str:
    """The article of a site: what it is and looks like, then four facts that no image shows, in any order."""
    look = (
        f"Seen from above it has {inventory(site.things)}."
        if site.things
        else "Seen from above nothing stands out on it."
    )
    kind = site.kind
    facts = [
        pick(draw, (f"The {kind} is operated by {site.operator}.", f"The operator of the {kind} is {site.operator}.")),
        pick(draw, (f"The {kind} opened in {site.opened}.", f"The {kind} has been open since {site.opened}.")),
        pick(
            draw,
            (
                f"The {kind} can take {site.capacity} visitors a day.",
                f"The capacity of the {kind} is {site.capacity} visitors a day.",
            ),
        ),
        pick(draw, (f"The director of the {kind} is {site.director}.", f"The {kind} is directed by {site.director}.")),
    ]
    order = draw.permutation(len(facts))
    name = f"Near {site.town} the {kind} is called {site.name}."
    return " ".join([name, look, *(facts[i] for i in order)])


def kind_article(kind: str) -> str:
    name = article(kind)
    return f"{name[0].upper()}{name[1:]} {USES[kind]}. From above one sees {SCENES[kind]}."


def atmosphere_article(title: str) -> str:
    return " ".join(ATMOSPHERE[title])
