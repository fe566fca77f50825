"""A model of any framework in, an ONNX file with named taps and `geed.*` metadata out.

One exporter a framework, each a function and a command (`geed-export pytorch timm:resnet50 -o resnet50.onnx`), each in
an environment of its own. An exporter builds an `Export`; `write` gives it metadata, runs it beside the framework and
leaves a file only where the two agree.
"""

from geed_exporters.candidates import Candidate, select
from geed_exporters.errors import Differs, ExportError, MissingFramework, NotExportable
from geed_exporters.export import Export, InputSpec, Source, TapEntry
from geed_exporters.facts import Facts, read_facts
from geed_exporters.writing import Written, write

__all__ = [
    "Candidate",
    "Differs",
    "Export",
    "ExportError",
    "Facts",
    "InputSpec",
    "MissingFramework",
    "NotExportable",
    "Source",
    "TapEntry",
    "Written",
    "read_facts",
    "select",
    "write",
]
