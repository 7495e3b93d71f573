"""What a user sees and hears of notes: piano rolls, plots, sound, and one-page reports.

Everything takes `Score`s. Matplotlib, SciPy and soundfile are imported by what needs them, when it is called.
"""

from __future__ import annotations

from zoo.show.audio import audio_status, render, write_wav
from zoo.show.html import Item, page
from zoo.show.plots import histograms
from zoo.show.roll import piano_roll
from zoo.show.sheet import Group, Written, file_stems, write_all, write_groups, write_midi

__all__ = [
    "Group",
    "Item",
    "Written",
    "audio_status",
    "file_stems",
    "histograms",
    "page",
    "piano_roll",
    "render",
    "write_all",
    "write_groups",
    "write_midi",
    "write_wav",
]
