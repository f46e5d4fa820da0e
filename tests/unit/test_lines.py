"""Log lines never stand in the way of a decision."""

import io
import json
import threading

from extauthz.telemetry.lines import LINES_MAX, LineWriter
from extauthz.telemetry.log import new_logger


class Pipe(io.StringIO):
    """A stream whose reader can stall, or be gone."""

    def __init__(self) -> None:
        super().__init__()
        self.reading = threading.Event()
        self.reading.set()
        self.broken = False

    def write(self, text: str) -> int:
        """Wait for the reader, and fail when there is none."""
        self.reading.wait()
        if self.broken:
            raise BrokenPipeError
        return super().write(text)


def test_lines_arrive_in_order() -> None:
    """What is written comes out, the last line too."""
    pipe = Pipe()
    writer = LineWriter(pipe)

    for number in range(100):
        writer.write(f"{number}\n")
    writer.close()

    assert pipe.getvalue() == "".join(f"{number}\n" for number in range(100))


def test_a_broken_stream_is_nobodys_trouble() -> None:
    """A closed pipe raises nothing; once it can be written to again, it tells what was lost."""
    pipe = Pipe()
    pipe.broken = True
    writer = LineWriter(pipe)

    writer.write("lost\n")
    while not writer._dropped:
        threading.Event().wait(0.001)
    pipe.broken = False
    writer.write("found\n")
    writer.close()

    assert pipe.getvalue() == '{"event": "log lines were lost", "count": 1}\nfound\n'


def test_a_stalled_reader_does_not_block() -> None:
    """With the queue full, lines are dropped and counted, and whoever writes goes on."""
    pipe = Pipe()
    pipe.reading.clear()
    writer = LineWriter(pipe)

    for _ in range(LINES_MAX + 50):
        writer.write("line\n")
    pipe.reading.set()
    while writer._lines.qsize():
        threading.Event().wait(0.001)
    writer.write("last\n")
    writer.close()

    told = [json.loads(line)["count"] for line in pipe.getvalue().splitlines() if line.startswith("{")]
    # The thread holds one line besides the queue, or none when it had not started yet.
    assert sum(told) in (49, 50)
    assert pipe.getvalue().count("line\n") + sum(told) == LINES_MAX + 50
    assert pipe.getvalue().endswith("last\n")


def test_the_logger_writes_one_json_line() -> None:
    """The logger of the server goes through such a stream."""
    stream = io.StringIO()
    log = new_logger(stream)

    log.info("denied", status=429)
    while not stream.getvalue():
        threading.Event().wait(0.001)

    assert '"event": "denied"' in stream.getvalue()
    assert stream.getvalue().endswith("}\n")
