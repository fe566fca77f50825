"""What is asked, whole: one frozen value that the command line, a suite and Python all make.

Every setting is declared here once: its default, what it may be, how the command line and a suite ask for it, and
whether a number depends on it. `geed_onnx.measure` makes a `Request` of keywords, `geed_onnx.cli.options` of options,
`geed_onnx.suites` of tables; whoever measures takes it as it is.

>>> request = request_of("model.onnx", "images/", "C8", samples=20)
>>> request.settings.samples, request.settings.level, request.runtime.provider
(20, 0.95, 'auto')
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from geed_onnx.errors import DataError, UnknownName, UsageError, suggestion

if TYPE_CHECKING:
    from geed_onnx.actions import Interpolation, Mask
    from geed_onnx.groups import Group
    from geed_onnx.variants import Variant

T = TypeVar("T")
#: What a setting may be: how the command line and a suite read it. `acts`, `scores`, `constants` and `table` are
#: mappings, `taps` and `variants` tuples.
Form = Literal[
    "text", "whole", "share", "switch", "word", "provider", "samples", "taps", "variants", "acts", "scores",
    "constants", "table", "size", "range", "channels", "divisors",
]  # fmt: skip
MAPPINGS, TUPLES = ("acts", "scores", "constants", "table"), ("taps", "variants")


# --- how a field is asked for -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """How a field is asked for."""

    form: Form
    help: str = ""
    """of the option; without it the command line has none"""
    option: str = ""
    """how the option is spelled, where it is not the field's name"""
    metavar: str = ""
    room: Literal["measure", "input", "images"] = "measure"
    """whether the option says how is measured, how the model's input is made, or what is done to images"""
    expected: str = ""
    """what a suite says was expected, where the form does not tell"""
    words: tuple[str, ...] = ()
    """those that it may be"""
    least: int | None = None
    axis: bool = False
    """whether a suite has a list of it, one job for each, and not a key of a table"""
    keyed: Literal["other", "always", "no"] = "other"
    """of settings: in a cell's key where it is not the default, always, or never (no number depends on it alone)"""
    told: bool = False
    """whether a Result has a place of its own for it; else it is in `runtime["settings"]` where it is another"""


def asked(form: Form, help: str = "", *, default: Any = None, **how: Any) -> Any:
    """Return a field with its default and how it is asked for; `MISSING` is no default."""
    metadata = {"asked": Asked(form, help, **how)}
    if form in MAPPINGS:
        return field(default_factory=Entries, metadata=metadata)
    return field(default=default, metadata=metadata)


def asked_of(made: Any) -> Iterator[tuple[Field[Any], Asked]]:
    """Yield the fields of one of the classes below, or of one made, with how each is asked for."""
    for each in fields(made):
        if "asked" in each.metadata:
            yield each, each.metadata["asked"]


class Entries(Mapping[str, Any]):
    """A mapping that stays as it is, and so can be hashed."""

    def __init__(self, of: Mapping[str, Any] | None = None) -> None:
        self._of = dict(of or {})

    def __getitem__(self, name: str) -> Any:
        return self._of[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._of)

    def __len__(self) -> int:
        return len(self._of)

    def __hash__(self) -> int:
        return hash(frozenset(self._of))

    def __repr__(self) -> str:
        return repr(self._of)


@dataclass(frozen=True, eq=False)
class Constant:
    """An array as a value: equal to another of the same type, shape and numbers."""

    array: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Constant) and self._whole() == other._whole()

    def __hash__(self) -> int:
        return hash(self._whole())

    def _whole(self) -> tuple[str, tuple[int, ...], bytes]:
        return str(self.array.dtype), self.array.shape, self.array.tobytes()


def _settled(made: Any) -> None:
    """Bring the fields of a value that is made into the form they have, and refuse what cannot be meant.

    Raises
    ------
    UnknownName
        If a word is not among those of its field.
    UsageError
        If a number is too small, or a share does not lie between 0 and 1.
    """
    for each, how in asked_of(made):
        value, word = getattr(made, each.name), each.name.replace("_", " ")
        if how.form in MAPPINGS:
            object.__setattr__(made, each.name, Entries(value))
        elif value is None and each.default is None:
            continue
        elif how.form in TUPLES:
            object.__setattr__(made, each.name, tuple(value) or None)
        elif how.words and value not in how.words:
            raise UnknownName(word, str(value), how.words)
        elif how.least is not None and value < how.least:
            raise UsageError(f"{word} must be at least {how.least}, not {value}")
        elif how.form == "share" and not 0 < value < 1:
            raise UsageError(f"{word} must lie between 0 and 1 (0.95 is 95 %), not {value}")


# --- what is asked ----------------------------------------------------------------------------------------------

#: What is done to images, over what the file declares: the keys of `preprocessing`.
PREPROCESSING: Mapping[str, Asked] = {
    "size": Asked("size", "Height and width of the model's input.", metavar="HxW", expected="height and width"),
    "fit": Asked(
        "word", "How an image comes to that size.", metavar="resize|crop|pad|none",
        words=("resize", "crop", "pad", "none"),
    ),
    "resize": Asked(
        "size", "With --fit crop: resize to this first.", metavar="N|HxW", expected="a side, or height and width"
    ),
    "colour": Asked("word", "What the model's channels are.", metavar="grey|rgb|bgr", words=("grey", "rgb", "bgr")),
    "range": Asked("range", "What black and white become, as 0,1.", metavar="LO,HI", expected="two numbers"),
    "mean": Asked("channels", "Subtracted after the range.", metavar="M[,M,M]", expected="one number, or three"),
    "std": Asked("divisors", "Divided by after the mean.", metavar="S[,S,S]", expected="one number, or three"),
    "resample": Asked(
        "word", "How images are resized.", metavar="bilinear|…",
        words=("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Model:
    """A network, which of its taps are measured, and how the group acts on them.

    `name`, `family`, `seed` and `step` are what a suite calls it; models of one family are copies of one another but
    for chance (seeds), and get an interval over models.
    """

    path: Any = asked("text", default=MISSING, expected="the path of an ONNX file, or a pattern of paths")
    """of an ONNX file, as it is opened: relative to the working directory, absolute, or (in a suite) an address that
    fsspec knows; or a `Session`; or a callable `(B, C, H, W) -> {tap: (B, …)}`"""
    name: str = asked("text", default="", expected="a text")
    family: str | None = asked("text", expected="a text")
    seed: int | None = asked("whole", least=0)
    """which copy of its family"""
    step: int | None = asked("whole", least=0)
    """training step of a checkpoint"""
    taps: tuple[str, ...] | None = asked(
        "taps", "A tensor, a module path or a glob.", option="--tap", metavar="NAME[:KIND]",
        expected="NAME[:KIND], or a list of them",
    )  # fmt: skip
    """`NAME[:KIND]`: tensor names, module paths or globs; None: the stage ends, the latent and the scores"""
    acts: Mapping[str, str | Mapping[str, Any]] = asked(
        "acts", "What the group does to a tap: trivial, pixels, permute:AXIS:i,j,…, roll:AXIS:STEPS.", option="--act",
        metavar="TAP=ACTION", expected='a table of actions by tap, as in { logits = "permute:1:1,0" }',
    )  # fmt: skip
    """{tap: output action}, as `--act` takes them, or as `geed.taps` declares fields (`geed_onnx.actions.fields`)"""
    declared_action: bool = asked(
        "switch", "Measure naively where the file declares channel actions.", default=True,
        option="--no-declared-action",
    )  # fmt: skip
    """whether the channel actions that the file declares are used"""
    scores: Mapping[str, str] = asked(
        "scores", "What a tap's scores are, over what the graph shows.", metavar="TAP=logits|probabilities",
        expected='a table of "logits" or "probabilities" by tap',
    )  # fmt: skip
    """{tap: `logits` or `probabilities`}: what scores are, over what the graph shows"""
    input: str | None = asked(
        "text", "The input the group acts on.", metavar="NAME", room="input", expected="the name of an input"
    )
    layout: str | None = asked(
        "word", "Of input and maps, where the graph does not tell.", metavar="NCHW|NHWC", room="input",
        words=("NCHW", "NHWC"), expected='"NCHW" or "NHWC"',
    )  # fmt: skip
    constants: Mapping[str, float | str | Constant] = asked(
        "constants", "A value for a further input: a number, or a .npy file.", option="--constant", room="input",
        metavar="NAME=VALUE", expected="a table of numbers or .npy files by input",
    )  # fmt: skip
    """{input: value} of the further inputs: a number, an array, or the path of a .npy file"""
    preprocessing: Mapping[str, Any] = asked("table", expected="a table of preprocessing")
    """{word of `PREPROCESSING`: value}, over what the file declares and what is said of the data"""

    def __post_init__(self) -> None:
        if isinstance(self.path, os.PathLike):
            object.__setattr__(self, "path", os.fspath(self.path))
        given = {n: Constant(v) if hasattr(v, "tobytes") else v for n, v in (self.constants or {}).items()}
        object.__setattr__(self, "constants", given)
        _settled(self)

    @property
    def called(self) -> dict[str, Any]:
        """What a Result's `model` has of it, where it is said."""
        said = {"name": self.name, "family": self.family, "seed": self.seed, "step": self.step}
        return {k: v for k, v in said.items() if v not in (None, "")}


@dataclass(frozen=True)
class Data:
    """The images, and what is done to them."""

    source: Any = asked("text", default=MISSING, expected="the path of a file or folder, or hf:NAME[:SPLIT]")
    """an address (`images/`, `x.npz`, `t.parquet`, `hf:NAME:SPLIT`), or a `Source`; an array `(N, …)` becomes one, and
    is used as the model's input as it is"""
    name: str = asked("text", default="", expected="a text")
    column: str | None = asked(
        "text", "The image column of a table, the array of an .npz.", metavar="NAME", room="images",
        expected="the name of a column",
    )  # fmt: skip
    cluster: str | None = asked(
        "text", "Names each image's cluster (patient, scene), the unit of intervals: a column, an array, or folder.",
        metavar="COLUMN", expected='the name of a column, or "folder"',
    )  # fmt: skip
    """what names each image's cluster, which is then the unit of uncertainty: a column of the table, an array of the
    `.npz`, or `folder` for the folder that an image lies in; None: each image is its own"""
    skip_bad: bool = asked("switch", "Leave unreadable images out, and say so.", default=False, room="images")
    streaming: bool | None = asked(
        "switch", "Read a data set as a stream.", option="--streaming/--no-streaming", room="images"
    )
    preprocessing: Mapping[str, Any] = asked("table", expected="a table of preprocessing")
    """as that of a model, which is over it"""

    def __post_init__(self) -> None:
        if isinstance(self.source, os.PathLike):
            object.__setattr__(self, "source", os.fspath(self.source))
        elif not isinstance(self.source, str):
            object.__setattr__(self, "source", _as_source(self.source))
        _settled(self)


@dataclass(frozen=True)
class Settings:
    """The numbers of a measurement."""

    variants: tuple[str | Variant, ...] | None = asked(
        "variants", "A name, or KIND:ACTION:DISTANCE[:NORMALISER].", option="--variant", metavar="V", axis=True,
        keyed="no",
    )  # fmt: skip
    """names or the general form `KIND:ACTION:DISTANCE[:NORMALISER]`; None: the paper's five"""
    samples: int | Literal["all"] | None = asked(
        "samples",
        "Images drawn with the seed, or all; copies of one count once.  [default: 50, or as many as there are]",
        metavar="N|all", axis=True, keyed="no",
    )  # fmt: skip
    """N images drawn with the seed, or `all` in order; None: 50, or as many as there are. Copies of an image (of its
    file, its cell, its row) are counted once, and notes say so"""
    seed: int = asked("whole", "Of the draw of images.", default=0, metavar="S", least=0, axis=True, keyed="always")
    spread_samples: int | None = asked(
        "whole", "Images for the spread M.  [default: up to 200]", metavar="N", least=2, keyed="no"
    )
    """points for M; None: 200, or as many as there are"""
    reference_samples: int | None = asked(
        "whole", "Images for floor and null.  [default: all of the sample]", metavar="N", least=0, keyed="always"
    )
    """images on which floor and null are taken; None: all of the sample"""
    level: float = asked(
        "share", "Of the intervals.", default=0.95, metavar="P", keyed="always",
        expected="a number between 0 and 1 (95 % is written 0.95)",
    )  # fmt: skip
    floor: bool = asked(
        "switch", "Measure the floor of invariance variants, by extra passes.", default=False, keyed="always"
    )
    """whether the floor of trivially acted taps is computed, by extra forward passes on g⁻¹(g x)"""
    mask: Mask = asked(
        "word", "Zero outside the inscribed disc; auto: where a turn resamples.", default="auto",
        metavar="auto|disc|none", words=("auto", "disc", "none"), keyed="no",
    )  # fmt: skip
    """`disc`: everything outside the inscribed disc is set to 0, at the input and at maps alike; `none`: nothing is;
    `auto`: the disc where an element of the group resamples"""
    interpolation: Interpolation = asked(
        "word", "How turns by no multiple of 90° resample, input and maps alike.", default="bilinear",
        metavar="nearest|bilinear|bicubic", words=("nearest", "bilinear", "bicubic"), told=True,
    )  # fmt: skip
    """how turns that are no permutation of the grid resample, at the input and at maps alike; over- and undershoots of
    `bicubic` are kept in floating-point images"""
    batch_size: int | None = asked(
        "whole", "Rows of one forward pass.  [default: fitting]", metavar="N", least=1, keyed="no"
    )
    """rows (images × elements) of one forward pass; None: as many as fit 16 MB of taps (64 MB on a device)"""

    def __post_init__(self) -> None:
        _settled(self)

    @property
    def keyed(self) -> dict[str, Any]:
        """Those of which numbers depend, as a cell's key names them."""
        always = {f.name: getattr(self, f.name) for f, how in asked_of(self) if how.keyed == "always"}
        return always | self._other(lambda how: how.keyed == "other")

    @property
    def told(self) -> dict[str, Any]:
        """Those of which numbers depend, that are not the default and that a Result has no place of its own for."""
        return self._other(lambda how: how.keyed == "other" and not how.told)

    @property
    def unusual(self) -> dict[str, Any]:
        """Those that are not the default, but for what a suite has a list of."""
        return self._other(lambda how: not how.axis)

    def _other(self, wanted: Callable[[Asked], bool]) -> dict[str, Any]:
        # named only where it is another: what was measured before there was a choice keeps its key
        some = [f for f, how in asked_of(self) if wanted(how)]
        return {f.name: getattr(self, f.name) for f in some if getattr(self, f.name) != f.default}


@dataclass(frozen=True)
class Runtime:
    """What the model runs on."""

    provider: str = asked(
        "provider", "What the model runs on.", default="auto", metavar="auto|cpu|cuda|…", room="input",
        expected="auto, cpu, cuda, …",
    )  # fmt: skip
    threads: int | None = asked(
        "whole", "ONNX Runtime's threads.  [default: all cores]", metavar="N", least=1, room="input"
    )
    tf32: bool = asked(
        "switch", "TF32 on CUDA; off by default.", default=False, option="--tf32/--no-tf32", room="input"
    )

    def __post_init__(self) -> None:
        _settled(self)


@dataclass(frozen=True)
class Request:
    """One model, data set, group and sample: what one set of forward passes serves.

    Raises
    ------
    GeedError
        `UnknownName` for a group or a variant that there is not, `UsageError` for one that cannot be meant.
    """

    model: Model
    data: Data
    group: str | Group
    """`C8`, `D4`, `flip`, `T4`, … or a `Group`"""
    settings: Settings = field(default_factory=Settings)
    runtime: Runtime = field(default_factory=Runtime)

    def __post_init__(self) -> None:
        from geed_onnx.groups import parse_group

        if isinstance(self.group, str):
            parse_group(self.group)


#: Whose fields the keywords of `request_of` are, in the order in which options are shown.
PARTS = (Model, Settings, Data, Runtime)


def request_of(model: Any, data: Any, group: str | Group, **keywords: Any) -> Request:
    """Return a request from keywords, which are the fields of `Model`, `Data`, `Settings` and `Runtime`.

    `preprocessing` is that of the model, which is over any other.

    Raises
    ------
    TypeError
        If there is no such keyword.
    """
    names = [f.name for part in PARTS for f in fields(part) if f.name not in ("path", "source")]
    for name in keywords:
        if name not in names:
            raise TypeError(f"unexpected keyword argument {name!r}{suggestion(name, names)}")
    settings, runtime = of_fields(Settings, keywords), of_fields(Runtime, keywords)
    about = of_fields(Data, {**keywords, "source": data, "name": "", "preprocessing": {}})
    return Request(of_fields(Model, {**keywords, "seed": None, "path": model}), about, group, settings, runtime)


def of_fields(part: type[T], values: Mapping[str, Any]) -> T:
    """Return one of the classes above from those of the values that are its fields."""
    names = [f.name for f in fields(part)]  # type: ignore[arg-type]
    return part(**{name: values[name] for name in names if name in values})


def _as_source(data: Any) -> Any:
    """Return an array `(N, …)` as a source that is used as it is; a source is one."""
    if hasattr(data, "items") and hasattr(data, "as_is"):
        return data
    if not (hasattr(data, "ndim") and hasattr(getattr(data, "dtype", None), "kind")):
        raise UsageError(f"data: expected an address, an array or a Source, got {type(data).__name__}")
    from geed_onnx.sources import ArraySource

    if data.ndim < 2 or data.dtype.kind not in "fiu":
        raise DataError(f"expected an array (images, …) of numbers, got {data.dtype} of shape {data.shape}")
    return ArraySource("array", data)
