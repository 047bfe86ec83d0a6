"""A library made by `nibble compile`, called through ctypes with NumPy arrays: all
that a Python program needs. Used by the tests, and an example of its own."""

import ctypes

import numpy as np

OK, INVALID_ARGUMENT, OUT_OF_MEMORY, INVALID_VALUE, INTERRUPTED, BAD_WEIGHTS = range(6)
NO_CPU, DEVICE_FAILED = 6, 7


class DataType(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16)]


class Device(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int32), ("id", ctypes.c_int32)]


class Tensor(ctypes.Structure):
    """DLPack's DLTensor."""
    _fields_ = [("data", ctypes.c_void_p), ("device", Device), ("ndim", ctypes.c_int32),
                ("dtype", DataType), ("shape", ctypes.POINTER(ctypes.c_int64)),
                ("strides", ctypes.POINTER(ctypes.c_int64)), ("byte_offset", ctypes.c_uint64)]


class Value(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("dtype", DataType), ("ndim", ctypes.c_int32),
                ("shape", ctypes.POINTER(ctypes.c_int64)),
                ("dimensions", ctypes.POINTER(ctypes.c_char_p)), ("updated", ctypes.c_int32)]


# DLPack's codes of the types that NumPy has.
KINDS = {"i": 0, "u": 1, "f": 2, "b": 6}
TYPES = {(KINDS[np.dtype(name).kind], np.dtype(name).itemsize * 8): np.dtype(name)
         for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
                      "float16", "float32", "float64", "bool")}


def to_tensor(array):
    """A tensor that refers to `array`, which must live as long."""
    shape = (ctypes.c_int64 * array.ndim)(*array.shape)
    strides = (ctypes.c_int64 * array.ndim)(*(s // array.itemsize for s in array.strides))
    kind = DataType(KINDS[array.dtype.kind], array.itemsize * 8, 1)
    return Tensor(array.ctypes.data, Device(1, 0), array.ndim, kind, shape, strides, 0)


class ModelError(Exception):
    def __init__(self, status, message):
        super().__init__(f"{status}: {message}")
        self.status, self.message = status, message


class Model:
    """A model whose functions start with `name` in the library at `path`."""

    def __init__(self, path, name, weights=None):
        self.library, self.name, self.handle = ctypes.CDLL(str(path)), name, ctypes.c_void_p()
        for function in ("inputs", "outputs"):
            self.function(function).restype = ctypes.POINTER(Value)
        for function in ("last_error", "target"):
            self.function(function).restype = ctypes.c_char_p
        weights = None if weights is None else str(weights).encode()
        self.check(self.function("create")(weights, ctypes.byref(self.handle)))
        self.inputs, self.outputs = self.describe("inputs"), self.describe("outputs")
        self.target = self.function("target")(self.handle).decode()

    def function(self, suffix):
        return getattr(self.library, f"{self.name}_{suffix}")

    def check(self, status):
        if status:
            raise ModelError(status, self.function("last_error")().decode())

    def describe(self, which):
        count = ctypes.c_size_t()
        values = self.function(which)(ctypes.byref(count))
        return [values[i] for i in range(count.value)]

    def output_shapes(self, *arrays):
        inputs = (Tensor * len(arrays))(*map(to_tensor, arrays))
        outputs = (Tensor * len(self.outputs))()
        shapes = [(ctypes.c_int64 * value.ndim)() for value in self.outputs]
        for tensor, shape in zip(outputs, shapes):
            tensor.shape = shape
        self.check(self.function("output_shapes")(
            inputs, ctypes.c_size_t(len(inputs)), outputs, ctypes.c_size_t(len(outputs))))
        return [tuple(shape) for shape in shapes]

    def run_tensors(self, inputs, outputs, stop=None):
        """Runs on arrays of Tensor as they are."""
        arguments = [self.handle, inputs, ctypes.c_size_t(len(inputs or ())), outputs,
                     ctypes.c_size_t(len(outputs or ()))]
        if stop is None:
            self.check(self.function("run")(*arguments))
        else:
            self.check(self.function("run_until")(*arguments, ctypes.byref(stop)))

    def run(self, *arrays, stop=None):
        arrays = [np.asarray(array) for array in arrays]
        inputs = (Tensor * len(arrays))(*map(to_tensor, arrays))
        outputs = (Tensor * len(self.outputs))()
        self.run_tensors(inputs, outputs, stop)
        results = []
        for tensor in outputs:
            kind = TYPES[tensor.dtype.code, tensor.dtype.bits]
            shape = tuple(tensor.shape[axis] for axis in range(tensor.ndim))
            size = kind.itemsize * int(np.prod(shape, dtype=np.int64))
            results.append(np.frombuffer(ctypes.string_at(tensor.data, size), kind).reshape(shape))
        self.function("release")(outputs, ctypes.c_size_t(len(outputs)))
        return results

    def close(self):
        self.function("destroy")(self.handle)
        self.handle = ctypes.c_void_p()
