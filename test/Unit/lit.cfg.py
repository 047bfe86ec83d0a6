import lit.formats

config.name = "Nibble-Unit"
config.suffixes = []
config.test_exec_root = config.nibble_unit_dir
config.test_source_root = config.nibble_unit_dir
config.test_format = lit.formats.GoogleTest(".", "Tests")
