import lit.formats

config.name = "Nibble-Unit"
config.suffixes = []
config.test_exec_root = config.nibble_unit_dir
config.test_source_root = config.nibble_unit_dir
config.test_format = lit.formats.GoogleTest(".", "Tests")
# As for the tools: LLVM's shared library is built without sanitizers.
config.environment["ASAN_OPTIONS"] = "allow_user_poisoning=0"
