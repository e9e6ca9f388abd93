"""The top of the package: what it shows, and that the examples of its docstrings run."""

import ast
import inspect
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import hf_nasbert

SHOWN = {
    "Architecture", "NasBertConfig", "NasBertForMaskedLM", "NasBertForMultipleChoice", "NasBertForQuestionAnswering",
    "NasBertForSequenceClassification", "NasBertForTokenClassification", "NasBertModel", "SearchSpace",
    "SupernetConfig", "SupernetForMaskedLM", "SupernetModel", "SupernetTrainer", "SupernetTrainingArguments",
    "__version__", "compress", "extract_child", "from_bert", "load_supernet", "save_child", "search", "to_bert",
}  # fmt: skip


def test_what_it_shows_is_what_users_need():
    """However many rooms are loaded; and the search at the top is a function, not a room."""
    program = "import hf_nasbert, hf_nasbert.pipeline; import hf_nasbert.searching; print(dir(hf_nasbert))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert set(ast.literal_eval(done.stdout)) == SHOWN == set(dir(hf_nasbert))
    assert inspect.isfunction(hf_nasbert.search)


@pytest.mark.parametrize("name", ["Budget", "GradualSampler"])
def test_a_name_that_moved_says_where_it_is(name):
    with pytest.warns(FutureWarning, match=rf"{name} is found in hf_nasbert\.\w+; its name here goes"):
        moved = getattr(hf_nasbert, name)
    assert moved.__name__ == name
    assert name not in dir(hf_nasbert)


def test_every_public_method_and_its_arguments_are_documented():
    """As Google's style has it: every argument by name, and what is raised."""
    from hf_nasbert.api.found import FoundChild, SearchResult

    for one in (hf_nasbert.SupernetTrainer, SearchResult, FoundChild, hf_nasbert.search):
        said = inspect.getdoc(one) or ""
        for parameter in inspect.signature(one).parameters.values():
            is_own = parameter.name.startswith("_")
            assert is_own or re.search(rf"^ +\*{{0,2}}{parameter.name}: ", said, re.MULTILINE), (one, parameter.name)
        for name, method in inspect.getmembers(one, callable):
            assert name.startswith("_") or name == "__init__" or inspect.getdoc(method), (one, name)


@pytest.mark.usefixtures("quiet_trainer", "own_cache")
def test_the_examples_of_the_docstrings_run(tmp_path, monkeypatch, capsys):
    from accelerate.state import AcceleratorState

    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    names: dict = {}
    for one in (hf_nasbert.SupernetTrainer, hf_nasbert.search):
        (code,) = re.findall(r"```python\n(.*?)```", inspect.getdoc(one), re.DOTALL)
        code = textwrap.dedent(code).replace("max_steps=4", "max_steps=4, use_cpu=True, num_eval_batches=1")
        AcceleratorState._reset_state(reset_partial_state=True)
        exec(compile(code, one.__name__, "exec"), names)
    AcceleratorState._reset_state(reset_partial_state=True)
    *_, loss, found = capsys.readouterr().out.splitlines()
    assert float(loss) > 0
    assert found.startswith(str(names["result"].best.architecture))
    assert Path("runs/search.html").is_file()
