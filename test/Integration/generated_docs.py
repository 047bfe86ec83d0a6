# RUN: %python %s
"""docs/Passes.md is what the .td files say."""

import os
import pathlib
import subprocess
import sys

root = pathlib.Path(os.environ["NIBBLE_SOURCE_DIR"])
command = [sys.executable, str(root / "scripts/generate-docs"), "--check"]
sys.exit(subprocess.run(command).returncode)
