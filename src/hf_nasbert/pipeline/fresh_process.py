"""A child's folder and masked sentences in, completed ones out: asked where this package cannot be imported."""

from pathlib import Path
from tempfile import TemporaryDirectory

from hf_nasbert.foreign import read_object
from hf_nasbert.hub.contents import foreign_code
from hf_nasbert.hub.proof import run_without_package

# Run where this package cannot be imported: what a user sees who does not have it.
_FILL_MASK = """
import json, pathlib
from transformers import pipeline
folder, results, *texts = sys.argv[1:]
fill_mask = pipeline("fill-mask", folder, trust_remote_code=True, device="cpu")
answers = {text: [(a["token_str"], a["score"]) for a in fill_mask(text, top_k=5)] for text in texts}
pathlib.Path(results).write_text(json.dumps(answers), encoding="utf-8")
"""


def ask_in_fresh_process(folder: Path, texts: list[str]) -> dict[str, list[tuple[str, float]]]:
    """Complete masked texts with a child's folder, in a process in which this package cannot be imported.

    Raises:
        TimeoutError: If it takes longer than ten minutes.
        ValueError: If the child does not load there: its folder does not carry all that it needs, or code of others.
    """
    code = {path.name: path for path in folder.iterdir() if path.is_file()}
    foreign = foreign_code(code, str(folder))
    if foreign:
        raise ValueError(f"{folder} brings code that is not hf_nasbert's ({', '.join(foreign)}), so it is not run")
    with TemporaryDirectory() as scratch:
        results = Path(scratch) / "answers.json"
        try:
            run_without_package(_FILL_MASK, [str(folder.resolve()), str(results), *texts])
        except ValueError as error:
            raise ValueError(f"{folder}: {error}") from None
        return read_object(results)
