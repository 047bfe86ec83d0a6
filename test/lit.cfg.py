import importlib.util
import os

import lit.formats
from lit.llvm import llvm_config

config.name = "Nibble"
config.test_format = lit.formats.ShTest(execute_external=False)
config.suffixes = [".mlir", ".test"]
config.excludes = ["Inputs", "lit.cfg.py", "CMakeLists.txt"]
# What the Python tests import.
config.excludes += ["support.py", "oracle.py", "activations.py", "linear_layers.py", "small_decoder.py", "compiled.py", "node_cases.py", "gpu_weights.py", "graph_builder.py", "ptxas.py"]
config.test_source_root = os.path.dirname(__file__)
config.test_exec_root = config.nibble_test_dir

# A file in test/Integration that starts with "# RUN: %python %s" is a test.
config.suffixes.append(".py")

llvm_config.with_environment(
    "PATH", [config.nibble_tools_dir, config.llvm_tools_dir], append_path=True
)
llvm_config.add_tool_substitutions(
    ["FileCheck", "not", "count", "split-file", "mlir-opt"], [config.llvm_tools_dir]
)
config.substitutions.append(("%python", config.nibble_python))
config.substitutions.append(("%shared", config.nibble_shared_dir))
config.substitutions.append(
    ("%nibble_plugin", os.path.join(config.nibble_lib_dir, "NibblePlugin.so"))
)
# For the tests that are Python scripts.
config.environment["NIBBLE_SOURCE_DIR"] = config.nibble_source_dir
config.environment["NIBBLE_BUILD_DIR"] = config.nibble_build_dir
config.environment["NIBBLE_SHARED_DIR"] = config.nibble_shared_dir

# Features name what a machine may lack; a test that REQUIRES one is skipped there.
for module in ("numpy", "onnx", "onnxruntime", "ml_dtypes"):
    if importlib.util.find_spec(module):
        config.available_features.add(module)
if os.path.isdir(config.nibble_shared_dir):
    config.available_features.add("shared-models")
if config.nibble_sanitize:
    config.available_features.add("sanitizers")
