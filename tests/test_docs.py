"""Words that can be run are run: README code, recipe configs, the fields that docstrings promise."""

import ast
import dataclasses
import itertools
import json
import re
import runpy
import shlex
import statistics
from pathlib import Path
from typing import Any

import pytest
import yaml
from accelerate.state import AcceleratorState
from datasets import Dataset
from helpers import run_recipe, skip_unless_drawn_alike
from transformers import PreTrainedConfig

from hf_nasbert import cli, costs, records
from hf_nasbert.cards import read_table_facts, render_child_card, render_supernet_card, render_table_card
from hf_nasbert.extraction import prove_equal_logits
from hf_nasbert.metrics import kendall_tau
from hf_nasbert.modeling import SupernetForMaskedLM
from hf_nasbert.ranking import GroundTruth, find_table, load_table

ROOT = Path(__file__).parents[1]


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(language: str, page: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.slow
@pytest.mark.usefixtures("quiet_trainer", "own_cache")
def test_the_library_in_one_screen_runs(tmp_path, monkeypatch):
    """As it stands, but for its size, and for what it would send."""
    monkeypatch.chdir(tmp_path)
    (code,) = [block for block in blocks("python", "docs/scratch.md") if "SupernetTrainer" in block]
    texts = [f"film number {number} was {'long ' * 140}" for number in range(500)]
    small = "max_steps=2, per_device_train_batch_size=2, num_eval_children=1, use_cpu=True, report_to='none'"
    own, sent = re.subn(r"\n(\w+)\.push_to_hub\(.*", "", code.replace("max_steps=2000", small))
    assert sent == 2
    AcceleratorState._reset_state(reset_partial_state=True)
    names: dict[str, Any] = {"dataset": Dataset.from_dict({"text": texts})}
    own = own.replace("num_evaluations=200", "num_evaluations=5, num_dev_batches=1")
    exec(compile(own, "docs/scratch.md", "exec"), names)
    AcceleratorState._reset_state(reset_partial_state=True)
    best = names["result"].best
    prove_equal_logits(names["trainer"].model, best.architecture, names["child"])
    assert len(names["result"].to_pandas()) == 5
    assert {"front.png", "search.html", "supernet"} <= {path.name for path in (tmp_path / "runs").iterdir()}


def test_the_quickstart_table_and_picture_are_what_the_record_holds(tmp_path):
    quickstart = runpy.run_path(str(ROOT / "benchmarks" / "quickstart.py"))
    rows = quickstart["rows_of_record"]()
    table = quickstart["markdown_table"](rows, quickstart["SHAPE"])
    assert f"<!-- table: quickstart -->\n{table}\n<!-- end -->" in (ROOT / "README.md").read_text(encoding="utf-8")
    base, *smaller = rows
    given = next(row for row in rows if row.is_given)
    assert given.how == quickstart["SEARCHED"]
    kept = {row.how: row.values("spearman")[0] / base.values("spearman")[0] for row in smaller}
    page = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    faster, own = base.latency_batch_ms / given.latency_batch_ms, kept.pop(given.how)
    output = quickstart["output"](rows)
    assert f"<!-- table: quickstart output -->\n{output}\n" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"{faster:.2f} times as fast" in output
    assert f"{100 * own:.1f}% of its correlation" in output
    by_hand = [round(100 * share) for share in kept.values()]
    assert f"keeps {min(by_hand)} to {max(by_hand)} %" in page
    seconds = sum(record["seconds"] for record in records.read(quickstart["RECORD"]))
    assert seconds < 600  # ten minutes, as README and its config promise
    png, _ = quickstart["save_figure"](quickstart["draw"](rows), tmp_path / "quickstart")
    skip_unless_drawn_alike()
    assert png.read_bytes() == quickstart["PICTURE"].with_suffix(".png").read_bytes()


def test_the_page_on_speed_tells_the_quickstarts_recorded_times():
    page = " ".join((ROOT / "docs" / "speed.md").read_text(encoding="utf-8").split())
    times = json.loads((ROOT / "benchmarks/records/quickstart-scratch-times.json").read_text(encoding="utf-8"))
    before, after, last = (times[when]["seconds"] for when in ("before", "after", "side_by_side"))
    alone = times["fine_tuning_by_turns"]["seconds"]
    processes, threads = (
        times["super_net_of_200_steps"]["seconds"][f"two {what}"] for what in ("processes", "threads")
    )
    (shared,) = {round(one) for one in processes}
    first = {
        one["stage"]: one["seconds"] for one in records.read(ROOT / "benchmarks/records/quickstart-stages.jsonl.gz")
    }
    for told in (
        f"takes {last['all']} s on two quiet cores of this machine",
        f"It took {before['all']} s, then {after['all']} s",
        f"pre-training in {after['pre-training']} s instead of {before['pre-training']}",
        f"fine-tuning in {after['fine-tuning']} instead of {before['fine-tuning']}",
        f"{after['super-net']} s instead of {before['super-net']}",
        f"Fine-tuning takes {last['fine-tuning']} s since",
        f"took {shared} s in two processes, and {threads[0]:.0f} and {threads[1]:.0f} s in two threads",
        f"{alone['side by side']:.0f} s of that stage alone, where one after the other took "
        f"{alone['one after the other']:.0f} s",
        f"the whole took {sum(first.values()):.0f} s",
        f"fp32 took {first['pre-training']:.0f} s",
    ):
        assert told in page


def read_record(name):
    """A record of the benchmarks that is one JSON object."""
    return json.loads((ROOT / "benchmarks" / "records" / name).read_text(encoding="utf-8"))


def prose_of(page):
    """A page's words, whatever its lines."""
    return " ".join((ROOT / "docs" / page).read_text(encoding="utf-8").split())


def test_the_page_on_speed_tells_the_recorded_starts():
    record, page = read_record("startup.json"), prose_of("speed.md")
    before, after = (record[when]["cpu_seconds"] for when in ("before", "after"))
    libraries, search = "import transformers' base class of models", "search, 100 children"
    for told in (
        f"`search --help` takes {after['search --help']:.1f} CPU-seconds where it took {before['search --help']:.1f}",
        f"takes {after[search] - after[libraries]:.1f} beside torch and transformers' base class of models",
        f"where it took {before[search] - before[libraries]:.1f}",
        f"these two alone take {after[libraries]:.1f} on this machine",
    ):
        assert told in page


def test_the_page_on_reliability_tells_the_recorded_checkpoints():
    page, large = prose_of("reliability.md"), read_record("checkpoint-large.json")["rounds"]
    saved, system = ([one[f"{what}_cpu_seconds"] for one in large] for what in ("save", "save_system"))
    small = read_record("checkpoint.json")
    held = {when: statistics.mean(one["held_beside_mebibytes"] for one in small[when]) for when in ("before", "now")}
    for told in (
        f"One of {large[0]['mebibytes'] * 2**20 / 1e9:.1f} GB is saved in {statistics.median(saved):.1f} CPU-seconds",
        f"({min(saved):.1f} to {max(saved):.1f} in {len(large)} rounds)",
        f"{statistics.median(system):.1f} of them in the kernel",
        f"held {max(one['held_beside_mebibytes'] for one in large):.0f} MiB beside what it restores",
        f"a checkpoint of {small['mebibytes']:.0f} MiB, {small['optimizer_mebibytes']:.0f} of them the optimizer's",
        f"it held {held['now']:.0f} MiB beside, and {held['before']:.0f} when",
    ):
        assert told in page


def test_the_table_of_threads_is_that_of_its_record():
    record, page = read_record("threads.json"), (ROOT / "docs" / "processes.md").read_text(encoding="utf-8")
    rows = {
        "two threads (default)": "default",
        "two threads, passive": "passive",
        "two threads, `GOMP_SPINCOUNT=10000`": "spin_10000",
        "one thread": "one_thread",
        "two processes of one thread": "two_processes",
    }
    for row, name in rows.items():
        assert f"| {row} | {record['alone'][name]:,} | {record['busy'][name]:,} |" in page
    kept = {name: record["busy"][name] / record["alone"][name] for name in ("default", "passive")}
    assert f"by default they keep {kept['default']:.3f}, passive ones {kept['passive']:.2f}" in prose_of(
        "processes.md"
    )


def test_the_page_on_commands_tells_what_batches_of_like_length_cost():
    record = read_record("lengths.json")
    mixed, sorted_ = (record["batches"][name] for name in ("mixed", "by length"))
    lower = [
        statistics.mean(mixed[f"{split}_accuracy"]) - statistics.mean(sorted_[f"{split}_accuracy"])
        for split in ("validation", "test")
    ]
    page = prose_of("commands.md")
    assert f"accuracies {lower[0]:.3f} and {lower[1]:.3f} lower on the two splits" in page
    assert f"takes {record['ratio_of_cpu_seconds']:.2f} of the CPU time" in page


def test_the_page_on_searches_tells_what_the_filter_keeps():
    found, page = read_record("scoring-filter.json")["supernets"].values(), prose_of("search.md")

    def span(name, factor=1, form=".2f"):
        values = sorted(factor * one[name] for one in found)
        return f"{values[0]:{form}} to {values[-1]:{form}}"

    assert all(one["best_10_kept"] == 10 and one["place_of_the_best"] == 0 for one in found)
    assert f"tau with exact losses is {span('tau')}" in page
    assert f"{span('best_tenth_kept', 100, '.0f')} % of the exact best tenth" in page
    assert f"it took {span('ratio', form='.1f')} times less CPU time" in page


def test_the_readme_tells_the_ratio_of_scoring_with_the_same_head():
    record = read_record("scoring.json")
    assert record["versions"]["cpu"] == "AMD EPYC"
    told = f"{record['cases']['4^6']['ratio_masked']:.1f} times as fast as one by one"
    assert told in " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())


def test_the_page_on_speed_tells_the_counted_operator_calls():
    calls = read_record("scoring.json")["calls"]
    told = f"{calls['num_operator_calls']:,} operator calls, where one by one they are"
    assert f"{told} {calls['num_naive_operator_calls']:,}" in prose_of("speed.md")


def test_the_readme_is_read_in_minutes():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 1200


def test_the_tree_of_the_source_names_every_file():
    tree = runpy.run_path(str(ROOT / "benchmarks" / "source_tree.py"))["tree"]()
    page = (ROOT / "docs" / "code.md").read_text(encoding="utf-8")
    assert f"<!-- table: tree -->\n{tree}\n<!-- end -->" in page, "run: python benchmarks/source_tree.py --write"
    assert tree.count("\n  - ") > 200


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text(encoding="utf-8")):
        file, _, anchor = target.partition("#")
        found = (page.parent / file) if file else page
        assert found.exists(), f"{page.name} links to {target}"
        if anchor:
            titles = re.findall(r"^#+ (.*)$", found.read_text(encoding="utf-8"), flags=re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor in anchors, f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_names_a_target_or_a_file(page):
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    for target in re.findall(r"^make ([\w-]+)", text, flags=re.MULTILINE):
        assert target in targets
    for file in re.findall(r"\brecipes/[\w./-]+\.(?:py|yaml|txt)", text):
        assert (ROOT / file).exists(), f"{page.name} names {file}"


def commands_of(page: Path) -> list[list[str]]:
    """The lines of a page's blocks that call this package, as words."""
    found = []
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.M):
        for line in [] if language in ("text", "python") else block.replace("\\\n", " ").splitlines():
            if line.startswith("hf-nasbert "):
                found.append(shlex.split(line, comments=True)[1:])
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_has_settings_that_there_are(page, caplog, monkeypatch):
    """Under today's names: a page that teaches an old one ages with the next release."""
    from hf_nasbert.recipe_arguments import parse_recipe_arguments

    monkeypatch.chdir(ROOT)
    for name, *argv in commands_of(page):
        if "--help" in argv:
            continue
        command = cli.COMMANDS[name]
        kinds = [cli.find(kind) for kind in (*command.arguments, *([cli._TIME] if command.is_long else []))]
        looked_up = ["--packaged", "imdb"] if command.look == cli._TRAINED_ON else []  # from the model's folder
        if {"--packaged", "--train_files", "--dataset_name", "--config"} & set(argv):
            looked_up = []
        parse_recipe_arguments(kinds, [*argv, *looked_up])
        assert caplog.text == "", argv


def test_the_pages_have_commands():
    assert len(commands_of(ROOT / "docs" / "howto.md")) > 10
    assert len(commands_of(ROOT / "README.md")) == 4


def recipes() -> list[Path]:
    return sorted((ROOT / "recipes").glob("*.py"))


@pytest.mark.parametrize("recipe", recipes(), ids=lambda recipe: recipe.stem)
def test_a_recipe_is_a_how_to_and_one_command(recipe, monkeypatch):
    called = []
    monkeypatch.setattr(cli, "main", lambda argv: called.append(argv))
    run_recipe(recipe.stem, "--config", "a.yaml")
    ((command, *rest),) = called
    assert rest == ["--config", "a.yaml"]
    assert command in cli.COMMANDS
    text = recipe.read_text(encoding="utf-8")
    assert re.search(rf"^python recipes/{recipe.name} ", text, flags=re.MULTILINE)
    assert f"| `recipes/{recipe.name}` | `{command}` |" in (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")


def test_every_command_but_three_has_a_recipe():
    text = "".join(recipe.read_text(encoding="utf-8") for recipe in recipes())
    assert cli.COMMANDS.keys() - set(re.findall(r'main\(\["([\w-]+)"', text)) == {"run", "plan", "pull"}


@pytest.mark.parametrize("command", sorted(cli.COMMANDS))
def test_commands_list_their_settings_and_refuse_misspelt_ones(command, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    assert "--config" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--no_such_setting", "1"])
    assert ended.value.code == 2
    assert "no_such_setting" in capsys.readouterr().err


def test_super_net_configs_parse(tmp_path):
    from hf_nasbert.data import DataArguments
    from hf_nasbert.methods import METHODS
    from hf_nasbert.pipeline import PipelineArguments
    from hf_nasbert.recipe_arguments import find_config, parse_recipe_arguments
    from hf_nasbert.training import SupernetArguments, SupernetTrainingArguments

    config = "supernet"
    for method in METHODS:
        space, _, training = parse_recipe_arguments(
            [SupernetArguments, DataArguments, SupernetTrainingArguments],
            ["--config", config, "--method", method],
        )
        assert space.build_config(vocab_size=100).space.num_children == 4096
        assert type(training.method_settings) is METHODS[method].Settings
    types = [SupernetArguments, DataArguments, SupernetTrainingArguments, PipelineArguments]
    training = parse_recipe_arguments(types, ["--config", "quickstart-scratch"])[2]
    assert (training.method, training.method_settings.alignment_rows) == ("magic_at", 0.5)
    misspelt = {**yaml.safe_load(find_config("quickstart-scratch").read_text(encoding="utf-8")), "max_step": 3}
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(misspelt))
    with pytest.raises(SystemExit):
        parse_recipe_arguments(types, ["--config", str(tmp_path / "bad.yaml")])


def test_config_fields_are_documented():
    from hf_nasbert.modeling import NasBertConfig, SupernetConfig

    inherited = {field.name for field in dataclasses.fields(PreTrainedConfig)}
    for config in (NasBertConfig, SupernetConfig):
        documented = "".join(base.__doc__ or "" for base in config.__mro__ if base.__module__.startswith("hf_nasbert"))
        for field in dataclasses.fields(config):
            if field.name not in inherited:
                said = re.search(rf"^ +{field.name}: ", documented, re.MULTILINE)
                assert said, f"{config.__name__}.{field.name} is not documented"


def test_papers_page_names_files_that_exist():
    text = (ROOT / "docs/papers.md").read_text(encoding="utf-8")
    for name in re.findall(r"`([\w/]+(?:\.py|/))`", text):
        assert (ROOT / "src/hf_nasbert" / name).exists(), f"docs/papers.md names {name}"


@pytest.mark.parametrize("card", sorted((ROOT / "model_cards").glob("*.md")), ids=lambda card: card.stem)
def test_model_cards_are_what_their_records_say(card):
    if card.stem.startswith("table-"):
        name = card.stem.removeprefix("table-")
        facts = read_table_facts(find_table(name))
        rendered = render_table_card(name, GroundTruth(load_table(name)), facts=facts, is_packaged=True)
    else:
        record = json.loads(card.with_suffix(".json").read_text(encoding="utf-8"))
        rendered = (render_supernet_card if "search_space" in record else render_child_card)(record)
    assert card.read_text(encoding="utf-8") == rendered


def test_there_are_cards_of_every_kind():
    cards = {card.stem for card in (ROOT / "model_cards").glob("*.md")}
    assert cards >= {"quickstart-child", "quickstart-supernet", "table-imdb", "table-minilm"}


def test_the_quickstarts_cards_say_what_its_stages_recorded_and_arithmetic_says():
    """The super-net is that of the recipe, and every count of both cards is computed anew."""
    from hf_nasbert.pipeline.extraction import cost_of_bert_beside
    from hf_nasbert.training import SupernetArguments

    stages = records.read(ROOT / "benchmarks/records/quickstart-stages.jsonl.gz")
    said = {record["stage"]: record["content"] for record in stages}
    child, net = (
        json.loads((ROOT / f"model_cards/quickstart-{kind}.json").read_text(encoding="utf-8"))
        for kind in ("child", "supernet")
    )
    space = SupernetArguments(preset="quickstart").build_config(vocab_size=said["text"]["vocab_size"])
    assert net["search_space"] == space.search_space
    assert child["architecture"] == net["example"] == said["scores"]["winner"]
    cost = costs.cost_function(space, sequence_length=said["text"]["sequence_length"])(
        child["architecture"].split("-")
    )
    assert child["cost"] == {name: cost[name] for name in child["cost"]}
    bert = cost_of_bert_beside(space, child["architecture"].split("-"), said["text"]["sequence_length"])
    assert child["bert_cost"] == {name: bert[name] for name in ("name", *child["cost"])}
    supernet = SupernetForMaskedLM(space)
    assert net["cost"]["parameters of the super-net"] == sum(p.numel() for p in supernet.parameters())
    training = {name: said["super-net"][name] for name in ("num_steps", "num_tokens")}
    assert net["training"].items() >= training.items()
    scores = said["scores"]
    assert [net["search"]["num_scored"], child["search"]["num_scored"]] == [scores["num_scored"]] * 2
    assert (
        net["search"]["its proxy loss (nats per masked token)"]
        == child["search"]["proxy_loss"]
        == scores["proxy_loss"]
    )


def test_children_trained_on_a_gpu_end_where_they_end_on_a_cpu():
    trainings = {(child["architecture"], child["seed"]): child for child in load_table("imdb")}
    again = records.read(ROOT / "benchmarks" / "records" / "table-imdb-again.jsonl.gz")
    pairs = [(trainings[child["architecture"], child["seed"]], child) for child in again]
    assert all("gpu" in second["versions"] and not first["versions"].get("gpu") for first, second in pairs)
    differences = [abs(first["dev_loss"] - second["dev_loss"]) for first, second in pairs]
    page = (ROOT / "docs" / "appendix" / "ranking.md").read_text(encoding="utf-8")
    assert f"within {max(differences):.4f} of it ({sum(differences) / 5:.4f} on average)" in page
    assert max(differences) < GroundTruth(load_table("imdb")).seed_noise / 9


def test_the_table_of_scoring_is_that_of_its_record():
    cases = json.loads((ROOT / "benchmarks" / "records" / "scoring.json").read_text(encoding="utf-8"))["cases"]
    page = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    named = {"all 729 of 3^6": "3^6", "all 4,096 of 4^6": "4^6", "1,000 random ones of 5^12": "random 1000 of 5^12"}
    named |= {"generations of 50 offspring, 5^12": "generations of 50, 5^12"}
    rows = [(row, cases[case], "ratio") for row, case in named.items()]
    rows.append(("the same, ordered by a filter, the best tenth exactly", cases["4^6"], "ratio_filtered"))
    for row, case, ratio in rows:
        assert f"| {row} | {case[f'{ratio}_plain']:.1f} | {case[f'{ratio}_masked']:.1f} |" in page


def test_the_pilots_table_is_that_of_its_records():
    pilot = runpy.run_path(str(ROOT / "benchmarks" / "pilot.py"))
    page = (ROOT / "docs" / "appendix" / "ranking.md").read_text(encoding="utf-8")
    assert f"<!-- table: pilot -->\n{pilot['table']()}\n<!-- end -->" in page
    for name in pilot["SETTINGS"]:
        assert f"| `{name}` |" in page


def test_what_the_pilot_is_said_to_show_later():
    read = runpy.run_path(str(ROOT / "benchmarks" / "pilot.py"))["read"]
    page = " ".join((ROOT / "docs" / "appendix" / "ranking.md").read_text(encoding="utf-8").split())

    def losses_of(name):
        """Children scored by the setting's super-net: their mean loss alone, and the super-net's at its end."""
        found = {}
        for record in read(f"pilot-{name}"):
            found.setdefault(record["architecture"], []).append(record["dev_loss"])
        (supernet,) = read(f"pilot-{name}-supernet")
        return {
            child: (sum(found[child]) / len(found[child]), score)
            for child, score in zip(supernet["children"], supernet["scores"][-1][1], strict=True)
        }

    two = losses_of("stem8-two")
    attentions = [child.count("attention") for child in two]
    alone, shared = (kendall_tau(attentions, [pair[side] for pair in two.values()]) for side in (0, 1))
    assert (
        f"(a tau of {alone:.2f} between number of attentions and loss) and the worse ones with shared weights" in page
    )
    assert f"with shared weights ({shared:.2f})" in page
    holding = {child: pair for child, pair in losses_of("plain5").items() if "conv3" in child}
    assert len(holding) == 7
    tau = kendall_tau(*zip(*holding.values(), strict=True))
    assert f"and of {tau:.2f} over the seven that hold a `conv3`" in page
    for name, words in (
        ("stem8-two", "ends at {} where two trainings agree by 0.64"),
        ("stem5-equal", "whose operators cost the same, at {},"),
        ("stem5-quicker", "`stem5-quicker` had {}."),
        ("plain5", "ends at a tau of {} over all"),
    ):
        pairs = losses_of(name)
        assert words.format(f"{kendall_tau(*zip(*pairs.values(), strict=True)):.2f}") in page, name


@pytest.mark.parametrize("name", ["faults", "memory"])
def test_the_tables_of_reliability_are_those_of_their_records(name):
    benchmark = runpy.run_path(str(ROOT / "benchmarks" / f"{name}.py"))
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    for place, table in benchmark["tables"](records.read(ROOT / f"benchmarks/records/{name}.jsonl.gz")).items():
        assert f"<!-- table: {place} -->\n{table}\n<!-- end -->" in page


def test_a_hundred_kills_hit_every_part_of_a_run_and_changed_no_bit():
    found = records.read(ROOT / "benchmarks/records/faults.jsonl.gz")
    kills = [record for record in found if record["record"] == "kill"]
    parts = runpy.run_path(str(ROOT / "benchmarks" / "faults.py"))["PARTS"]
    assert len(kills) >= 100
    assert {kill["part"] for kill in kills} == set(parts)
    assert all("resumed_at" in kill for kill in kills)
    assert all(record["mismatches"] == [] for record in found if record["record"] == "run")


def messages_of_the_source() -> list[str]:
    """Every string of the source, with … for what is put into it."""
    found = []
    for file in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append(
                    "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def test_troubleshooting_quotes_real_messages():
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    quoted = re.findall(r"```text\n(.*?)\n```", page, flags=re.DOTALL)
    assert len(quoted) > 10
    known = messages_of_the_source()
    for message in quoted:
        assert message in known, f"nothing in the source says: {message}"


def test_the_sites_pages_are_all_in_its_menu():
    menu = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8").replace("!!python", ""))["nav"]
    listed = set(re.findall(r"[\w/-]+\.(?:md|ipynb)", json.dumps(menu)))
    docs = ROOT / "docs"
    assert listed == {str(page.relative_to(docs)) for page in [*docs.rglob("*.md"), *docs.rglob("*.ipynb")]}


def test_reliability_tells_what_bf16_takes_and_what_it_changes():
    page = " ".join((ROOT / "docs" / "reliability.md").read_text(encoding="utf-8").split())
    step = json.loads((ROOT / "benchmarks" / "records" / "step-bf16.json").read_text(encoding="utf-8"))
    told = [f"{step[f'bf16_over_fp32_hidden{hidden}']['median']:.2f}" for hidden in (128, 256, 768)]
    assert "{} (hidden 128), {} (256) and {} (768)".format(*told) in page
    runs = records.read(ROOT / "benchmarks" / "records" / "precision.jsonl.gz")
    assert all(run["has_bf16_units"] for run in runs)
    fp32, bf16 = (
        [run for run in sorted(runs, key=lambda run: run["seed"]) if run["precision"] == precision]
        for precision in ("no", "bf16")
    )
    (whole, half), seconds = (
        [[run[key] if key == "cpu_seconds" else run["dev_losses"][-1][1] for run in some] for some in (fp32, bf16)]
        for key in ("dev_losses", "cpu_seconds")
    )
    apart = [abs(a - b) for a, b in zip(whole, half, strict=True)]
    seeds = [abs(a - b) for a, b in itertools.combinations(whole, 2)]
    bounds = "{:.4f} to {:.4f} nats, two seeds in fp32 by {:.4f} to {:.4f}"
    assert bounds.format(min(apart), max(apart), min(seeds), max(seeds)) in page
    bounds = "{} to {} CPU-seconds a run in fp32, {} to {} in bf16"
    assert bounds.format(*(bound(some) for some in seconds for bound in (min, max))) in page
