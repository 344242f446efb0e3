"""Keep transformers and bitsandbytes from writing to the terminal: rooms return, the edge prints."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Within it, transformers shows no progress bar and neither library logs less than an error.

    What is silenced is advice (an INT8 matrix product casts its input to float16; an optional compiled kernel is not
    installed), never a failure: those are raised. The former settings come back at the end.
    """
    from transformers.utils import logging as transformers_logging

    bitsandbytes = logging.getLogger("bitsandbytes")
    level, verbosity = bitsandbytes.level, transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    bitsandbytes.setLevel(logging.ERROR)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        bitsandbytes.setLevel(level)
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
