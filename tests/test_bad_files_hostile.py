"""Checkpoints made to block, to fill the memory, or to steer a terminal."""

import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import broken
import pytest
from broken import FILES, NORM, UP, folder_and_error, header_of, index_changed, refused, write

from nanoserve.checkpoints import TWIN, checkpoint_path
from nanoserve.checkpoints.headers import CheckpointError
from nanoserve.checkpoints.strictjson import MAX_JSON
from nanoserve.model import Llama

ROOT = Path(__file__).resolve().parent.parent
LONGEST = 120  # seconds: on a busy machine, too, only what waits for ever takes so long
# pytest finds a fixture by its name in the module.
good, one, shards, model = broken.good, broken.one, broken.shards, broken.model


@pytest.fixture(autouse=True)
def soon():
    """Nothing here may wait for what never comes."""

    def stop(*args):
        raise TimeoutError(f"still at it after {LONGEST} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LONGEST)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "circle", "link to nowhere"])
def test_something_else_in_a_files_place(one, shards, model, name, kind):
    folder, error = folder_and_error(name, one, shards)
    file = folder / name
    file.unlink()
    if kind == "folder":
        file.mkdir()
    elif kind == "pipe":
        os.mkfifo(file)
    else:
        targets = {"device": "/dev/zero", "circle": file, "link to nowhere": folder / "nowhere"}
        file.symlink_to(targets[kind])
    if (name, kind) == (FILES[2], "link to nowhere"):
        refused(model, folder, "no model.safetensors and no index")
    else:
        refused(model, folder, f"{name} cannot be read", error=error or CheckpointError)


@pytest.mark.parametrize("kind", ["folder", "pipe", "circle"])
def test_something_else_in_a_shards_place(shards, model, kind):
    file = sorted(shards.glob("model-*.safetensors"))[1]
    file.unlink()
    if kind == "folder":
        file.mkdir()
    elif kind == "pipe":
        os.mkfifo(file)
    else:
        file.symlink_to(file)
    refused(model, shards, file.name)


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "x" * 5000, "x\ny.safetensors", "\x1b[31m"])
def test_an_index_with_names_that_no_file_has(shards, model, name):
    index_changed(shards, NORM, name)
    refused(model, shards, "\\" if len(name) < 99 else "xxx")


def test_a_name_twice_in_the_index(shards, model):
    file = shards / "model.safetensors.index.json"
    text = file.read_text()
    file.write_text(text.replace('"weight_map": {', f'"weight_map": {{"{NORM}": "x",'))
    assert text != file.read_text()
    refused(model, shards, NORM, "twice")


def test_names_cannot_steer_a_terminal(one, model):
    header, data = header_of(one / "model.safetensors")
    header["\x1b[2J\n\r\u202e" + "x" * 5000] = header.pop(UP)
    write(one / "model.safetensors", header, data)
    refused(model, one, r"\x1b[2J\n\r\u202exx", "unexpected", "missing")


def test_the_problems_of_many_shards_fit_on_a_page(shards, model):
    for file in shards.glob("model-*.safetensors"):
        _, data = header_of(file)
        write(file, {f"{file.name} {i}": {} for i in range(30)}, data)
    refused(model, shards, "more")


@pytest.mark.parametrize("name", FILES)
def test_a_gigabyte_of_json_is_not_read(one, shards, model, name):
    folder, error = folder_and_error(name, one, shards)
    if name == "model.safetensors":
        (folder / name).write_bytes((10**9).to_bytes(8, "little") + b"{")
        os.truncate(folder / name, 10**9 + 8)  # takes no room on the disk
    else:
        os.truncate(folder / name, 10**9)
    tracemalloc.start()
    refused(model, folder, name, f"{MAX_JSON}", "not read", error=error or CheckpointError)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


@pytest.mark.parametrize(
    "piece", [b'{"":0},', b"[],", b"{},", b'{"":{"":{"":0}}},', b"9,"], ids=str
)
def test_json_that_swells_is_bounded(one, model, piece):
    text = b'{"a":[' + piece * ((MAX_JSON - 20) // len(piece)) + b"0]}"
    write(one / "model.safetensors", text, b"")
    tracemalloc.start()
    before = time.process_time()  # what others take is no fault
    refused(model, one, "an object with a shape is wanted")
    seconds, peak = time.process_time() - before, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 96 << 20 and seconds < 15


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the peak of memory")
def test_loading_takes_less_than_half_the_file():
    """Beside the model itself, and in the peak: the twin's 247 MB are mapped one after another."""
    file = checkpoint_path(TWIN) / "model.safetensors"
    code = (
        "import sys, torch; from pathlib import Path;"
        "from nanoserve.config import ModelConfig; from nanoserve.model import Llama;"
        "from nanoserve.loader import load_weights;"
        "peak = lambda: int(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0]);"
        "model = Llama(ModelConfig.from_pretrained(sys.argv[1]));"
        "[torch.nn.init.constant_(p, 1.0) for p in model.parameters()];"
        "before = peak(); load_weights(model, sys.argv[1]); print(peak() - before)"
    )
    command = [sys.executable, "-c", code, str(file.parent)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) * 1024 < file.stat().st_size / 2


@pytest.mark.parametrize("field", ["vocab_size", "intermediate_size", "num_hidden_layers"])
def test_a_config_that_asks_for_any_size_is_refused_before_memory(one, field):
    path = one / "config.json"
    size = 2_000 if "layers" in field else 2**31 - 1
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: size}))
    with pytest.raises(CheckpointError, match=r"missing|shape \["):
        Llama.from_pretrained(one)
