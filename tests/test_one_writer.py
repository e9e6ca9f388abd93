"""The walk over the source: no file is opened for writing but by `writing.py`, with a short list of exceptions."""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OPENERS = {"open", "fdopen", "GzipFile", "BZ2File", "LZMAFile", "ZipFile", "TarFile", "FileIO"}
READING = {"O_RDONLY", "O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_DIRECTORY"}
# Whatever it is called on: what makes, fills, renames or links files, or hands that to another program.
WRITERS = set(
    "write_text write_bytes savefig imsave save save_file serialize_file save_model save_pretrained save_to_disk "
    "save_to_json save_vocabulary savez savez_compressed savetxt dump to_json to_json_file to_csv to_parquet to_html "
    "to_pickle to_excel to_feather to_sql write_table write_csv write_html write_image write_feather new_file "
    "new_stream output_stream OSFile ParquetWriter ArrowWriter SummaryWriter copy2 copyfile copyfileobj copytree move "
    "rename renames touch mkdir makedirs mkfifo mknod symlink symlink_to hardlink_to link truncate NamedTemporaryFile "
    "TemporaryFile SpooledTemporaryFile TemporaryDirectory mkstemp mkdtemp FileHandler RotatingFileHandler memmap "
    "open_memmap tofile extractall make_archive unpack_archive urlretrieve create_engine "
    "export".split()
)
OURS = {"write_text", "write_bytes", "save_model"}  # by these names alone: `writing`'s own, and one that calls others
# Modules whose own functions open what they write, and those whose functions must not get another name.
WRITING_MODULES = {"shelve", "dbm", "sqlite3", "zipfile", "tarfile", "fileinput", "aiofiles", "h5py"}
PLACED = {"local_dir", "filename"}  # arguments that say where a library puts a file

INTO_STAGING = "fills the folder that whole_folder or replace_files gave it"
INTO_FILE = "fills the file that whole_file gave the cache"
CHECKPOINT = "fills the folder of a checkpoint, or of the final model, before it is sealed and renamed"
SCRATCH = "in a folder of temporary files, of a random name"
EXCEPTIONS = {
    "records.py:_locked:open": "adds to the end, under a lock; a torn line is cut off again",
    "records.py:_locked:mkdir": "the folder of a new file, before it is opened",
    "training/farm.py:_Claim.__enter__:open": "a lock, into which nothing is written; never through a link",
    "training/farm.py:run_farm:mkdir": "the folder of the records, before workers lock beside them",
    "compression/recover.py:_Run._write:save_file": CHECKPOINT,
    "child_folders.py:fill_child_folder:save_pretrained": INTO_STAGING,
    "child_folders.py:fill_child_folder:write_text": INTO_STAGING,
    "child_folders.py:save_child:copyfile": INTO_STAGING,
    "child_folders.py:_pack_code:copyfile": INTO_STAGING,
    "child_folders.py:_pack_code:write_text": INTO_STAGING,
    "child_folders.py:move_into_place:replace": "puts the finished folder into its place",
    "child_folders.py:move_into_place:rename": "puts the finished folder into its place, and other files back",
    "export/onnx.py:_Graph.write:save": INTO_STAGING,
    "export/onnx.py:export_onnx:save_pretrained": INTO_STAGING,
    "hub/pulling.py:pull:mkdir": INTO_STAGING,
    "hub/pulling.py:pull:copyfile": INTO_STAGING,
    "pipeline/whole.py:Pipeline._make_text:save_pretrained": INTO_STAGING,
    "pipeline/scores.py:_make_search:mkdir": "the folder of the study, which its database opens itself",
    "searching/storage.py:open_storage:mkdir": "the folder of the study, which Optuna opens itself",
    "plots/style.py:save_figure:savefig": "draws into memory",
    "plots/style.py:_with_palette:open": "reads what was drawn into memory",
    "plots/style.py:_with_palette:save": "draws into memory",
    "training/loop.py:SupernetLoop.save_model.write:save_model": INTO_STAGING,
    "training/loop.py:SupernetLoop.save_checkpoint.write:save_model": INTO_STAGING,
    "training/loop.py:SupernetLoop._finish:save_model": "its own method, which does that",
    "api/found.py:search:mkdtemp": SCRATCH,
    "api/found.py:search:save_pretrained": SCRATCH,
    "api/trainer.py:SupernetTrainer.save_model:save_model": "the loop's method, which uses replace_files",
    "api/trainer.py:SupernetTrainer.push_to_hub:save_model": "its own method, which does that",
    "hub/models.py:push_model:save_pretrained": SCRATCH,
    "hub/models.py:push_model:copytree": SCRATCH,
    "hub/proof.py:check_leaves_home:TemporaryDirectory": SCRATCH,
    "hub/proof.py:check_leaves_home:save_file": SCRATCH,
    "hub/proof.py:_lay_out:mkdir": SCRATCH,
    "hub/proof.py:_lay_out:write_bytes": SCRATCH,
    "hub/proof.py:_lay_out:symlink_to": SCRATCH,
    "hub/proof.py:run_without_package:TemporaryDirectory": SCRATCH,
    "hub/proof.py:run_without_package:mkdir": SCRATCH,
    "hub/proof.py:run_without_package:open": SCRATCH,
    "pipeline/fresh_process.py:ask_in_fresh_process:TemporaryDirectory": SCRATCH,
    "data/cache.py:cache_folder:mkdir": "a folder of the cache, whose files are then written whole",
    "data/cache.py:_set_aside:rename": "gives a damaged file another name, of random digits",
    "compression/run.py:compress:TemporaryDirectory": SCRATCH,
    "compression/vocabulary.py:trim_tokenizer:save_pretrained": SCRATCH,
    "compression/onnx_files.py:OnnxFiles.write.write:mkdir": INTO_STAGING,
    "compression/onnx_files.py:OnnxFiles.write_int8.write:mkdir": INTO_STAGING,
    "testing/methods.py:_saved:save": "of safetensors, makes bytes in memory",
    "training/checkpoints.py:save_tensors:save_file": CHECKPOINT,
    "elastic/refit.py:write_fitted:save": "of safetensors, makes bytes in memory",
    "compression/plan.py:_plan:TemporaryDirectory": SCRATCH,
    "compression/plan.py:_Planner._folder.write:mkdir": INTO_STAGING,
    "compression/memory.py:forget_peak:open": "a switch of the kernel, which keeps no file",
    "compression/sizes.py:bytes_of_child:save": "of safetensors, makes bytes in memory",
    "compression/states.py:_shard:save": "of safetensors, makes bytes in memory",
    "data/corpus.py:split_dev:memmap": "over a scratch file without a name",
    "data/corpus.py:_last_dev_place:memmap": "over a scratch file without a name",
    "data/corpus.py:_write_sequences:write_table": INTO_FILE,
    "data/corpus.py:_write_sequences:new_stream": INTO_FILE,
    "data/rows.py:read_rows.write:new_stream": INTO_FILE,
    "data/rows.py:read_rows.write:write_table": INTO_FILE,
    "data/sources.py:write_arrow:new_stream": INTO_FILE,
    "data/sources.py:write_arrow:write_table": INTO_FILE,
    "hub/repository.py:identity_there:TemporaryDirectory": SCRATCH,
    "checkpoint_folders.py:write_checkpoint:rename": "puts the sealed checkpoint into its place",
    "checkpoint_folders.py:_write_whole:mkdir": "the folder that is filled, sealed and renamed",
    "checkpoint_folders.py:seal:write_text": "of writing, under a name that is imported with its module",
    "checkpoint_folders.py:replace_files:mkdir": "the folder that is filled, flushed and emptied into its place",
    "checkpoint_folders.py:replace_files:replace": "puts a finished file into its place",
    "checkpoint_folders.py:set_aside:rename": "gives a checkpoint another name; nothing is written",
    "checkpoint_folders.py:delete_checkpoint:rename": "so that a half deleted one is called no checkpoint",
    "data/vocabulary.py:save_tokenizer:save_pretrained": INTO_STAGING,
    "data/foreign_tokenizers.py:_try:run": "a process that tries a tokenizer, and writes to its output only",
    "export/onnx.py:_Graph.write:export": "makes a graph in memory",
    "hub/proof.py:run_without_package:run": "a process in a folder of temporary files, its home folder too",
    "hub/repository.py:identity_there.fetch:hf_hub_download": SCRATCH,
    "modeling/configuration_nasbert.py:NasBertShapeConfig.to_json_file:to_json_file": "transformers' own, checked",
    "finetuning/checkpoints.py:SealingTrainer._fill:rename": CHECKPOINT,
    "finetuning/checkpoints.py:SealingTrainer._fill:save_to_json": CHECKPOINT,
    "finetuning/pretraining.py:pretrain_child:save_model": "the function of runs, which uses replace_files",
    "finetuning/runs.py:save_model.write:save_pretrained": INTO_STAGING,
    "finetuning/tasks.py:_Run._train:save_model": "the function of runs, which uses replace_files",
    "data/named.py:_load:run": "the datasets library in a process of its own, which fills its own cache",
    "locking.py:locked:mkdir": "the folder of a run, before it is locked",
    "locking.py:_take:open": "a lock, which holds the name of its process; never through a link",
    "modeling/configuration_nasbert.py:NasBertShapeConfig.save_pretrained:save_pretrained": "by transformers, checked",
    "terminal.py:_is_output_closed:open": "/dev/null, in place of a closed output",
    "testing/models.py:_computes_what_it_did_when_it_is_loaded:TemporaryDirectory": SCRATCH,
    "testing/models.py:_computes_what_it_did_when_it_is_loaded:save_pretrained": SCRATCH,
    "testing/models.py:_keeps_its_weights_tied:TemporaryDirectory": SCRATCH,
    "testing/models.py:_keeps_its_weights_tied:save_pretrained": SCRATCH,
    "training/checkpoints.py:save_optimizer:save_file": CHECKPOINT,
    "training/checkpoints.py:save_model:save_pretrained": CHECKPOINT,
    "training/checkpoints.py:save_model:save_file": CHECKPOINT,
}


def files() -> list[Path]:
    return sorted([*(ROOT / "src" / "hf_nasbert").rglob("*.py"), *(ROOT / "recipes").rglob("*.py")])


def place_of(file: Path) -> str:
    return file.relative_to(ROOT / "src" / "hf_nasbert" if "src" in file.relative_to(ROOT).parts else ROOT).as_posix()


def written(tree: ast.AST, within: str = "") -> Iterator[tuple[str, str, int]]:
    """Every call that may write: the function it stands in, the name of what is called, and the line."""
    for node in ast.iter_child_nodes(tree):
        inner = within
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            inner = f"{within}.{node.name}".strip(".")
        elif isinstance(node, ast.Call) and (name := name_of(node.func)) and may_write(node, name):
            yield within, name, node.lineno
        elif isinstance(node, ast.Attribute | ast.Name) and getattr(tree, "func", None) is not node:
            if name_of(node) in (WRITERS if isinstance(node, ast.Attribute) else {"open"}):
                yield within, str(name_of(node)), node.lineno  # handed on, to be called elsewhere
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((within, name, node.lineno) for name in hidden_names(node))
        yield from written(node, inner)


def hidden_names(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    """Imports behind which a call that writes would not be known by its name."""
    module = (getattr(node, "module", None) or "").partition(".")[0]
    for imported in node.names:
        is_renamed = imported.asname not in (None, imported.name)
        top = imported.name.partition(".")[0]
        if isinstance(node, ast.Import):
            is_hidden = top in WRITING_MODULES or (is_renamed and top in ("os", "shutil", "io", "subprocess"))
        else:
            names = WRITERS | OPENERS | {"copy"}
            is_hidden = (
                imported.name == "*"
                or module in WRITING_MODULES | {"subprocess"}
                or (is_renamed and imported.name in names)
                or (imported.name in OURS and module != "hf_nasbert")
            )
        if is_hidden:
            yield f"import {imported.name}"


def name_of(called: ast.AST) -> str | None:
    return called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else None


def may_write(call: ast.Call, name: str) -> bool:
    is_method = isinstance(call.func, ast.Attribute)
    owner = name_of(call.func.value) if isinstance(call.func, ast.Attribute) else None
    words = {word.arg: word.value for word in call.keywords}
    if (
        owner == "subprocess"
        or (owner == "os" and name in ("system", "popen", "posix_spawn"))
        or (PLACED & set(words) and name != "partial")
    ):
        return True
    if name in OPENERS:
        if owner == "os":
            names = [part for part in map(name_of, ast.walk(ast.Tuple(call.args[1:]))) if part not in (None, "os")]
            return name == "fdopen" or not names or not READING.issuperset(names)
        modules = ("gzip", "bz2", "lzma", "io", "codecs", "tokenize", "builtins")
        is_path = name == "open" and is_method and owner not in modules
        mode = words.get("mode", next(iter(call.args[0 if is_path else 1 :]), None))
        if mode is None:
            return None in words or any(isinstance(given, ast.Starred) for given in call.args)
        return not isinstance(mode, ast.Constant) or bool(set("wax+") & set(str(mode.value)))
    if name == "replace":  # of a path: one argument; text has two, and dataclasses.replace names fields
        is_one = len(call.args) == 1 and not call.keywords
        return owner == "os" or (is_method and owner != "dataclasses" and (is_one or "target" in words))
    if name == "copy":  # of a file or a path; arrays and dicts take nothing, `copy.copy` any object
        return owner == "shutil" or len(call.args) > (0 if is_method and owner != "copy" else 1)
    if name == "getattr":
        return any(isinstance(given, ast.Constant) and given.value in WRITERS for given in call.args[1:2])
    return name in WRITERS and (is_method or name not in OURS)


@functools.cache
def found() -> dict[str, list[str]]:
    """The calls that may write, as FILE:FUNCTION:CALL, and the lines they stand in."""
    calls: dict[str, list[str]] = {}
    for file in files():
        place = place_of(file)
        if place != "writing.py":
            for function, name, line in written(ast.parse(file.read_text(encoding="utf-8"))):
                calls.setdefault(f"{place}:{function}:{name}", []).append(f"{file.name}, line {line}")
    return calls


def test_nothing_is_written_but_by_writing():
    others = {call: lines for call, lines in found().items() if call not in EXCEPTIONS}
    assert list(others.items()) == [], "use whole_file, write_text or whole_folder of hf_nasbert.writing"


def test_every_exception_is_needed():
    assert not [call for call in EXCEPTIONS if call not in found()]


@pytest.mark.parametrize(
    "line",
    [
        'open("a", "w")', 'open("a", mode="ab")', 'open("a", "r+")', 'open("a", "x")', 'open("a", mode)',
        'path.open("w")', 'path.open(mode="wb")', 'gzip.open("a", "wt")', 'io.open("a", "w")',
        'os.open("a", os.O_WRONLY | os.O_CREAT)', 'os.open("a", os.O_RDWR)', 'os.fdopen(1, "wb")',
        'path.write_text("")', 'Path("a").write_bytes(b"")', "figure.savefig(path)", "torch.save(a, path)",
        "save_file(tensors, path)", "model.save_pretrained(path)", "np.save(path, a)", "json.dump(a, file)",
        "table.to_parquet(path)", "table.to_json(path)", "shutil.copyfile(a, b)", "shutil.move(a, b)",
        "os.replace(a, b)", "path.replace(other)", "os.rename(a, b)", "path.rename(other)", "path.mkdir()",
        "os.makedirs(a)", "tempfile.NamedTemporaryFile()", "path.symlink_to(other)", "path.touch()",
        "logging.FileHandler(path)", "partial(shutil.copyfile, a)", "with_copies(copy_function=shutil.copy2)",
        "shutil.copy(a, b)", "copy(a, b)", "path.copy(other)", "path.replace(target=other)", "open(*given)",
        'open("a", **given)', "path.open(*given)", "map(open, names)", 'partial(open, mode="w")',
        "os.open(path, flags)",
        "os.open(path, 577)", "os.open(path, os.O_RDONLY | extra)", 'zipfile.ZipFile("/tmp/q", "w")',
        'io.FileIO("q", "w")', 'np.savez_compressed("q", a)', 'pa.OSFile("q", "wb")', 'pa.ipc.new_file("q", schema)',
        'getattr(path, "write_text")("")', 'logging.basicConfig(filename="q")', 'hf_hub_download(a, local_dir="q")',
        'subprocess.run(["cp", a, b])', 'os.system("cp a b")', 'torch.onnx.export(model, given, "q")',
        'config.to_json_file("q")', 'create_engine("sqlite:///q")',
    ],
)  # fmt: skip
def test_the_walk_sees_every_way(line):
    assert list(written(ast.parse(f"def f():\n    x = {line}"))) != []


@pytest.mark.parametrize(
    "line",
    [
        'open("a")', 'path.open("rb")', 'path.open(encoding="utf-8")', 'gzip.open("a", "rt")',
        'os.open("a", os.O_RDONLY)', 'text.replace("a", "b")', "dataclasses.replace(a, b=1)", "replace(a, b=1)",
        "json.dumps(a)", "shutil.rmtree(a)", "write_text(path, text)", "whole_folder(folder)", "path.read_bytes()",
        "array.copy()", "copy.copy(a)", 'os.open("a", os.O_RDONLY | os.O_NOFOLLOW)', 'getattr(a, "name")',
    ],
)  # fmt: skip
def test_the_walk_lets_readers_pass(line):
    assert list(written(ast.parse(f"def f():\n    x = {line}"))) == []


@pytest.mark.parametrize(
    "line",
    [
        "from shutil import copyfile as cp", "from os import open as opened", "import shutil as s", "from os import *",
        "from torch import save_model", "from other import write_text", "import sqlite3",
        "from zipfile import ZipFile",
        "from subprocess import run", "from hf_nasbert.writing import write_text as put", "f = open",
        "save = model.save_pretrained",
    ],
)  # fmt: skip
def test_no_writer_gets_another_name(line):
    assert list(written(ast.parse(line))) != []


@pytest.mark.parametrize(
    "line", ["from shutil import copyfile", "import os", "from hf_nasbert.writing import write_text"]
)
def test_plain_imports_pass(line):
    assert list(written(ast.parse(line))) == []
