"""Where NSGA-II keeps its study: every trouble of a database or journal is one line, and what was told survives it."""

import sqlite3
import urllib.parse
from contextlib import closing

import pytest
from tiny.searches import CHAIN, cost_of, drain, new, score

from hf_nasbert import records
from hf_nasbert.costs import Budget
from hf_nasbert.report import read_findings
from hf_nasbert.searching import ParetoSearch, RandomSearch, SearchTask, run_search
from hf_nasbert.searching import storage as storage_room

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # connections that SQLAlchemy drops with its engine


def make(storage, **keywords):
    return new(
        ParetoSearch, CHAIN, seed=0, cost=cost_of(CHAIN), population_size=10, batch_size=8, storage=storage, **keywords
    )


def no_database(path):
    path.write_bytes(b"not a database at all" * 500)


def other_tables(path):
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("create table studies (x int)")
    connection.close()


def in_no_folder(path):
    path.parent.rmdir()


def a_folder(path):
    path.mkdir()


def no_journal(path):
    path.write_text("once upon a time\nthere was\n")


def torn_journal(path):
    path.write_text('{"op_code": 0, "wor')


TROUBLES = {
    "unwritable": ("sqlite:///{}", in_no_folder, OSError, "cannot be written: does its folder exist.*unable to open"),
    "a folder": ("sqlite:///{}", a_folder, OSError, "cannot be written: does its folder exist"),
    "damaged": ("sqlite:///{}", no_database, OSError, "is damaged, or is none: name another.*file is not a database"),
    "of others": ("sqlite:///{}", other_tables, OSError, "holds tables that are not Optuna's: name another"),
    "unknown scheme": ("foo://{}", None, ValueError, r"names no known kind of database.*such as sqlite:///search\.db"),
    "no such driver": (
        "mysql+pymysql://me:secret@there/x",
        None,
        ImportError,
        "needs pymysql, which is not installed",
    ),
    "redis": ("redis://there", None, ValueError, "names no known kind of database"),
    "no port": ("mysql://me:secret@there:port/x", None, ValueError, "is no URL.*expected a database's URL"),
    "half a URL": ("sqlite:study.db", None, ValueError, "is neither a URL nor a path: expected a database's URL"),
    "nothing": ("", None, ValueError, "is neither a URL nor a path"),
    "no journal": ("{}", no_journal, ValueError, "is damaged, or is no journal of Optuna's: name another"),
    "torn journal": ("{}", torn_journal, ValueError, "is damaged, or is no journal of Optuna's"),
    "a folder as journal": ("{}", a_folder, OSError, "cannot be read or written: it is a folder"),
}


@pytest.mark.parametrize("name", TROUBLES)
def test_a_storage_that_cannot_be_opened_is_one_line(name, tmp_path):
    form, prepare, kind, message = TROUBLES[name]
    path = tmp_path / "made" / "s"
    path.parent.mkdir()
    if prepare is not None:
        prepare(path)
    with pytest.raises(kind, match=message) as raised:
        make(form.format(path))
    assert "\n" not in str(raised.value)
    assert "secret" not in str(raised.value)
    assert str(raised.value).startswith("storage ")


PASSWORDS = [
    "se@cret",
    "se:cret",
    "se/cret",
    "se%cret",
    "se cret",
    "se#cret",
    "se?cret",
    "se'cret",
    "sécret",
    "{secret}",
    "s}e{",
]


@pytest.mark.parametrize("form", ["raw", "quoted", "query", "IPv6", "half", "typo"])
@pytest.mark.parametrize("password", PASSWORDS)
def test_no_password_is_shown(form, password, caplog, capfd):
    """Neither by this package nor by what it logs; nor the half of one that SQLAlchemy takes for something else."""
    quoted = urllib.parse.quote(password, safe="")
    storage = {
        "raw": f"mysql+pymysql://me:{password}@there/x",
        "quoted": f"mysql+pymysql://me:{quoted}@there:3306/x",
        "query": f"mysql+pymysql://me@there/x?password={quoted}&ssl_key=a",
        "IPv6": f"mysql+pymysql://me:{quoted}@[::1]:3306/x",
        "half": f"mysql:me:{password}@there/x",
        "typo": f"mysql+pymysql://me:{password}@there:33o6/x",
    }[form]
    with pytest.raises((ValueError, ImportError)) as raised:
        make(storage)
    said = f"{raised.value}{caplog.text}{''.join(capfd.readouterr())}"
    for part in ("cret", password, quoted, "s}", "e{"):
        assert part not in said, said
    assert str(raised.value).startswith("storage mysql")
    assert "\n" not in str(raised.value)
    if form in ("quoted", "query", "IPv6"):
        assert "needs pymysql, which is not installed" in said


def test_what_a_driver_says_holds_no_password():
    from sqlalchemy import exc

    url = "postgresql://u:p%40ss@h/d?sslpassword=hush&options=-c"
    for said in ("no such host: u:p@ss@h", "bad sslpassword hush"):
        with (
            pytest.raises(OSError, match=r"storage postgresql://u:\*\*\*@h/d ") as raised,
            storage_room.storage_errors(url),
        ):
            raise exc.OperationalError("select", {}, Exception(said))
        assert "p@ss" not in str(raised.value)
        assert "hush" not in str(raised.value)


@pytest.mark.parametrize(
    "name", ["a?b", "a#b", "a%20b", "a%b", "a{b}c", "{SCHEMA_VERSION}", "a b", "größe", "a;b", "a&b=c"]
)
def test_a_path_is_not_read_as_a_part_of_an_address(name, tmp_path):
    folder = tmp_path / name
    folder.mkdir()
    make(folder / "s.db")
    assert [file.name for file in folder.iterdir()] == ["s.db"]
    assert [file.name for file in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    "form", ["~/s.journal", "sqlite:///~/s.journal", "$THERE/s.journal", "sqlite:///${THERE}/s.journal"]
)
def test_the_home_folder_and_variables_are_those_of_a_shell(form, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("THERE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    make(form)
    assert "s.journal" in {path.name for path in tmp_path.iterdir()}
    assert not (tmp_path / "~").exists()


def test_a_database_of_another_version_of_optuna_is_one_line(tmp_path):
    make(tmp_path / "s.db")
    with closing(sqlite3.connect(tmp_path / "s.db")) as connection, connection:
        connection.execute("update alembic_version set version_num = 'v9.9.9'")
        connection.execute("update version_info set library_version = '9.9.9'")
    connection.close()
    with pytest.raises(ValueError, match=r"s\.db is of another version of Optuna") as raised:
        make(tmp_path / "s.db")
    assert "\n" not in str(raised.value)


def test_a_study_of_somebody_else_s_is_one_line(tmp_path):
    """One that another program has made under that name, with trials of its own; and one whose settings are odd."""
    import optuna

    storage = tmp_path / "s.db"
    study = optuna.create_study(study_name="search", storage=f"sqlite:///{storage}", directions=["minimize"] * 2)
    study.add_trial(optuna.trial.create_trial(values=[1.0, 2.0]))
    message = r"s\.db: the study 'search' was not made by this search: name another storage"
    with pytest.raises(ValueError, match=message):
        make(storage)
    study.set_user_attr("settings", "odd")
    with pytest.raises(ValueError, match=message):
        make(storage)


@pytest.mark.slow
def test_a_locked_database_is_waited_for_and_then_named(tmp_path, monkeypatch):
    monkeypatch.setattr(storage_room, "_SECONDS_LOCKED", 0.1)
    path = tmp_path / "study.db"
    search = make(f"sqlite:///{path}")
    children = search.ask()
    other = sqlite3.connect(path)
    other.execute("begin exclusive")
    for held in (lambda: make(f"sqlite:///{path}"), lambda: search.tell(children, score(children))):
        with pytest.raises(OSError, match=r"is locked by another program.*run the same command again") as raised:
            held()
        assert "\n" not in str(raised.value)
    other.close()
    again = make(f"sqlite:///{path}")
    assert again.ask() == children
    assert drain(again, 2) == drain(make(None), 2)


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_the_study_goes_on_when_there_is_room(tmp_path):
    from sqlalchemy import event

    path = tmp_path / "study.db"
    search = make(f"sqlite:///{path}")
    drain(search, 2)
    engine = search._study._storage._backend.engine
    event.listen(engine, "checkout", lambda connection, *_: connection.execute("pragma max_page_count = 1"))
    with pytest.raises(OSError, match=r"is whole, but the disk is full.*database or disk is full") as raised:
        drain(search, 20)
    assert "\n" not in str(raised.value)
    again = make(f"sqlite:///{path}")
    drain(again, 2)
    straight = make(None)
    drain(straight, 5)
    assert again.history == straight.history[: len(again.history)]
    assert len(again.history) > len(search.history) >= 16


@pytest.mark.slow
def test_a_study_that_is_lost_is_made_again_from_the_history(tmp_path):
    """What the message about a damaged storage says."""
    straight = run_search(make(None), score, num_evaluations=40)
    journal, history = tmp_path / "study.journal", tmp_path / "h.jsonl"
    run_search(make(str(journal)), score, num_evaluations=24, history_path=history)
    journal.write_text("torn")
    with pytest.raises(ValueError, match="move it away: a search with a history file goes on from that"):
        make(str(journal))
    journal.unlink()
    scored = []

    def watched(children):
        scored.extend(children)
        return score(children)

    search = make(str(journal))
    assert run_search(search, watched, num_evaluations=40, history_path=history) == straight
    assert len(scored) == 16
    assert len(search._study.trials) == 40


def test_trials_that_are_over_the_budget_by_the_costs_of_now_are_passed_over(tmp_path):
    storage, slower = str(tmp_path / "study.journal"), 1.0

    def cost(child):
        return {"num_parameters": 1, "latency_ms": slower * (1 + sum(name == "ffn" for name in child))}

    def again():
        task = SearchTask(CHAIN, seed=0, cost=cost, budget=Budget(max_latency_ms=4.0), batch_size=8)
        return ParetoSearch(task, storage=storage, population_size=8)

    search = again()
    asked = search.ask()
    search.tell(asked, score(asked))
    search.ask()
    known = {scored.architecture for scored in search.history}
    slower = 1.5
    within = {child for child in known if cost(child)["latency_ms"] <= 4}
    search = again()
    assert {scored.architecture for scored in search.history} == within < known
    assert all(cost(child)["latency_ms"] <= 4 for child in search.ask())


def test_a_history_that_is_lost_is_made_again_from_the_study(tmp_path):
    journal, history = str(tmp_path / "study.journal"), tmp_path / "h.jsonl"
    run_search(make(journal), score, num_evaluations=16, history_path=history)
    expected = records.read(history)
    history.unlink()
    run_search(make(journal), pytest.fail, num_evaluations=16, history_path=history)
    assert records.read(history) == expected
    run_search(make(journal), score, num_evaluations=24, history_path=history)
    assert len(records.read(history)) == 25
    assert records.read(history)[:17] == expected


def test_errors_of_the_search_itself_stay_what_they_are(tmp_path):
    storage = str(tmp_path / "study.journal")
    make(storage)
    with pytest.raises(
        ValueError, match=r"study\.journal.*: the study 'search' is of another search.*: name another storage"
    ):
        make(storage, worker=0, crossover_share=0.5)


def searches(kind=RandomSearch, **settings):
    return new(kind, CHAIN, seed=0, cost=cost_of(CHAIN), batch_size=8, **settings)


def test_two_searches_that_begin_one_history_at_the_same_moment_are_one(tmp_path, monkeypatch):
    """Another process writes its head, and its first score, between this one's look and its write."""
    history, straight = tmp_path / "h.jsonl", run_search(searches(), score, num_evaluations=24)
    other = tmp_path / "other.jsonl"
    run_search(searches(), score, num_evaluations=8, history_path=other)
    update = records.update

    def late(path, choose):
        if not path.exists():
            path.write_bytes(other.read_bytes())
        return update(path, choose)

    monkeypatch.setattr(records, "update", late)
    assert run_search(searches(), score, num_evaluations=24, history_path=history) == straight
    assert [record["record"] for record in records.read(history)].count("search") == 1


def test_a_history_with_two_equal_heads_is_read_as_one(tmp_path):
    history = tmp_path / "h.jsonl"
    straight = run_search(searches(), score, num_evaluations=24, history_path=history)
    head, *children = records.read(history)
    for place in (0, 5, len(children)):  # wherever the second one was written
        spoilt = tmp_path / f"{place}.jsonl"
        records.extend(spoilt, [head, *children[:place], {**head, "versions": {}}, *children[place:]])
        assert run_search(searches(), pytest.fail, num_evaluations=24, history_path=spoilt) == straight
        assert read_findings(records.read(spoilt)).num_scored == read_findings(records.read(history)).num_scored


def test_two_heads_of_different_searches_are_refused(tmp_path):
    history = tmp_path / "h.jsonl"
    run_search(searches(), score, num_evaluations=8, history_path=history)
    head = records.read(history)[0]
    records.append(history, {**head, "settings": {**head["settings"], "seed": 7}})
    with pytest.raises(ValueError, match=r"h\.jsonl is of another search: it differs in seed"):
        run_search(searches(), score, num_evaluations=24, history_path=history)
