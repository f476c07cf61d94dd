from twinreel.engine.loop.terminal import Terminal, number


def test_numbers_are_short():
    values = [1234.56, 0.0123456, 2.0, float("nan"), 3e-7]
    assert [number(value) for value in values] == ["1235", "0.01235", "2", "nan", "3e-07"]


def test_plain_lines_where_there_is_no_terminal(capsys, monkeypatch):
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    with Terminal(steps=100) as terminal:
        terminal.start(40)
        terminal.metrics({"loss": 2.5, "scale": 14.0, "other": 1.0}, step=60)
        with terminal.paused():
            terminal.say("[a] note")
        terminal.evaluation({"val/t2v_R@1": 41.5}, step=60)
    out = capsys.readouterr()
    assert out.out == ""
    assert out.err.splitlines() == [
        "step 60/100  loss 2.5  scale 14  left 0:00:00",
        "[a] note",
        "eval at step 60:  val/t2v_R@1 41.5",
    ]


def test_a_bar_in_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with Terminal(steps=100) as terminal:
        with terminal.working("compiling the step"):
            pass
        terminal.start(40)
        terminal.step(50)
        terminal.metrics({"loss": 2.5}, step=60)
        with terminal.paused():
            terminal.say("an evaluation with a bar of its own")
        terminal.evaluation({"val/t2v_R@1": 41.5}, step=60)
    shown = capsys.readouterr().err
    assert "60/100" in shown
    assert "eval at step 60:  val/t2v_R@1 41.5" in shown


def test_silent_on_other_processes(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with Terminal(steps=10, quiet=True) as terminal:
        terminal.start(0)
        terminal.metrics({"loss": 2.5}, step=6)
        terminal.say("nothing")
    assert capsys.readouterr().err == ""
