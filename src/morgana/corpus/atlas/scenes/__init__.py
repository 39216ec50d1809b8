"""One painter per kind of scene, from a bare canvas to the ground that things stand on."""

from __future__ import annotations

from collections.abc import Callable

from morgana.corpus.atlas.canvas import Canvas
from morgana.corpus.atlas.scenes import built, country, water, works

Painter = Callable[[Canvas], None]

SCENES: dict[str, Painter] = {
    "harbour": water.harbour, "river": water.river, "beach": water.beach, "lake": water.lake,
    "wetland": water.wetland, "island": water.island, "bridge": water.bridge, "salt works": water.salt_works,
    "farmland": country.farmland, "forest": country.forest, "desert": country.desert,
    "golf course": country.golf_course, "vineyard": country.vineyard, "mountain": country.mountain,
    "airport": built.airport, "residential area": built.residential_area, "motorway": built.motorway,
    "stadium": built.stadium, "railway station": built.railway_station, "car park": built.car_park,
    "industrial park": works.industrial_park, "solar farm": works.solar_farm, "quarry": works.quarry,
    "greenhouse complex": works.greenhouse_complex,
}  # fmt: skip
