"""transformers' own common tests of models and configs, on every class of ours, where that suite is at hand."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# What the suite imports of files that its source distribution leaves out; our models neither generate nor need these.
MISSING = {
    "exporters/test_export.py": "class ExportTesterMixin:\n    pass\n",
    "generation/test_utils.py": "class GenerationTesterMixin:\n    pass\n",
    "utils/test_configuration_utils.py": """config_common_kwargs = {
    "return_dict": False, "output_hidden_states": True, "output_attentions": True, "dtype": "float16",
    "chunk_size_feed_forward": 5, "architectures": ["BertModel"], "id2label": {0: "label"},
    "label2id": {"label": "0"}, "problem_type": "regression",
}
""",
}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("classes", ["OnlyAttention", "Mixed", "Supernet"])
def test_transformers_common_suite(classes, tmp_path):
    suite = os.environ.get("TRANSFORMERS_TESTS")
    if suite is None or not Path(suite, "test_modeling_common.py").is_file():
        pytest.skip(
            "set TRANSFORMERS_TESTS to the folder tests of transformers' source distribution (pip download --no-deps "
            "--no-binary transformers transformers)"
        )
    pytest.importorskip("parameterized", reason="pip install parameterized")
    tests = tmp_path / "tests"
    (tests / "nasbert").mkdir(parents=True)
    for file in Path(suite).glob("test_*.py"):
        shutil.copy(file, tests)
    for name, content in MISSING.items():
        (tests / name).parent.mkdir()
        (tests / name).write_text(content)
        (tests / name).with_name("__init__.py").touch()
    for folder in (tests, tests / "nasbert"):
        (folder / "__init__.py").touch()
    shutil.copy(Path(__file__).with_name("common_suite_tester.py"), tests / "nasbert" / "test_modeling_nasbert.py")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--tb=short", "--disable-warnings", "-p", "no:cacheprovider",
         "--rootdir", tmp_path, tests / "nasbert", "-k", classes],
        cwd=tmp_path,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 70
