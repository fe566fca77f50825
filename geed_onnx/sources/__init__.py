"""Images with stable ids, and what is done to them before they are a model's input.

A source is opened from its address (`open_source`), drawn from (`draw_distinct`), read one image at a time
(`Source.items`), sized and coloured (`sized`: here the group acts), and brought to what the network expects
(`normalised`)::

    source = open_source("photos/")
    how = preprocessing_for(input_shape=(None, 3, 224, 224), input_layout="NCHW", input_dtype="float32",
                            metadata={}, model_folder=None, flags={})
    for name, raw in source.items(draw_distinct(source, 50, None, seed=0).sample):
        x = sized(raw, how)            # (C, H, W) float32 in 0..1
        y = normalised(x, how)         # the model's input, without the batch axis

A further form of source is one `Form` registered in `sources`, here or through the entry point group
`geed_onnx.sources`.
"""

from geed_onnx.sources.arrays import ArraySource, as_images
from geed_onnx.sources.declared import declared_input, preprocessing_for
from geed_onnx.sources.drawing import Drawing, draw, draw_distinct, permuted
from geed_onnx.sources.fingerprint import Fingerprint, fingerprint
from geed_onnx.sources.folder import IMAGE_SUFFIXES
from geed_onnx.sources.hub import open_hub
from geed_onnx.sources.kept import KeptSource
from geed_onnx.sources.plausible import plausible
from geed_onnx.sources.preprocessing import Preprocessing, normalised, sized
from geed_onnx.sources.source import Form, Options, Source, clusters_of, open_source, sources
from geed_onnx.sources.tables import TableSource
