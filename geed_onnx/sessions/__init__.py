"""How a model runs: a `Session` maps a batch to `{tap: array}` and says what it really runs on.

>>> import numpy as np
>>> session = CallableSession(lambda x: {"double": 2 * x})
>>> session.run(np.ones((1, 1, 2, 2)))["double"].shape
(1, 1, 2, 2)
"""

from geed_onnx.sessions.providers import available_providers, cuda_devices, resolve_provider
from geed_onnx.sessions.runtime import RuntimeOptions, open_session
from geed_onnx.sessions.session import Array, CallableSession, Session, SessionFacts, sessions
