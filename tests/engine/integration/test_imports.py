"""What importing the engine costs."""

import subprocess
import sys


def test_the_engine_and_its_configs_are_imported_without_torch() -> None:
    code = (
        "import sys, verl_lite.engine, verl_lite.engine.config as config; config.TrainConfig; "
        "print(sorted({'torch', 'vllm', 'transformers', 'ray'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
