import io

from stl_deploy._util.console import Console

RECORD = {
    "epoch": 2,
    "epochs": 10,
    "loss": 0.0123,
    "train_accuracy": 0.5,
    "validation_accuracy": 0.75,
    "rates": {"lif1": 0.1, "lif2": 0.25},
    "thresholds": {"lif1": {"min": 0.9, "mean": 1.0, "max": 1.1}, "lif2": {"min": 0.5, "mean": 1.0, "max": 1.0}},
    "seconds": 1.26,
}


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_plain_lines_off_a_terminal():
    stream = io.StringIO()
    console = Console(stream=stream)
    console.step("Train")
    console.epoch(RECORD)
    console.table(["name", "n"], [["a", "10"], ["long name", "2"]])
    console.warn("mind [this]")
    assert stream.getvalue().splitlines() == [
        "Train",
        "epoch  2/10  loss 0.0123  train  50.00%  val  75.00%  spike rates 0.100 0.250  θ 0.50..1.10  1.3 s",
        "name       n",
        "a          10",
        "long name  2",
        "warning: mind [this]",
    ]


def test_a_line_is_written_at_once():
    """Else a signal's message may come between its text and its end."""

    class Listener(io.StringIO):
        def write(self, text):
            writes.append(text)

    writes = []
    Console(stream=Listener()).say("half\nand half")
    assert writes == ["half\nand half\n"]


def test_quiet_leaves_warnings():
    stream = io.StringIO()
    console = Console(quiet=True, stream=stream)
    console.say("hello")
    console.step("hello")
    console.epoch(RECORD)
    console.table(["a"], [["b"]])
    console.warn("only this")
    assert stream.getvalue() == "warning: only this\n"


def test_a_terminal_gets_the_same_words():
    stream = _Terminal()
    console = Console(stream=stream)
    console.step("Train [bold]")
    console.epoch({**RECORD, "thresholds": {}})
    console.table(["name"], [["[red]x"]])
    text = stream.getvalue()
    assert "Train [bold]" in text
    assert "rates 0.10..0.25" in text
    assert "θ" not in text
    assert "[red]x" in text
