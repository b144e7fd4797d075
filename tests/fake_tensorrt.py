"""A stand-in for the ``tensorrt`` module: the names that are used, of either generation.

It builds nothing. A built "engine" is a JSON text that remembers how it was ordered, and running
one enlarges by repeating pixels, through the addresses it is given, as the real one does.
"""

# The names and parameters are TensorRT's.
# ruff: noqa: N802, ARG002, ARG005

from __future__ import annotations

import ctypes
import enum
import json
from types import SimpleNamespace

import numpy as np


class DataType(enum.Enum):
    FLOAT = 0
    HALF = 1
    INT32 = 3


class Severity(enum.Enum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2


class ILogger:
    INTERNAL_ERROR, ERROR, WARNING = Severity

    def __init__(self):
        self.started = True


class BuilderFlag10(enum.Enum):
    FP16 = 1
    TF32 = 7


class BuilderFlag11(enum.Enum):
    TF32 = 7


class NetworkDefinitionCreationFlag(enum.IntEnum):
    STRONGLY_TYPED = 1


def layer(kind="CaskConvolution", weights=None, **rest):
    return {
        "Name": "a layer",
        "LayerType": kind,
        "Outputs": [{"Name": "t", "Format/Datatype": "N/A due to dynamic shapes"}],
        **({"Weights": {"Type": weights, "Count": 9}} if weights else {}),
        **rest,
    }


def inspection(*layers):
    return json.dumps({"Layers": list(layers), "Bindings": ["input", "output"]})


HALF_LAYER = inspection(layer(weights="Half"))


class FakeTensorRt:
    """The module.

    Args:
        version: full version.
        information: what the inspector tells of an engine that may hold FP16.
        parse_errors: what the parser finds wrong.
        failures: steps that fail: profile, build, load, memory, shape, execute.
        io_type: of the input and output tensors.
        scale: of the network.
        graph_fp16: the graph is typed float16, so that no flag is needed to get FP16.
    """

    def __init__(
        self,
        version="10.16.1.11",
        *,
        information=HALF_LAYER,
        parse_errors=(),
        failures=(),
        io_type=DataType.FLOAT,
        scale=2,
        graph_fp16=False,
    ):
        strong = int(version.split(".", maxsplit=1)[0]) >= 11
        self.__version__ = version
        self.information, self.failures = information, set(failures)
        self.parse_errors, self.io_type = parse_errors, io_type
        self.scale, self.graph_fp16 = scale, graph_fp16
        self.DataType, self.ILogger = DataType, ILogger
        self.BuilderFlag = BuilderFlag11 if strong else BuilderFlag10
        self.NetworkDefinitionCreationFlag = NetworkDefinitionCreationFlag
        self.MemoryPoolType = enum.Enum("MemoryPoolType", ["WORKSPACE"])
        self.ProfilingVerbosity = enum.Enum("ProfilingVerbosity", ["DETAILED"])
        self.LayerInformationFormat = enum.Enum("LayerInformationFormat", ["JSON"])
        self.ordered = SimpleNamespace(flags=set(), cleared=set(), timing=None)

    def Builder(self, logger):
        assert logger.started
        return Builder(self, logger)

    def OnnxParser(self, network, logger):
        errors = [
            SimpleNamespace(desc=lambda e=e: e, node_name=lambda: "node_7")
            for e in self.parse_errors
        ]
        return SimpleNamespace(
            parse=lambda content: not errors,
            num_errors=len(errors),
            get_error=errors.__getitem__,
        )

    def Runtime(self, logger):
        def load(content):
            return None if "load" in self.failures else Engine(self, json.loads(content))

        return SimpleNamespace(deserialize_cuda_engine=load)


class Builder:
    def __init__(self, trt, logger):
        self.trt, self.logger = trt, logger

    def create_network(self, flags):
        self.trt.ordered.network_flags = flags
        return "network"

    def create_builder_config(self):
        return Config(self.trt)

    def create_optimization_profile(self):
        return Shapes()

    def build_serialized_network(self, network, config):
        if "build" in self.trt.failures:
            self.logger.log(self.trt.ILogger.WARNING, "a warning")
            self.logger.log(self.trt.ILogger.ERROR, "no kernel\n for node_7")
            return None
        return json.dumps({"shapes": config.shapes}).encode()


class Shapes:
    def set_shape(self, name, *shapes):
        self.shapes = {name: shapes}


class Config:
    def __init__(self, trt):
        self.trt = trt
        self.cache = None

    def set_memory_pool_limit(self, pool, limit):
        self.trt.ordered.workspace = limit

    def set_flag(self, flag):
        self.trt.ordered.flags.add(flag.name)

    def clear_flag(self, flag):
        self.trt.ordered.cleared.add(flag.name)

    def add_optimization_profile(self, profile):
        self.shapes = profile.shapes
        return -1 if "profile" in self.trt.failures else 0

    def create_timing_cache(self, content):
        return content

    def set_timing_cache(self, cache, ignore_mismatch):
        assert not ignore_mismatch
        if cache.startswith(b"of another GPU"):
            return False
        self.trt.ordered.timing = self.cache = cache
        return True

    def get_timing_cache(self):
        return SimpleNamespace(serialize=lambda: self.cache + b"+measured")


class Engine:
    num_io_tensors = 2

    def __init__(self, trt, ordered):
        self.trt, self.shapes = trt, ordered["shapes"]

    def get_tensor_name(self, index):
        return ("input", "output")[index]

    def get_tensor_dtype(self, name):
        return self.trt.io_type

    def create_execution_context(self):
        return None if "memory" in self.trt.failures else Context(self.trt, self.shapes)

    def create_engine_inspector(self):
        inspector = SimpleNamespace(execution_context=None)

        def tell(form):
            assert inspector.execution_context.shape, "formats are unknown without a size"
            plain = inspection(layer(weights="Float"), layer(weights="Float"))
            fp16 = self.trt.graph_fp16 or "FP16" in self.trt.ordered.flags
            return self.trt.information if fp16 else plain

        inspector.get_engine_information = tell
        return inspector


class Context:
    def __init__(self, trt, shapes):
        self.trt, self.least, self.most = trt, shapes["input"][0], shapes["input"][2]
        self.shape, self.address = None, {}

    def set_input_shape(self, name, shape):
        assert name == "input"
        inside = all(a <= s <= b for a, s, b in zip(self.least, shape, self.most, strict=True))
        self.shape = shape
        return inside and "shape" not in self.trt.failures

    def get_tensor_shape(self, name):
        n, c, h, w = self.shape
        return (n, c, h, w) if name == "input" else (n, c, h * self.trt.scale, w * self.trt.scale)

    def set_tensor_address(self, name, address):
        self.address[name] = address
        return True

    def execute_async_v3(self, stream):
        if "execute" in self.trt.failures:
            return False
        given, result = self._at("input"), self._at("output")
        result[:] = given.repeat(self.trt.scale, 2).repeat(self.trt.scale, 3)
        return True

    def _at(self, name):
        kind = {DataType.FLOAT: np.float32, DataType.HALF: np.float16}[self.trt.io_type]
        shape = self.get_tensor_shape(name)
        size = int(np.prod(shape)) * np.dtype(kind).itemsize
        memory = (ctypes.c_char * size).from_address(self.address[name])
        return np.frombuffer(memory, kind).reshape(shape)
