"""The cache: what is read of it is what was written. Damage is noticed, told in a line, and made good."""

import ctypes
import hashlib
import itertools
import json
import logging
import multiprocessing
import os
import pickle
import random
import resource
import shutil
import signal
import stat
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import fingerprint, settings
from tests.programs import call
from transformer_lab.data.cache import obtain
from transformer_lab.data.module import DataModule, StepSampler
from transformer_lab.data.packing import Blocks
from transformer_lab.data.plan import BatchPlan
from transformer_lab.data.sealed import BLOCK, Damaged, Sealed, seal
from transformer_lab.data.sources.docstrings import Docstrings
from transformer_lab.data.sources.text import Text
from transformer_lab.data.steps import Steps
from transformer_lab.data.store import Corpus, Ragged, prepare
from transformer_lab.data.tokenizers import Bytes
from transformer_lab.run.preparation import prepare_task
from transformer_lab.run.train import train
from transformer_lab.tasks.language_modeling import Collate, DocumentEncoding

ROOT = Path(__file__).parent.parent.parent
WORDS = Bytes().train([], special_tokens=["<eos>"])
FORK = multiprocessing.get_context("fork")


def cut(file, draw):
    os.truncate(file, draw.randrange(file.stat().st_size))


def empty(file, draw):
    os.truncate(file, 0)


def grow(file, draw):
    file.write_bytes(file.read_bytes() + b"\0")


def garbage(file, draw):
    file.write_bytes(draw.randbytes(file.stat().st_size))


def miss(file, draw):
    file.unlink()


def flip(file, draw):
    content = bytearray(file.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    file.write_bytes(content)


def swap(file, draw):
    """Bytes that were there, in another order."""
    content = file.read_bytes()
    half = len(content) // 2
    file.write_bytes(content[half:] + content[:half])
    if file.read_bytes() == content:
        flip(file, draw)


def folder_instead(file, draw):
    file.unlink()
    file.mkdir()


def pipe_instead(file, draw):
    file.unlink()
    os.mkfifo(file)


KINDS = [cut, empty, grow, garbage, miss, flip, swap, folder_instead, pipe_instead]
# Two splits of two columns and their packs, a tokenizer, the names of classes: all files, with a seal each.
FILES = [
    *(
        f"store/{split}.{column}.{part}"
        for split, column, part in itertools.product(
            ("train", "validation"), ("tokens", "classes"), ("values", "offsets")
        )
    ),
    *(
        f"packs/{split}/{name}"
        for split in ("train", "validation")
        for name in ("pieces", "offsets", "counts", "seal.json", "checksums")
    ),
    *(f"store/{name}" for name in ("store.json", "seal.json", "checksums")),
    *(f"{kind}/{name}" for kind in ("tokenizer", "facts") for name in (f"{kind}.json", "seal.json", "checksums")),
]


def config(place, cache):
    return settings(
        "task=classification",
        "data=labeled",
        f"data.path={place}/lines.tsv",
        "tokenizer.vocab_size=350",
        "data.max_examples=200",
        "model.dim=8",
        "model.num_layers=1",
        "data.test=0",
        f"cache_dir={cache}",
        "task.context=32",
        "allow_overlap=true",
    )


def all_that_is_read(config):
    """A hash of everything that a run would take from the cache."""
    made = prepare_task(config, weightless=True)
    read = [made.task.tokenizer.hash, json.dumps(made.facts), made.store.text_hash]
    for corpus in made.store.splits.values():
        packing = made.task.packing(corpus)
        read.append(packing.pieces(np.arange(packing.num_units)).tobytes())
        read += [part[:].tobytes() for column in corpus.columns.values() for part in (column.values, column.offsets)]
    return hashlib.sha256(repr(read).encode()).hexdigest()


def in_cache(cache, name):
    kind, *where, file = name.split("/")
    pattern = f"store-*/{where[0]}.packs-*/{file}" if kind == "packs" else f"{kind}-*/{file}"
    (found,) = cache.glob(pattern)
    return found


@pytest.fixture(scope="module")
def whole(place, tmp_path_factory):
    """A cache, and what is read of it."""
    cache = tmp_path_factory.mktemp("whole")
    return cache, all_that_is_read(config(place, cache))


def damages(files, count_of_kinds):
    for place, name in enumerate(files):
        for kind in range(count_of_kinds):
            change = KINDS[(place + kind) % len(KINDS)]
            yield pytest.param(name, change, id=f"{change.__name__} {name}")


def check_damage(name, change, whole, place, cache, caplog):
    shutil.copytree(whole[0], cache)
    file = in_cache(cache, name)
    written = file.read_bytes()
    change(file, random.Random(f"{name} {change.__name__}"))
    said = []
    try:
        found = all_that_is_read(config(place, cache))
        said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    except Damaged as error:  # noticed while it was read: the next start makes it anew
        said = [str(error)]
        found = all_that_is_read(config(place, cache))
    assert found == whole[1]
    assert [line for line in said if str(file) in line and "\n" not in line], said
    assert in_cache(cache, name).read_bytes() == written
    assert not list(cache.rglob(".*"))


@pytest.mark.parametrize(("name", "change"), damages([name for name in FILES if "validation" not in name], 1))
def test_damage_is_noticed_told_and_made_good(name, change, whole, place, tmp_path, caplog):
    check_damage(name, change, whole, place, tmp_path / "cache", caplog)


@pytest.mark.battery
@pytest.mark.parametrize(("name", "change"), damages(FILES, len(KINDS)))
def test_damage_of_any_kind_to_any_file(name, change, whole, place, tmp_path, caplog):
    """F16."""
    check_damage(name, change, whole, place, tmp_path / "cache", caplog)


RUN = [
    "data=text",
    "tokenizer=bytes",
    "model.dim=32",
    "model.num_layers=1",
    "task.context=32",
    "tokens_per_step=2048",
    "task.packing=documents",
    "pictures.layers=[]",
    "schedule=constant",
    "validate_every_steps=10",
    "max_steps=20",
]


@pytest.mark.battery
def test_forty_damages_to_the_data_of_a_run_that_goes_on(corpus_folder, tmp_path):
    """F16, as a program: each ends as the run that nothing happened to, after one more start at most."""
    whole_text = "".join(file.read_text() for file in sorted(corpus_folder.iterdir()))
    (tmp_path / "text.txt").write_text(whole_text[:20_000])  # ten steps read every block of it

    def start(folder, *more):
        own = [f"data.path={tmp_path}/text.txt", f"run_dir={folder}/run", f"cache_dir={folder}/cache"]
        return call("train.py", *RUN, *own, *more)

    start(tmp_path / "undisturbed")
    undisturbed = fingerprint(tmp_path / "undisturbed" / "run")
    assert start(tmp_path / "half", "max_steps=10").returncode == 0
    cache = tmp_path / "half" / "cache"
    files = sorted(path.relative_to(cache.parent) for path in cache.rglob("*") if path.is_file())
    files = [file for file in files if file.name != "train.tokens.offsets"]  # not read again once there are packs
    for number in range(40):
        here, draw = tmp_path / str(number), random.Random(number)
        shutil.copytree(tmp_path / "half", here, symlinks=True)
        file, change = here / files[number % len(files)], KINDS[number % len(KINDS)]
        change(file, draw)
        done = start(here, "resume=auto")
        said = " ".join((done.stdout + done.stderr).split())
        assert file.name in said and "Traceback" not in said, (file, change, said)
        if done.returncode:
            assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, (file, change, done.stderr)
            done = start(here, "resume=auto")
        assert done.returncode == 0 and fingerprint(here / "run") == undisturbed, (file, change, done.stderr)


def test_a_run_whose_data_are_damaged_under_it_goes_on_with_the_next_start(place, tmp_path, monkeypatch):
    words = [
        *RUN,
        f"data.path={place}/corpus",
        "task.packing=stream",
        "max_steps=12",
        "checkpoint.every_steps=4",
        "tokens_per_step=256",
    ]
    train(**settings(*words, f"cache_dir={tmp_path}/one", f"run_dir={tmp_path}/undisturbed"))
    words += [f"cache_dir={tmp_path}/other", f"run_dir={tmp_path}/run"]
    take = Steps.__getitem__

    def damaged_meanwhile(self, number):
        if number == 6:
            (file,) = (tmp_path / "other").glob("store-*/train.tokens.values")
            os.truncate(file, 8)  # a map of it would end the process
        return take(self, number)

    monkeypatch.setattr(Steps, "__getitem__", damaged_meanwhile)
    with pytest.raises(Damaged, match=r"^cache_dir: .*train\.tokens\.values is not .*resume=auto the run goes on$"):
        train(**settings(*words))
    monkeypatch.setattr(Steps, "__getitem__", take)
    train(**settings(*words, "resume=auto"))
    assert fingerprint(tmp_path / "run") == fingerprint(tmp_path / "undisturbed")


@pytest.mark.parametrize("workers", [0, 1])
def test_damage_is_one_line_also_where_a_loader_process_finds_it(workers, tmp_path):
    (tmp_path / "values").write_bytes(bytes(10 * BLOCK))
    seal(tmp_path)
    values = Sealed(tmp_path).array("values", "uint16")
    flip(tmp_path / "values", random.Random(0))
    corpus = Corpus({"tokens": Ragged(values, np.array([0, len(values)]))}, ("tokens",), 1)
    packing = Blocks(corpus, 256)
    plan = BatchPlan(num_units=packing.num_units, units_per_step=7, seed=0, data="d")
    steps = Steps(packing=packing, plan=plan, collate=Collate(0), micro_batch_tokens=512)
    sampler = StepSampler(now=lambda: 0, due=lambda: False, every=100, last=plan.steps_per_epoch)
    loaders = DataModule(
        steps=steps, sampler=sampler, evaluation_sets={}, corpora={}, workers=workers, pin_memory=False
    )
    with pytest.raises(Damaged) as error:
        list(loaders.train_dataloader())
    assert "\n" not in str(error.value) and str(error.value).startswith(f"cache_dir: {tmp_path}/values is not")


NUMBERS = np.arange(5 * BLOCK // 2 + 7, dtype=np.uint16)  # five blocks and a bit
INDICES = [
    0,
    -1,
    3,
    BLOCK,
    slice(None),
    slice(5, 5),
    slice(7, None, 500),
    slice(-9, -1),
    slice(None, None, -3),
    np.array([3, 5000, 3]),
    np.array([-1, -BLOCK]),
    np.array([[1, 2], [3, 4]]),
    np.zeros(0, int),
]


@pytest.fixture
def numbers(tmp_path):
    (tmp_path / "numbers").write_bytes(NUMBERS.tobytes())
    seal(tmp_path)
    return tmp_path / "numbers"


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_an_array_gives_what_numpy_gives_and_reads_no_block_unchecked(index, numbers):
    def array():
        return Sealed(numbers.parent).array("numbers", "uint16")

    wanted = NUMBERS[index]
    for given in (array(), pickle.loads(pickle.dumps(array()))):
        for _ in range(2):
            assert np.array_equal(given[index], wanted) and given[index].dtype == wanted.dtype
    content = NUMBERS.tobytes()
    touched = {int(number) * 2 // BLOCK for number in np.atleast_1d(wanted).ravel()}
    for block in range(6):
        hurt = bytearray(content)
        hurt[min(block * BLOCK + 13, len(hurt) - 1)] ^= 1
        numbers.write_bytes(hurt)
        seal_file = (numbers.parent / "seal.json").read_bytes()
        if block in touched:
            with pytest.raises(Damaged):
                array()[index]
            (numbers.parent / "seal.json").write_bytes(seal_file)
        else:
            assert np.array_equal(array()[index], wanted)


def lines(source, cache):
    store = prepare(source, WORDS, DocumentEncoding(WORDS.special("<eos>")), cache_dir=cache)
    column = store.splits["train"]["tokens"]
    return {WORDS.decode(column[row].tolist()) for row in range(len(column))}


def text(path):
    return Text(path=str(path), validation=0, test=0)


def test_folders_that_look_alike_are_told_apart(tmp_path):
    for name, content in (("one", "apples"), ("other", "quince")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text(content)
        os.utime(tmp_path / name / "a.txt", ns=(10**18, 10**18))
    cache = tmp_path / "cache"
    assert lines(text(tmp_path / "one"), cache) == {"apples"}
    assert lines(text(tmp_path / "other"), cache) == {"quince"}
    (tmp_path / "link").symlink_to("one")
    assert lines(text(tmp_path / "link"), cache) == {"apples"}
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to("other")
    assert lines(text(tmp_path / "link"), cache) == {"quince"}
    for name, new in (("one", "third"), ("other", "one"), ("third", "other")):  # they change places
        (tmp_path / name).rename(tmp_path / new)
    assert lines(text(tmp_path / "one"), cache) == {"quince"}
    (tmp_path / "one" / "a.txt").write_text("cherry")
    os.utime(tmp_path / "one" / "a.txt", ns=(10**18, 10**18))
    assert lines(text(tmp_path / "one"), cache) == {"cherry"}


def test_where_no_time_of_change_is_kept_a_sample_of_the_text_tells(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("x" * 9000 + "apples")
    facts = os.stat(tmp_path / "a.txt")
    monkeypatch.setattr(Path, "stat", lambda self, **_: facts)  # as if nothing had happened
    before = text(tmp_path / "a.txt").cache_key()
    (tmp_path / "a.txt").write_text("x" * 9000 + "quince")
    assert text(tmp_path / "a.txt").cache_key() != before


def test_a_package_that_is_edited_where_it_lies_is_read_again(tmp_path, monkeypatch):
    module = tmp_path / "a_package_of_mine.py"
    monkeypatch.syspath_prepend(tmp_path)
    for word in ("apples", "quince"):
        module.write_text(f'"""{word}, and more than forty letters of other words."""')
        os.utime(module, ns=(10**18, 10**18))
        (found,) = lines(Docstrings(packages=["a_package_of_mine"], validation=0, test=0), tmp_path / "cache")
        assert found.startswith(word)


def test_what_lies_in_the_cache_besides_does_not_keep_anything_from_being_prepared(tmp_path, caplog):
    (tmp_path / "a.txt").write_text("apples")
    cache = tmp_path / "cache"
    lines(text(tmp_path / "a.txt"), cache)
    for number, content in enumerate((b"", b"{", b"[]", b"{}", b'{"made_of": 3}', b"\xff" * 9, b"[" * 100_000)):
        (cache / f"store-{number}").mkdir()
        (cache / f"store-{number}" / "store.json").write_bytes(content)
    (cache / "store-a").write_bytes(b"")
    (cache / "store-b" / "store.json").mkdir(parents=True)
    (cache / "store-c").symlink_to("nowhere")
    caplog.set_level(logging.INFO)
    (tmp_path / "a.txt").write_text("cherries")
    assert lines(text(tmp_path / "a.txt"), cache) == {"cherries"}
    assert "this source (the newest in" in caplog.text


def one_file(folder):
    (folder / "file").write_bytes(b"whole")


def take(kept):
    return kept.read("file")


NAME = "store-0123456789abcdef"


def test_a_link_in_the_cache_leads_nowhere(tmp_path):
    elsewhere, cache = tmp_path / "elsewhere", tmp_path / "cache"
    elsewhere.mkdir()
    cache.mkdir()
    (elsewhere / "file").write_bytes(b"of somebody")
    seal(elsewhere)
    before = {path.name: path.read_bytes() for path in elsewhere.iterdir()}
    (cache / NAME).symlink_to(elsewhere)
    assert obtain(cache / NAME, write=one_file, read=take) == b"whole"
    assert {path.name: path.read_bytes() for path in elsewhere.iterdir()} == before
    assert [path.name for path in cache.iterdir()] == [NAME] and not (cache / NAME).is_symlink()


def test_a_file_in_the_place_of_a_folder_is_replaced(tmp_path, caplog):
    (tmp_path / NAME).write_bytes(b"something")
    assert obtain(tmp_path / NAME, write=one_file, read=take) == b"whole"
    assert NAME in caplog.text and [path.name for path in tmp_path.iterdir()] == [NAME]


def half(folder, ready, go_on):
    (folder / "file").write_bytes(b"half")
    ready.set()
    go_on.wait()
    one_file(folder)


def builder(target):
    """A process that has written half of an entry."""
    ready, go_on = FORK.Event(), FORK.Event()
    write = lambda folder: half(folder, ready, go_on)  # noqa: E731
    process = FORK.Process(target=obtain, args=(target,), kwargs={"write": write, "read": take})
    process.start()
    assert ready.wait(10)
    return process, go_on


def test_what_a_killed_preparation_has_left_is_gone_after_the_next_start(tmp_path):
    killed, _ = builder(tmp_path / NAME)
    os.kill(killed.pid, signal.SIGKILL)
    killed.join()
    assert [path.name.startswith(f".{NAME}.") for path in tmp_path.iterdir()] == [True]
    (tmp_path / f".{NAME}.abcd1234").mkdir()  # as older versions left it
    os.utime(tmp_path / f".{NAME}.abcd1234", (0, 0))
    (tmp_path / f".{NAME}.1-2.gone").mkdir()  # killed while it was being deleted
    (tmp_path / ".mine").mkdir()
    assert obtain(tmp_path / NAME, write=one_file, read=take) == b"whole"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mine", NAME]


def test_what_somebody_still_prepares_is_left_alone(tmp_path):
    alive, go_on = builder(tmp_path / NAME)
    other = tmp_path / NAME.replace("0", "f")
    assert obtain(other, write=one_file, read=take) == b"whole"
    go_on.set()
    alive.join()
    assert alive.exitcode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([NAME, other.name])


def test_many_that_find_the_same_damage_leave_one_whole_result(tmp_path):
    obtain(tmp_path / NAME, write=one_file, read=take)
    (tmp_path / NAME / "file").write_bytes(b"hurt!")
    go = FORK.Event()

    def mend():
        go.wait()
        assert obtain(tmp_path / NAME, write=one_file, read=take) == b"whole"

    processes = [FORK.Process(target=mend) for _ in range(8)]
    for process in processes:
        process.start()
    go.set()
    for process in processes:
        process.join()
    assert {process.exitcode for process in processes} == {0}
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_others_may_read_what_the_umask_lets_them(tmp_path):
    before = os.umask(0o027)
    try:
        obtain(tmp_path / "cache" / NAME, write=one_file, read=take)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "cache" / NAME).stat().st_mode) == 0o750
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "cache" / NAME).iterdir()} == {0o640}


def in_process(work):
    """What it returns in a process of its own, or the line of its ValueError."""
    answers = FORK.SimpleQueue()

    def answer():
        try:
            answers.put(work())
        except ValueError as error:
            answers.put(str(error))

    process = FORK.Process(target=answer)
    process.start()
    process.join()
    assert process.exitcode == 0
    return answers.get()


def test_a_full_disk_is_one_line_and_nothing_is_left(corpus_folder, tmp_path, capfd):
    def build():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        return lines(text(corpus_folder), tmp_path / "cache")

    said = in_process(build)
    assert said.startswith(f"cache_dir: {tmp_path}/cache: File too large; store-") and "\n" not in said
    assert "needs more than" in said and said.endswith("bytes are free")
    assert not list((tmp_path / "cache").iterdir()) and "Traceback" not in capfd.readouterr().err


def read_only(folder):
    """Make a folder a read-only disk, for this process alone; False where that cannot be."""
    libc = ctypes.CDLL(None, use_errno=True)
    namespace, bind, remount, read, private, below = 0x20000, 0x1000, 0x20, 0x1, 0x40000, 0x4000
    place = os.fsencode(folder)
    calls = (
        (libc.unshare, namespace),
        (libc.mount, None, b"/", None, private | below, None),
        (libc.mount, place, place, None, bind, None),
        (libc.mount, None, place, None, bind | remount | read, None),
    )
    return all(call(*arguments) == 0 for call, *arguments in calls)


def test_a_cache_on_a_read_only_disk_is_used_and_a_damaged_one_refused_in_one_line(tmp_path):
    (tmp_path / "a.txt").write_text("apples")
    lines(text(tmp_path / "a.txt"), tmp_path / "cache")

    def use():
        if not read_only(tmp_path / "cache"):
            return None
        return lines(text(tmp_path / "a.txt"), tmp_path / "cache")

    if (found := in_process(use)) is None:
        pytest.skip("no folder can be made read-only here")
    assert found == {"apples"}
    (facts,) = (tmp_path / "cache").glob("*/store.json")
    facts.write_bytes(b"{}")
    said = in_process(use)
    assert said.startswith(f"cache_dir: {facts} has 2 bytes instead of") and "Read-only file system" in said
    (values,) = (tmp_path / "cache").glob("*/*.values")
    shutil.rmtree(tmp_path / "cache")
    lines(text(tmp_path / "a.txt"), tmp_path / "cache")
    flip(values, random.Random(0))
    said = in_process(use)
    assert said.startswith(f"cache_dir: {values} is not") and "anew (Read-only file system)" in said
