"""Every way in which a Flax model cannot become a file ends in one sentence and leaves none."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import flax_networks as fn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from click.testing import CliRunner, Result
from conftest import metadata
from flax import linen, nnx, serialization
from safetensors.numpy import save_file

from geed_exporters import Differs, ExportError, MissingFramework, NotExportable, write
from geed_exporters.cli import main
from geed_exporters.jax import export_jax, load, prepared
from geed_onnx.errors import UnknownName, UsageError

FACTS = {"size": 8, "channels": 3}


def command(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["jax", *map(str, arguments)])


# ---------------------------------------------------------------------------------------------------------- the model


class TwoInputs(nnx.Module):
    def __call__(self, image: jax.Array, mask: jax.Array) -> jax.Array:
        return image * mask


class NoInput(nnx.Module):
    def __call__(self, train: bool = False) -> jax.Array:
        return jnp.zeros((1, 2))


class NoCall(nnx.Module):
    def encode(self, x: jax.Array) -> jax.Array:
        return x


class IfPositive(nnx.Module):
    def __call__(self, x: jax.Array) -> jax.Array:
        return x if x.sum() > 0 else -x


class ThroughNumPy(nnx.Module):
    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.asarray(np.sort(x))


class PickedByMask(nnx.Module):
    def __call__(self, x: jax.Array) -> jax.Array:
        return x[x > 0]


class ByBatchLength(nnx.Module):
    def __call__(self, x: jax.Array) -> jax.Array:
        return x if x.shape[0] > 2 else -x


class FixedBatch(nnx.Module):
    def __call__(self, x: jax.Array) -> jax.Array:
        return x.reshape(1, -1)


class WrongWidth(nnx.Module):
    def __init__(self) -> None:
        self.fc = nnx.Linear(5, 2, rngs=nnx.Rngs(0))

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.fc(x)


class Callback(nnx.Module):
    def __call__(self, x: jax.Array) -> jax.Array:
        return x * jax.pure_callback(np.float32, jax.ShapeDtypeStruct((), jnp.float32), x.sum())


class Fourier(nnx.Module):
    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.abs(jnp.fft.fft2(x, axes=(1, 2)))


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (TwoInputs, r"TwoInputs takes several inputs \(image, mask\), expected one batch of images: write a factory"),
        (NoInput, r"NoInput.__call__ takes no input"),
        (NoCall, r"NoCall has no __call__"),
        (IfPositive, r"a tensor's values in Python \(test_jax_errors.py, line \d+\): data-dependent control flow"),
        (ThroughNumPy, r"a tensor's values in Python \(test_jax_errors.py, line \d+\): data-dependent control flow"),
        (PickedByMask, r"picks entries by a tensor of booleans \(test_jax_errors.py, line \d+\)"),
        (ByBatchLength, r"different lengths of the batch \(test_jax_errors.py, line \d+\) \(.*'B' > '2'"),
        (FixedBatch, r"no float tensor whose first axis is the batch B \(it returns \(1, 192\*B\)\)"),
        (WrongWidth, r"cannot be run on an image batch of shape \(B, 8, 8, 3\) \(test_jax_errors.py, line \d+\): "),
        (Callback, r"the operator 'pure_callback' has no ONNX form in jax2onnx"),
        (Fourier, r"an operator has \(.*FFT.*\) no ONNX form in jax2onnx"),
    ],
)
def test_models_without_an_onnx_form(model: type, said: str) -> None:
    with pytest.raises(NotExportable, match=said) as caught:
        export_jax(prepared((model(), FACTS), name="net.py:build"), taps=("*",))
    assert "\n" not in str(caught.value)


class AlwaysTraining(linen.Module):
    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return linen.BatchNorm(use_running_average=False)(x)


class AlwaysDropping(linen.Module):
    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return linen.Dropout(0.5, deterministic=False)(linen.Dense(3)(x))


@pytest.mark.parametrize("module", [AlwaysTraining(), AlwaysDropping()])
def test_training_mode(module: linen.Module) -> None:
    key = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    variables = module.init(key, jnp.zeros((1, 8, 8, 3)))
    with pytest.raises(NotExportable, match=r"runs in training mode .* take train=False"):
        export_jax(prepared((module, variables, FACTS), name="net.py:build"))


def test_unknown_tap_opset_and_layout() -> None:
    loaded = prepared(fn.net(), name="n")
    with pytest.raises(UnknownName, match=r"unknown module 'blocks.0.cnv': did you mean 'blocks.0.conv'"):
        export_jax(loaded, taps=("blocks.0.cnv",))
    with pytest.raises(UsageError, match="opset 30: expected 17 to 25"):
        export_jax(loaded, opset=30)
    with pytest.raises(UsageError, match="layout 'CHW': expected NHWC or NCHW"):
        export_jax(loaded, layout="CHW")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"latent": "fcc"}, r"unknown module 'fcc': did you mean 'fc'\?; given as the latent vector of n"),
        ({"scores": "fcc"}, r"unknown module 'fcc': did you mean 'fc'\?; given as the scores of n"),
        ({"blocks": ("stage.*",)}, r"unknown module 'stage.\*'.*given as a block of n"),
        ({"actions": {"fcc": "trivial"}}, r"unknown module 'fcc'.*given an action by n"),
    ],
)
def test_a_factory_that_names_what_is_not_there(facts: dict[str, Any], said: str) -> None:
    with pytest.raises(UnknownName, match=said):
        export_jax(prepared((fn.net()[0], {**fn.FACTS, **facts}), name="n"))


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"channels": 3}, r"net.py:build: the size of its images is not known; give --size HxW, or let the factory"),
        ({"size": 8}, r"net.py:build: the number of channels of its images is not known; give --channels N"),
        ({"size": (8, 8, 3), "channels": 3}, r"net.py:build: size: expected height and width in pixels.*\(8, 8, 3\)$"),
        ({"size": 8, "channels": 0}, r"net.py:build: channels: expected a whole number from 1, got 0$"),
        ({"size": 8, "channels": 3, "mean": (0.5, 0.5)}, r"build: mean: expected 1 number or 3, one a channel, got 2$"),
        ({"size": 8, "channels": 3, "range": 1}, r"net.py:build: range: expected two different numbers, .* got 1$"),
        ({"size": 8, "channels": 3, "colour": "grey"}, r"build: colour: expected 1 channel for grey, got 3$"),
        ({"size": 8, "colour": "rbg"}, r"net.py:build: colour: expected grey, rgb or bgr, got 'rbg'$"),
        ({"sise": 8}, r"unknown fact 'sise': did you mean 'size' or 'resize'\?; given by net.py:build$"),
        (8, r"net.py:build: expected a dict of facts \(size, channels, .*, got 8$"),
    ],
)
def test_input_facts(facts: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        prepared((NoCall(), facts), name="net.py:build")


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: 3, r"net.py:build returned int; expected an nnx.Module, or \(linen.Module, variables\)"),
        (AlwaysTraining, r"returned a linen module without its weights; expected \(module, variables\)"),
        (lambda: (NoCall(), FACTS, 1), r"returned 3 things; expected an nnx.Module, and a dict of facts"),
    ],
)
def test_what_a_factory_may_return(made: Callable[[], Any], said: str) -> None:
    with pytest.raises(ExportError, match=said):
        prepared(made(), name="net.py:build")


# ----------------------------------------------------------------------------------------------------------- the name


def test_names(tmp_path: Path, factory: Callable[[str], str]) -> None:
    with pytest.raises(UsageError, match=r"model 'flax:resnet50': expected FILE.py:FACTORY; there is no collection"):
        load("flax:resnet50")
    with pytest.raises(UsageError, match=r"model 'net': expected FILE.py:FACTORY"):
        load("net")
    with pytest.raises(ExportError, match=r"gone.py: no such file"):
        load(f"{tmp_path}/gone.py:build")
    with pytest.raises(UnknownName, match=r"unknown function 'biuld': did you mean 'build'"):
        load(factory("def build(): pass\n").replace(":build", ":biuld"))
    with pytest.raises(ExportError, match=r"fails when it is run: ZeroDivisionError"):
        load(factory("1 / 0\n"))
    with pytest.raises(ExportError, match=r"net.py:build\(\) fails: ValueError: no luck"):
        load(factory("def build(): raise ValueError('no luck')\n"))


@pytest.mark.parametrize("missing", ["jax", "flax", "jax2onnx"])
def test_a_framework_that_is_not_installed(missing: str, factory: Callable[[str], str]) -> None:
    name = factory("def build(): pass\n")
    code = f"""
import sys
sys.modules[{missing!r}] = None
from geed_exporters.cli import main
sys.argv = ["geed-export", "jax", {name!r}, "-o", "x.onnx"]
main()
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert run.stdout == ""
    assert run.stderr == (
        f"error: {missing} is not installed in this environment; install it with: pip install 'geed-onnx[jax]'\n"
    )


def test_missing_framework_is_its_own_class(monkeypatch: pytest.MonkeyPatch, factory: Callable[[str], str]) -> None:
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    with pytest.raises(MissingFramework):
        load(factory("def build(): pass\n"))


# -------------------------------------------------------------------------------------------------------- the weights


def nnx_state(seed: int) -> dict[str, Any]:
    """Return nested arrays of a `Net` of another seed."""
    model = fn.Net(rngs=nnx.Rngs(seed))
    fn.unsettle(model, seed)
    state: dict[str, Any] = nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.RngState)))
    return jax.tree.map(np.asarray, state)


def dotted(tree: Any, path: str = "") -> dict[str, np.ndarray[Any, Any]]:
    if not isinstance(tree, dict):
        return {path[1:]: np.ascontiguousarray(tree)}
    return {name: leaf for key, value in tree.items() for name, leaf in dotted(value, f"{path}.{key}").items()}


def save(state: dict[str, Any], path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file(dotted(state), path)
    elif path.suffix == ".msgpack":
        path.write_bytes(serialization.to_bytes(state))
    elif path.suffix == ".npz":
        np.savez(path, **{name.replace(".", "/"): array for name, array in dotted(state).items()})
    else:
        import orbax.checkpoint

        with orbax.checkpoint.StandardCheckpointer() as writer:
            writer.save(path.resolve(), state)
    return path


@pytest.mark.parametrize("kind", ["w.safetensors", "w.msgpack", "w.npz", "w"])
def test_weights_of_every_format(kind: str, tmp_path: Path, networks: Path) -> None:
    state = nnx_state(5)
    path = save(state, tmp_path / kind)
    loaded = load(f"{networks}:net", checkpoint=path)
    assert np.array_equal(loaded.model.blocks[1].conv.kernel[...], state["blocks"][1]["conv"]["kernel"])
    assert np.array_equal(loaded.model.again.norm.mean[...], state["again"]["norm"]["mean"])
    assert loaded.weights["file"] == kind
    assert len(loaded.weights["sha256"]) == 64


@pytest.mark.parametrize("whole", [True, False])
def test_weights_of_linen(whole: bool, tmp_path: Path, networks: Path) -> None:
    _, variables, _ = fn.linen_net()
    other = jax.tree.map(lambda a: a * 2 + 1, variables)
    # a training state that was saved whole, or the collections alone
    state = {"step": 7, "opt_state": {"mu": other["params"]}, **other} if whole else other
    loaded = load(f"{networks}:linen_net", checkpoint=save(state, tmp_path / "w.msgpack"))
    assert np.array_equal(loaded.variables["params"]["twice"]["kernel"], other["params"]["twice"]["kernel"])
    stats = loaded.variables["batch_stats"]["block_0"]["BatchNorm_0"]["var"]
    assert np.array_equal(stats, other["batch_stats"]["block_0"]["BatchNorm_0"]["var"])


def test_linen_parameters_alone_lack_the_batch_statistics(tmp_path: Path, networks: Path) -> None:
    _, variables, _ = fn.linen_net()
    path = save(variables["params"], tmp_path / "w.safetensors")
    with pytest.raises(ExportError, match=r"weights 'batch_stats.block_0.BatchNorm_0.mean', .* not in the file"):
        load(f"{networks}:linen_net", checkpoint=path)


def test_weights_that_do_not_fit(tmp_path: Path, networks: Path) -> None:
    name = f"{networks}:net"
    state = dotted(nnx_state(5))
    renamed = {k.replace("fc.kernel", "fc.kernal"): v for k, v in state.items()}
    save_file(renamed, tmp_path / "renamed.safetensors")
    with pytest.raises(
        ExportError,
        match=r"array 'fc.kernal' is in the file, but not in the model: did you mean 'fc.kernel'\?; weight 'fc.k",
    ):
        load(name, checkpoint=tmp_path / "renamed.safetensors")
    save_file({k: v for k, v in state.items() if not k.startswith("again.")}, tmp_path / "few.safetensors")
    with pytest.raises(ExportError, match=r"weights 'again.conv.bias', .* and 3 more are in the model, but not in"):
        load(name, checkpoint=tmp_path / "few.safetensors")
    save_file({**state, "fc.bias": np.zeros(7, np.float32)}, tmp_path / "wide.safetensors")
    with pytest.raises(ExportError, match=r"'fc.bias' has shape \(7,\), the model's has \(5,\)"):
        load(name, checkpoint=tmp_path / "wide.safetensors")
    np.savez(tmp_path / "words.npz", **{**state, "fc.bias": np.array(["a", "b", "c", "d", "e"])})
    with pytest.raises(ExportError, match=r"'fc.bias' holds <U1, not numbers"):
        load(name, checkpoint=tmp_path / "words.npz")


def test_files_that_hold_no_weights(tmp_path: Path, networks: Path) -> None:
    name = f"{networks}:net"
    with pytest.raises(ExportError, match=r"gone.npz: no such checkpoint; expected .safetensors, .msgpack"):
        load(name, checkpoint=tmp_path / "gone.npz")
    for suffix, what in (
        (".safetensors", "a safetensors file"),
        (".npz", "an .npz file"),
        (".msgpack", "a flax.seria"),
    ):
        path = tmp_path / f"words{suffix}"
        path.write_text("no weights at all", encoding="utf-8")
        with pytest.raises(ExportError, match=f"cannot be read as {what}"):
            load(name, checkpoint=path)
    (tmp_path / "weights.h5").write_bytes(b"12345")
    with pytest.raises(ExportError, match=r"weights.h5: expected .safetensors, .msgpack"):
        load(name, checkpoint=tmp_path / "weights.h5")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ExportError, match=r"empty: cannot be read as an Orbax checkpoint"):
        load(name, checkpoint=tmp_path / "empty")


class Armed:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("armed-pickle-was-run"),))


@pytest.mark.parametrize("suffix", [".pkl", ".msgpack", ".npz", ".safetensors"])
def test_a_pickle_is_refused_whatever_its_name(suffix: str, tmp_path: Path, networks: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"w{suffix}"
    path.write_bytes(pickle.dumps({"fc": Armed()}))
    with pytest.raises(ExportError, match=r"a pickle, which could run code when it is loaded, is not read; save"):
        load(f"{networks}:net", checkpoint=path)
    # an .npz of objects holds pickles inside
    np.savez(tmp_path / "objects.npz", **{"fc": np.array([Armed()], dtype=object)})
    with pytest.raises(ExportError, match=r"objects.npz: cannot be read as an .npz file .*allow_pickle"):
        load(f"{networks}:net", checkpoint=tmp_path / "objects.npz")
    assert not (tmp_path / "armed-pickle-was-run").exists()


# -------------------------------------------------------------------------------------------------------- the command


def test_sabotaged_export_leaves_no_file(tmp_path: Path) -> None:
    export = export_jax(prepared(fn.net(), name="n"))
    weight = max(export.model.graph.initializer, key=lambda i: int(np.prod(i.dims)))
    values = np.frombuffer(weight.raw_data, np.float32) * 1.01
    weight.raw_data = values.astype(np.float32).tobytes()
    with pytest.raises(Differs, match=r"the exported file differs from the framework: worst is .* no file was written"):
        write(export, tmp_path / "n.onnx")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(Differs, match="gave no 'fc'"):
        write(replace(export, reference=lambda x: {}, taps=export.taps[-1:]), tmp_path / "n.onnx")


def test_command_writes_a_file_and_prints_its_path(tmp_path: Path, factory: Callable[[str], str]) -> None:
    name = factory(
        "print('a chatty file')\n"
        "class Net(nnx.Module):\n"
        "    def __init__(self):\n"
        "        self.conv = nnx.Conv(1, 4, (3, 3), rngs=nnx.Rngs(0))\n"
        "        self.fc = nnx.Linear(4, 3, rngs=nnx.Rngs(1))\n"
        "    def __call__(self, x):\n"
        "        return self.fc(self.conv(x).mean((1, 2)))\n"
        "def build():\n"
        "    return Net()\n"
    )
    out = tmp_path / "n.onnx"
    facts = ("--size", "9x7", "--colour", "grey", "--range", "0,1", "--mean", "0.5", "--std", "0.25")
    done = command(name, "-o", out, "--layout", "NCHW", "--opset", 18, *facts)
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{out}\n"
    assert "weights are those that build() makes (random, unless it loads some); --checkpoint FILE" in done.stderr
    assert "3 taps; agrees with the framework to" in done.stderr
    said = metadata(out)
    assert said["geed.input"] | {"size": [9, 7], "layout": "NCHW", "channels": 1, "std": [0.25]} == said["geed.input"]
    assert [t["name"] for t in said["geed.taps"]] == ["conv", "fc.input", "fc"]

    listed = command(name, "--list", *facts)
    assert listed.exit_code == 0, listed.output
    assert [line.split()[-1] for line in listed.stdout.splitlines()] == ["conv", "fc.input", "fc"]
    assert listed.stdout.startswith("stage   map          4x9x7")

    unknown = command(name, "-o", out, "--tap", "cnv", *facts)
    assert unknown.exit_code == 2
    assert unknown.stderr.splitlines()[-1].startswith("error: unknown module 'cnv': did you mean 'conv'?")
    assert command(name, *facts).exit_code == 2
    assert "missing option '-o'" in command(name, *facts).stderr
    for flag, value, told in (
        ("--size", "9by7", "error: --size: expected height and width in pixels"),
        ("--mean", "half", "error: --mean: expected a number, or one a channel"),
    ):
        wrong = command(name, "-o", out, flag, value)
        assert wrong.exit_code == 2
        assert wrong.stderr.startswith(told)
    away = command(name, "-o", tmp_path / "n.pb", *facts)
    assert away.exit_code == 1
    assert "expected a file name that ends in .onnx" in away.stderr
