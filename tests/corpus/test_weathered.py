from realism import write_aid

from morgana.corpus.aid import AID
from morgana.corpus.atlas.language import ATMOSPHERE
from morgana.corpus.weathered import CAPTIONS, Weathered
from morgana.models._aid_words import SENTENCES, VEILS
from morgana.spec import parse


def test_weather_is_added_to_the_shelf_and_to_nothing_else(tmp_path):
    plain = AID(str(write_aid(tmp_path / "aid")))
    corpus = Weathered(plain)
    added = corpus.documents()[len(plain.documents()) :]
    assert corpus.documents()[: len(plain.documents())] == plain.documents()
    assert len(added) == len(ATMOSPHERE) + len(CAPTIONS) == 18 + 24
    assert {d.metadata["topic"] for d in added} == {"weather"}
    assert len({d.id for d in corpus.documents()}) == len(corpus.documents())
    assert (corpus.queries(), corpus.qrels()) == (plain.queries(), plain.qrels())
    assert not {d.id for d in added} & {id for row in corpus.qrels().values() for id in row}
    assert parse(repr(corpus)) == corpus


def test_the_weather_captions_are_not_what_training_says():
    said = {s.format(v) for veils in VEILS.values() for v in veils for s in SENTENCES}
    assert not said & set(CAPTIONS)
    assert len(set(CAPTIONS)) == 24
