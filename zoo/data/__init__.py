"""A folder of music → windows per split, cached on disk, and batches that any step can be resumed from.

The same for sound with labels, and for songs with chords and sections, which are read anew each time.

corpus = load_corpus("my_midis/", get_codec("melody"))
for batch in batches(corpus.train, batch_size=64, seed=0): batch["x"]  # [64, T, ...]
"""

from zoo.data.batches import Augment, Examples, batches, bucketed, count_of, named, take
from zoo.data.corpus import Corpus, load_corpus, load_pieces
from zoo.data.files import find
from zoo.data.labelled import Labelled, load_labelled
from zoo.data.songs import Song, Songs, load_songs, read_songs

__all__ = [
    "Augment",
    "Corpus",
    "Examples",
    "Labelled",
    "Song",
    "Songs",
    "batches",
    "bucketed",
    "count_of",
    "find",
    "load_corpus",
    "load_labelled",
    "load_pieces",
    "load_songs",
    "named",
    "read_songs",
    "take",
]
