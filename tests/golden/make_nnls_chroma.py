"""Makes nnls_chroma.npz: what the authors' own NNLS Chroma plugin says of a sound, to compare ours with.

    git clone https://github.com/c4dm/nnls-chroma
    python tests/golden/make_nnls_chroma.py nnls-chroma

Needs g++. The plugin's sources (GPL) are compiled as they are, less Chordino, with the host below, which gives them
spectra of Hann-windowed frames as a Vamp host does, and writes out what they return; only those numbers are kept.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.sounds import chords, drums

RATE, SIZE, HOP = 44100, 16384, 2048
HEADER = """
#pragma once
#include <cmath>
#include <iostream>
#include <map>
#include <string>
#include <vector>
namespace Vamp {
struct RealTime {};
struct Plugin {
  using string = std::string;
  virtual ~Plugin() {}
  enum InputDomain { TimeDomain, FrequencyDomain };
  struct OutputDescriptor {
    enum SampleType { OneSamplePerStep, FixedSampleRate, VariableSampleRate } sampleType;
    string identifier, name, description, unit;
    bool hasFixedBinCount, hasKnownExtents, isQuantized, hasDuration;
    size_t binCount;
    std::vector<string> binNames;
    float minValue, maxValue, quantizeStep, sampleRate;
  };
  struct ParameterDescriptor {
    string identifier, name, description, unit;
    float minValue, maxValue, defaultValue, quantizeStep;
    bool isQuantized;
    std::vector<string> valueNames;
  };
  struct Feature {
    bool hasTimestamp, hasDuration;
    RealTime timestamp, duration;
    std::vector<float> values;
    string label;
  };
  using OutputList = std::vector<OutputDescriptor>;
  using ParameterList = std::vector<ParameterDescriptor>;
  using ProgramList = std::vector<string>;
  using FeatureList = std::vector<Feature>;
  using FeatureSet = std::map<int, FeatureList>;
  Plugin(float rate) : m_inputSampleRate(rate) {}
  float m_inputSampleRate;
};
}
"""
HOST = """
#include <cstdio>
#include "NNLSChroma.h"
int main(int, char **names) {
  FILE *in = fopen(names[1], "rb"), *out = fopen(names[2], "wb");
  NNLSChroma plugin(44100);
  plugin.initialise(1, 2048, 16384);
  plugin.getOutputDescriptors();  // numbers its outputs
  std::vector<float> spectrum(16386);
  const float *channel = spectrum.data();
  auto write = [&](const Vamp::Plugin::FeatureList &rows) {
    for (auto &row : rows) fwrite(row.values.data(), 4, row.values.size(), out);
  };
  while (fread(spectrum.data(), 4, spectrum.size(), in) == spectrum.size())
    write(plugin.process(&channel, Vamp::RealTime())[0]);  // log-frequency spectrum
  auto rest = plugin.getRemainingFeatures();
  write(rest[2]);  // semitone spectrum
  write(rest[5]);  // bass and treble chroma, from A on
  fclose(out);
}
"""


def sound() -> np.ndarray:
    """Four seconds that are sung by nobody: plucked chords over drums."""
    return chords(4.0, RATE) + drums(4.0, RATE)


def main(source: Path) -> None:
    """Compiles, runs, writes."""
    samples = sound()
    count = len(samples) // HOP + 1
    padded = np.pad(samples.astype(np.float64), SIZE // 2)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(SIZE) / SIZE)
    spectra = np.fft.rfft([padded[i * HOP : i * HOP + SIZE] * window for i in range(count)])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "vamp-sdk").mkdir()
        (folder / "vamp-sdk" / "Plugin.h").write_text(HEADER)
        (folder / "host.cpp").write_text(HOST)
        methods = (source / "chromamethods.cpp").read_text()
        methods = re.split(r"static\s+std::vector<std::string>\s+getPluginPath", methods)[
            0
        ]  # what follows is Chordino's
        (folder / "methods.cpp").write_text(re.sub(r".*boost.*", "", methods))
        np.stack([spectra.real, spectra.imag], axis=-1).astype(np.float32).tofile(folder / "in")
        own = [str(source / file) for file in ("NNLSBase.cpp", "NNLSChroma.cpp", "nnls.c")]
        flags = ["-O1", "-w", "-fpermissive", f"-I{folder}", f"-I{source}"]
        subprocess.run(
            ["g++", *flags, "-o", f"{folder}/host", f"{folder}/host.cpp", f"{folder}/methods.cpp", *own], check=True
        )
        subprocess.run([f"{folder}/host", f"{folder}/in", f"{folder}/out"], check=True)
        told = np.fromfile(folder / "out", np.float32)
    log, notes, chroma = np.split(told, np.cumsum([256, 84]) * count)
    np.savez_compressed(
        Path(__file__).with_name("nnls_chroma.npz"),
        log_spectra=log.reshape(count, 256),
        notes=notes.reshape(count, 84),
        chroma=np.roll(chroma.reshape(count, 2, 12), -3, axis=2).reshape(count, 24),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
