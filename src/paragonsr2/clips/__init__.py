"""Video files: decoding, encoding, remuxing, and segments that survive a kill."""

from importlib import import_module

from paragonsr2.errors import EnvironmentProblem

try:
    import_module("av")
except ImportError as error:
    # Said once, in words, for every module of this room.
    raise EnvironmentProblem(f"PyAV does not load ({error}); reinstall: pip install av") from error
