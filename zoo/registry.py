"""Names → cards and architectures, by convention: no table to keep.

A card is `checkpoints/<family>/<variant>/card.toml`; its architecture "music-vae" is `ARCHITECTURE` in
`zoo/models/music_vae.py`. A bare family name means its default variant. Listing reads cards only, so it needs no JAX.
"""

from __future__ import annotations

import difflib
import importlib
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from zoo.errors import CardError, InputError
from zoo.weights.cards import Card, checkpoint_roots, find_cards, load_card

if TYPE_CHECKING:
    from zoo.models.architecture import Architecture


def list_models(pattern: str = "*", task: str | None = None, pretrained: bool | None = None) -> list[str]:
    """Ids of the models, sorted, such as "music-vae/mel-2bar".

    Args:
      pattern: shell wildcards over the id; a bare family name means all of its variants.
      task: only models of this task, e.g. "latent".
      pretrained: only models with weights (True) or without (False).
    """
    ids = [i for i in find_cards(checkpoint_roots()) if fnmatchcase(i, pattern) or i.split("/")[0] == pattern]
    if task is None and pretrained is None:
        return ids
    cards = {i: info(i) for i in ids}
    return [
        i
        for i, card in cards.items()
        if (task is None or card.task == task) and (pretrained is None or card.pretrained == pretrained)
    ]


def info(name: str) -> Card:
    """The card of a model: "family/variant", or "family" for its default variant.

    Raises:
      InputError: no such model; the message suggests the nearest names.
      CardError: the card is not correct.
    """
    paths = find_cards(checkpoint_roots())
    if name in paths:
        return load_card(paths[name])
    family = [i for i in paths if i.split("/")[0] == name]
    defaults = [card for card in map(load_card, (paths[i] for i in family)) if card.default or len(family) == 1]
    if len(defaults) == 1:
        return defaults[0]
    if family:
        raise CardError(f"{name}: needs exactly one variant with `default = true`; choose one of {', '.join(family)}")
    known = [*paths, *sorted({i.split("/")[0] for i in paths})]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else "`zoo list` shows what there is"
    raise InputError(f"no model named {name!r}; {hint}")


def architecture(name: str) -> Architecture:
    """The architecture "music-vae" from `zoo.models.music_vae`."""
    module = "zoo.models." + name.replace("-", "_")
    try:
        found: Architecture = importlib.import_module(module).ARCHITECTURE
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise CardError(f"no architecture named {name!r}: there is no {module.replace('.', '/')}.py") from None
    return found


def cite(name: str) -> str:
    """The BibTeX entry of a model's paper."""
    return info(name).citation.bibtex.strip()
