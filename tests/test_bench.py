"""Benchmarks: rows of a tiny architecture, operations counted, the results' CSV and table, the PyTorch twin."""

from __future__ import annotations

import csv
import math
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from benchmarks import table
from zoo import registry
from zoo.errors import InputError
from zoo.models import music_vae
from zoo.nn.precision import rounded
from zoo.nn.recurrent import LSTM
from zoo.tasks import bench
from zoo.tasks.model import dotted, fill

TWIN = Path(__file__).parent.parent / "benchmarks" / "peers" / "pytorch"


@dataclass(frozen=True)
class Config:
    steps: int = 5


class Toy(nnx.Module):
    def __init__(self, config: Config, *, rngs: nnx.Rngs) -> None:
        self.kernel = nnx.Param(jnp.eye(3))

    def __call__(self, x: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda h, x: (h @ self.kernel[...] + x, None), jnp.zeros_like(x[0]), x)[0]


TOY = replace(
    registry.architecture("music-vae"),
    name="toy",
    config=Config,
    module=Toy,
    loss=lambda model, batch, key, step: (jnp.sum(model(batch["x"]) ** 2), {}),
    example=lambda config, batch, rng: {"x": rng.standard_normal((config.steps, batch, 3), dtype=np.float32)},
    kernels={"forward": lambda model, batch, key: model(batch["x"])},
    prepare=None,
)


@pytest.fixture(scope="module")
def rows() -> list[bench.Row]:
    return bench.measure("toy/one", TOY, Config(), (1, 4), seconds=0.01)


def test_measures_each_kernel_at_each_size_and_training_at_the_largest(rows: list[bench.Row]) -> None:
    assert [(row["operation"], row["batch"]) for row in rows] == [("forward", 1), ("forward", 4), ("train", 4)]
    for row in rows:
        assert tuple(row) == bench.FIELDS
        assert row["runs"] >= 3
        assert 0 < row["median_s"] <= row["p90_s"] < row["compile_s"]
        assert row["cached_compile_s"] > 0
        assert row["sequences_per_s"] == pytest.approx(row["batch"] / row["median_s"])
        assert row["steps_per_s"] == pytest.approx(5 * row["sequences_per_s"])
        assert 0 < row["share_of_matmul"] == row["gflops_per_s"] / row["matmul_gflops_per_s"]
        assert row["share_of_matmul"] < 1
        assert row["memory_mb"] > 0
    assert rows[0]["gflops_per_s"] * 1e9 * rows[0]["median_s"] == pytest.approx(2 * 5 * 3 * 3)


def test_rounds_factors_on_request() -> None:
    formats = []

    def forward(model: Toy, batch: dict[str, jax.Array], key: jax.Array) -> jax.Array:
        formats.append(rounded(model.kernel[...]).dtype)
        return model(batch["x"])

    rows = bench.measure("toy/one", replace(TOY, kernels={"forward": forward}), Config(), (1,), 0.01, "bfloat16")
    assert rows[0]["system"] == "zoo bfloat16"
    assert formats[0] == jnp.bfloat16
    with pytest.raises(InputError, match="precision 'half' is not known"):
        bench.bench("music-vae", precision="half")


def test_leaves_the_compilation_cache_as_it_was(tmp_path: Path) -> None:
    before = jax.config.jax_compilation_cache_dir
    with bench.fresh_compilation_cache():
        assert jax.config.jax_compilation_cache_dir != before
        assert jax.config.jax_persistent_cache_min_compile_time_secs == 0
    assert jax.config.jax_compilation_cache_dir == before
    assert jax.config.jax_persistent_cache_min_compile_time_secs > 0


def test_counts_as_xla_does_where_there_is_no_loop() -> None:
    def layer(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return x @ kernel

    def convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.conv(x, kernel, (1, 1), "VALID")

    for function, shapes in ((layer, ((7, 5), (5, 3))), (convolution, ((2, 3, 8, 8), (4, 3, 3, 3)))):
        args = [jnp.ones(shape) for shape in shapes]
        counted = jax.jit(function).lower(*args).cost_analysis()["flops"]
        assert bench.matmul_flops(function, *args) == pytest.approx(counted, rel=0.02)


def test_counts_a_loop_as_often_as_it_runs() -> None:
    steps, batch, inputs, units = 6, 4, 3, 5
    lstm = LSTM(inputs, units, memory=steps, rngs=nnx.Rngs(0))
    graph, params = nnx.split(lstm)

    def run(params: nnx.State, x: jax.Array) -> jax.Array:
        lstm = nnx.merge(graph, params)
        return jnp.sum(lstm(x, lstm.constant_gates(), lstm.zeros(batch))[0])

    x = jnp.ones((steps, batch, inputs))
    forward = 2 * steps * batch * (inputs + units) * 4 * units
    assert bench.matmul_flops(run, params, x) == forward
    # Backwards: the kernel's gradient costs as much again, h's gradient the recurrent part of it, the bias' is a
    # product with ones, x's isn't needed.
    backward = forward + 2 * steps * batch * (units + 1) * 4 * units
    assert bench.matmul_flops(jax.grad(run), params, x) == forward + backward


def test_knows_that_a_while_loop_hides_its_trips() -> None:
    def run(x: jax.Array) -> jax.Array:
        return jax.lax.while_loop(lambda x: jnp.sum(x) < 9, lambda x: x @ x, x)

    assert math.isnan(bench.matmul_flops(run, jnp.eye(3)))
    assert bench.matmul_flops(lambda p, x: jax.lax.cond(p, lambda x: x @ x, lambda x: x, x), True, jnp.eye(3)) == 54


@pytest.mark.parametrize("batch", [1, 2])
def test_counts_the_decoder_as_its_equations_say(batch: int) -> None:
    config = music_vae.Config.tiny()
    (units, _), latent = config.decoder, config.latent
    function, args = bench.program(registry.architecture("music-vae"), config, "decode", batch)
    start = latent * 4 * units + latent * 4 * units  # the first state, and the gates' constant share
    step = units * 4 * units + 2 * units * 4 * units + units * config.width  # a token picks its row: no product
    assert bench.matmul_flops(function, *args) == 2 * batch * (start + config.steps * step)


def test_refuses_what_makes_no_sense(tmp_path: Path) -> None:
    for sizes in ((), (0, 4)):
        with pytest.raises(InputError, match="batch_sizes"):
            bench.bench("music-vae", batch_sizes=sizes)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="can't be written"):
        bench.write_csv([], tmp_path / "file" / "speed.csv")


def test_csv_keeps_rows_and_leaves_unknowns_empty(rows: list[bench.Row], tmp_path: Path) -> None:
    bench.write_csv([*rows, {"system": "peer", "memory_mb": None}], tmp_path / "new" / "speed.csv")
    with open(tmp_path / "new" / "speed.csv", newline="") as file:
        read = list(csv.DictReader(file))
    assert list(read[0]) == list(bench.FIELDS)
    assert float(read[0]["median_s"]) == pytest.approx(rows[0]["median_s"], rel=1e-5)
    assert read[-1]["system"] == "peer"
    assert read[-1]["memory_mb"] == read[-1]["batch"] == ""


def test_table_has_medians_of_rounds_and_says_what_nobody_measured(tmp_path: Path) -> None:
    same = {"device": "a box, 1 core", "platform": "cpu", "model": "m/v", "version": "1"}
    measured = [
        same | {"system": "peer", "operation": "decode", "batch": 64, "sequences_per_s": rate, "median_s": 1.0}
        for rate in (100, 1000, 3000)
    ]
    measured.append(same | {"system": "zoo", "operation": "train", "batch": 512, "median_s": 4.0, "cores_used": 0.5})
    bench.write_csv(measured, tmp_path / "box.csv")
    lines = table.markdown(tmp_path).splitlines()
    assert "| a box, 1 core | peer (1) | not measured | 1,000 | not measured | not measured |" in lines
    assert "| a box, 1 core | zoo (1) | not measured | not measured | not measured | 0.25 |" in lines
    for device in ("GPU", "TPU"):
        assert f"| {device} | zoo | not measured | not measured | not measured | not measured |" in lines
    assert "not measured" in table.markdown(tmp_path / "nothing")
    table.plot(measured, tmp_path / "box.png")
    assert (tmp_path / "box.png").read_bytes().startswith(b"\x89PNG")


def test_new_rows_take_the_place_of_old_ones(tmp_path: Path) -> None:
    """A batch is a number in a row, and text in the file."""

    def row(system: str, batch: int, seconds: float) -> bench.Row:
        return {"model": "toy/one", "operation": "decode", "system": system, "batch": batch, "median_s": seconds}

    path, same = tmp_path / "rows.csv", ("model", "operation", "batch")
    table.put([row("zoo", 1, 0.5), row("peer", 1, 0.7), row("zoo", 8, 0.9)], path, same)
    table.put([row("zoo", 1, 0.25)], path, same)
    rows = table.read(tmp_path)
    assert [(row["system"], row["batch"], row["median_s"]) for row in rows] == [
        ("zoo", "8", "0.9"),
        ("zoo", "1", "0.25"),
    ]


def test_table_replaces_what_stands_between_the_marks() -> None:
    text = f"# Title\n{table.BEGIN}\nold\n{table.END}\nrest"
    assert table.insert(text, "new") == f"# Title\n{table.BEGIN}\nnew\n{table.END}\nrest"
    assert table.insert(table.insert(text, "new"), "new") == table.insert(text, "new")
    with pytest.raises(ValueError, match="marks"):
        table.insert("# Title", "new")


@pytest.mark.slow
def test_the_pytorch_twin_computes_the_same(tmp_path: Path) -> None:
    """In the twin's own environment (`benchmarks/peers/README.md`)."""
    python = TWIN / ".venv" / "bin" / "python"
    if not python.exists():
        pytest.skip("the PyTorch peer isn't installed: see benchmarks/peers/README.md")
    config = music_vae.Config(steps=8, classes=(12,), latent=6, encoder=(7,), decoder=(5, 5))
    rng = np.random.default_rng(0)
    shapes = nnx.to_flat_state(nnx.state(music_vae.MusicVAE(config, rngs=nnx.Rngs(0))))
    weights = {dotted(path): rng.standard_normal(leaf.shape, dtype=np.float32) for path, leaf in shapes}
    model = fill(music_vae.MusicVAE, config, weights, "twin")
    batch = music_vae.example(config, 3, rng)
    x, z = jnp.asarray(batch["x"]), jnp.asarray(batch["z"])
    previous = music_vae.shift(config, x)
    np.savez(tmp_path / "in.npz", x=x, z=z, previous=previous, **weights)
    subprocess.run([python, TWIN / "bench.py", "--logits", tmp_path / "in.npz", tmp_path / "out.npz"], check=True)
    theirs = np.load(tmp_path / "out.npz")
    mean, scale = music_vae.encode(model, x)
    for name in ("logits", "one_pass"):
        np.testing.assert_allclose(theirs[name], model.logits(z, previous)[0], atol=1e-4)
    np.testing.assert_allclose(theirs["mean"], mean, atol=1e-4)
    np.testing.assert_allclose(theirs["scale"], scale, atol=1e-4)
    greedy = music_vae.decode(model, z, jax.random.key(0), jnp.zeros(()))
    np.testing.assert_array_equal(theirs["greedy"], greedy)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("AMD EPYC", "AMD EPYC, family 26"),
        ("AMD EPYC 9654 96-Core Processor", "AMD EPYC 9654 96-Core Processor"),
    ],
)
def test_processors_of_a_cloud_are_told_apart(name: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"processor\t: 0\ncpu family\t: 26\nmodel name\t: {name}\n\n" * 2
    monkeypatch.setattr(bench.Path, "read_text", lambda path: text)
    assert bench._processor() == expected
