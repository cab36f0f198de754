"""The programs as a user starts them, in processes that have imported PyTorch already, which takes seconds.

Tests of what happens before or while it is imported, of signals to a whole group, and of output that is read while it
is written start a Python of their own.
"""

import atexit
import contextlib
import logging
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

ROOT = Path(__file__).parent.parent
METHOD = multiprocessing.get_start_method()  # Python's own, for the processes that a program starts
SERVER = multiprocessing.get_context("forkserver")  # one process, that has imported all of it, and forks the others
SERVER.set_forkserver_preload(["tests.warm"])


class Program:
    """`python SCRIPT WORDS`, under way: what `subprocess.Popen` has of one, as far as tests need it."""

    def __init__(self, script, *words, cwd=".", input="", env=()) -> None:
        self._folder = tempfile.TemporaryDirectory()
        files = [Path(self._folder.name) / name for name in ("in", "out", "err")]
        for file, text in zip(files, (input, "", ""), strict=True):
            file.write_text(text)
        given = (
            [str(ROOT / script), *latest(map(str, words))],
            os.path.realpath(cwd),
            {**os.environ, **dict(env)},
            files,
        )
        self._process = SERVER.Process(target=_run, args=(*given, METHOD))
        with contextlib.chdir(ROOT):  # where the server, which the first one starts, finds what it is to import
            self._process.start()
        self._files, self.pid, self.returncode = files, self._process.pid, None

    def poll(self):
        self.returncode = self._process.exitcode
        return self.returncode

    def wait(self, timeout=None):
        self._process.join(timeout)
        if self.poll() is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout)
        return self.returncode

    def communicate(self, timeout=None):
        self.wait(timeout)
        return tuple(file.read_text(errors="replace") for file in self._files[1:])

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)


def latest(words):
    """Of words that set the same key the last: a test's own instead of what it shares with others."""
    return list({word.partition("=")[0]: word for word in words}.values())


def call(script, *words, **more) -> subprocess.CompletedProcess:
    """`python SCRIPT WORDS`, to its end."""
    program = Program(script, *words, **more)
    out, errors = program.communicate()
    return subprocess.CompletedProcess([script, *words], program.returncode, out, errors)


def _run(words, cwd, environment, files, method):
    """In the child: as Python itself would run the script."""
    multiprocessing.set_start_method(method, force=True)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    for number, file in enumerate(files):
        opened = os.open(file, os.O_WRONLY | os.O_APPEND if number else os.O_RDONLY)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(n, mode, closefd=False) for n, mode in enumerate("rww"))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in [name for name in sys.modules if name.partition(".")[0] == "huggingface_hub"]:
        del sys.modules[name]  # where another library has imported it: it looks at the environment only then
    sys.argv, sys.path[0] = words, str(Path(words[0]).parent)
    code = 1
    try:
        runpy.run_path(words[0], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except BaseException:
        traceback.print_exc()
    atexit._run_exitfuncs()
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(code)
