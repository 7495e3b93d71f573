"""Makes `spectral.npz`: what librosa (0.11) makes of a short sound, and two of its filterbanks.

Needs librosa; from the repository's root:

    PYTHONPATH=. python tests/golden/make_spectral.py
"""

from __future__ import annotations

from pathlib import Path

import librosa
import numpy as np

from tests.sounds import RATE, chords

SECONDS = 0.25


def main() -> None:
    """Writes the archive beside this script."""
    sound = chords(SECONDS)
    golden = {
        "stft": librosa.stft(sound, n_fft=512, hop_length=256).T,
        "mel": librosa.feature.melspectrogram(y=sound, sr=RATE, n_fft=512, hop_length=256, n_mels=96).T,
        "filters": librosa.filters.mel(sr=RATE, n_fft=512, n_mels=96).T,
        "filters_between": librosa.filters.mel(sr=22050, n_fft=1024, n_mels=40, fmin=30, fmax=8000).T,
    }
    path = Path(__file__).with_name("spectral.npz")
    np.savez_compressed(path, **golden)
    print(path.stat().st_size, "bytes;", *(f"{name} {array.shape}" for name, array in golden.items()))


if __name__ == "__main__":
    main()
