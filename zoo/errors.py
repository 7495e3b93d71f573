"""The errors a user can cause and mend. Each message is one line: what is wrong, in which file, what would help."""

from __future__ import annotations


class ZooError(Exception):
    """Base of every error the zoo raises on purpose; the CLI prints it as one line and exits with 1."""


class InputError(ZooError):
    """A file or value given by the user can't be used: unreadable, empty, polyphonic where a melody is needed, …"""


class WeightsError(ZooError):
    """Weights are missing, corrupted, unsafe to read, or do not fit the architecture."""


class CardError(ZooError):
    """A card or recipe has unknown keys, lacks required ones, or contradicts itself."""


class TrainingError(ZooError):
    """Training can't go on: no data, a loss that is not finite, a run directory that belongs to another recipe."""
