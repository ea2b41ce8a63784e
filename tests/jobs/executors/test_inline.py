"""Units in the calling thread."""

import threading

import pytest

from benchmark.jobs.executors.inline import Inline
from benchmark.jobs.executors.messages import run_and_report


def test_a_unit_runs_where_and_when_it_is_submitted():
    ran = []

    def run(spec, report):
        ran.append(threading.get_ident())
        report({"epoch": 1})
        return {"doubled": 2 * spec["x"]}

    heard = []
    executor = Inline(run, heard.append)
    futures = [executor.submit({"x": x}) for x in (3, 4)]
    assert ran == [threading.get_ident()] * 2 and all(f.done() for f in futures)
    assert [f.result() for f in futures] == [{"doubled": 6}, {"doubled": 8}]
    assert heard == [{"epoch": 1}] * 2
    executor.close()


def test_an_exception_stays_in_its_future():
    def run(spec, report):
        report({"nobody": "listens"})
        raise KeyError(spec["x"])

    executor = Inline(run)
    with pytest.raises(KeyError, match="7"):
        executor.submit({"x": 7}).result()


def test_a_unit_that_exits_the_interpreter_fails_and_does_not_end_the_driver():
    def run(spec, report):
        raise SystemExit(0)

    with pytest.raises(SystemExit):
        Inline(run).submit({}).result()
    sent = []
    run_and_report(run, {}, sent.append)
    ((kind, text),) = [(message["error"]["type"], message["error"]["message"]) for message in sent]
    assert kind == "UnitFailedError" and text.startswith("SystemExit: 0\n") and "test_inline.py" in text


def test_ctrl_c_reaches_the_driver():
    def run(spec, report):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Inline(run).submit({})
