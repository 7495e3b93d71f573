"""A folder of music → windows per split, cached on disk, and batches that any step can be resumed from.

corpus = load_corpus("my_midis/", get_codec("melody"))
for batch in batches(corpus.train, batch_size=64, seed=0): batch["x"]  # [64, T, ...]
"""

from zoo.data.batches import Augment, batches
from zoo.data.corpus import Corpus, load_corpus
from zoo.data.files import find

__all__ = ["Augment", "Corpus", "batches", "find", "load_corpus"]
