"""A sweep that was killed ends as if it had not been; in a file of its own, as it takes a while."""

import os
import re
import signal
import time

from tests.sweeps.test_sweep import SEARCH, lines, results, sweep


def test_a_sweep_that_is_killed_or_interrupted_ends_as_if_it_had_not_been(tmp_path):
    words = (*SEARCH, "max_steps=20", "hydra.sweeper.total=4")
    whole = sweep(tmp_path / "whole", *words)
    assert whole.returncode == 0, whole.stderr
    for trial in (1, 2):  # while these are under way
        process = sweep(tmp_path / "killed", *words, wait=False)
        saved = tmp_path / "killed" / f"{trial:03}" / "checkpoints" / "step-00000010"
        until = time.monotonic() + 120
        while not saved.exists():
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL if trial == 1 else signal.SIGINT)
        _, told = process.communicate()
        assert trial == 1 or (process.returncode == 130 and "the same command goes on with the sweep" in told)
        assert not (tmp_path / "killed" / f"{trial:03}" / "metrics.json").exists()
    last = sweep(tmp_path / "killed", *words)
    assert last.returncode == 0, last.stderr
    assert "Going on with" in last.stdout and "2 of 4 trials have ended" in last.stdout
    assert results(tmp_path / "killed") == results(tmp_path / "whole")
    assert len(results(tmp_path / "whole")) == 4
    for trial in range(4):  # each was trained from its first step to its last once
        log = (tmp_path / "killed" / f"{trial:03}" / "log.txt").read_text()
        assert len(re.findall("step 20/20", log)) == 1, log
        assert ("Going on after step" in log) == (trial in (1, 2))
    again = sweep(tmp_path / "killed", *words)  # nothing is left to do
    assert again.returncode == 0 and "Trial " not in again.stdout and "step 10/20" not in again.stdout
    more = sweep(tmp_path / "killed", *words[:-1], "hydra.sweeper.total=5")
    assert more.stdout.count("Trial ") == 1 and "Trial 004, 5 of 5" in more.stdout
    assert len(lines(tmp_path / "killed")) == 5
