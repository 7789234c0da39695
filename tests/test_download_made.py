"""The checkpoints made here: smollm2-135m out of a wheel, and the generated twin."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from nanoserve.checkpoints import DEFAULT, TWIN, catalog, pypi, smollm2, twin
from nanoserve.cli import main

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def weights(tmp_path, monkeypatch):
    monkeypatch.setenv("NANOSERVE_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


def failed(weights, capsys, *parts, name=DEFAULT):
    assert main(["download", name]) == 1
    out, err = capsys.readouterr()
    assert out == "" and "Traceback" not in err
    for part in parts:
        assert part in err
    assert {path.name for path in weights.iterdir()} == {f".{name}.lock"}
    return err


def synthetic(path: Path, layers: int, vocab: int) -> dict[str, np.ndarray]:
    """A GGUF file of SmolLM2's shapes; the values that it holds, by HuggingFace's names.

    Layers are alike, which saves time; of several the values are not kept.
    """
    config = twin.CONFIG | smollm2.CONFIG | {"num_hidden_layers": layers, "vocab_size": vocab}
    theirs = {hf: name for name, hf in smollm2.LAYER.items()}
    writer, random, values = gguf.GGUFWriter(path, "llama"), np.random.default_rng(0), {}
    quantised = {}
    for name, shape in twin.shapes(config).items():
        kind = gguf.GGMLQuantizationType.F32 if len(shape) == 1 else gguf.GGMLQuantizationType.Q4_1
        piece = name.split(".")[-2]
        if piece not in quantised:
            full = random.standard_normal(shape, dtype=np.float32)
            quantised[piece] = gguf.quantize(full, kind)
        data = quantised[piece]
        if layers == 1:
            values[name] = gguf.dequantize(data, kind)
        if piece in ("q_proj", "k_proj"):
            # As llama.cpp's converter does: row j of each half goes to rows 2j and 2j + 1.
            half = np.arange(shape[0]).reshape(-1, 2, 32)
            rows = np.stack([half[:, 0], half[:, 1]], axis=-1).reshape(-1)
            data = data[rows]
        if "layers" in name:
            _, _, i, rest = name.split(".", 3)
            name = f"blk.{i}.{theirs[rest.removesuffix('.weight')]}.weight"
        else:
            name = "token_embd.weight" if "embed" in name else "output_norm.weight"
        writer.add_tensor(name, data, raw_dtype=kind)
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "1", "9", "a", "Ġ", "Ġa", "19"]
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3, 1, 1, 1, 1, 1, 1])
    writer.add_token_merges(["Ġ a", "1 9"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template("{{ messages }}")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return values


def test_both_in_weights_are_the_recorded_bytes(capsys):
    for name in (DEFAULT, TWIN):
        assert main(["download", "--verify", name]) == 0, capsys.readouterr().err


def test_conversion(tmp_path):
    values = synthetic(tmp_path / "small.gguf", layers=1, vocab=64)
    smollm2.convert(tmp_path / "small.gguf", tmp_path)
    found = load_file(tmp_path / "model.safetensors")
    assert found.keys() == values.keys()
    for name, value in values.items():
        assert torch.equal(found[name], torch.from_numpy(value).bfloat16()), name
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    encoding = tokenizer.encode("a19 a<|im_end|>")
    assert encoding.tokens == ["a", "1", "9", "Ġa", "<|im_end|>"]  # though "1 9" is a merge
    assert tokenizer.decode(encoding.ids) == "a19 a"


def test_conversion_takes_under_60_seconds_and_2_gib(tmp_path):
    # The size of the real one; the bytes of a quantised tensor may be any.
    synthetic(tmp_path / "full.gguf", layers=30, vocab=49152)
    code = (
        "import resource, sys; from pathlib import Path; from nanoserve.checkpoints import smollm2;"
        "smollm2.convert(Path(sys.argv[1]), Path(sys.argv[2]));"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    arguments = [sys.executable, "-c", code, tmp_path / "full.gguf", tmp_path]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(done.stdout) * unit < 2 << 30
    assert len(list(tmp_path.glob("model-0000?-of-00003.safetensors"))) == 3


@pytest.mark.parametrize("name", [DEFAULT, TWIN])
def test_the_disk_becomes_full(name, weights, tmp_path, monkeypatch, capsys):
    synthetic(tmp_path / "small.gguf", layers=1, vocab=64)
    monkeypatch.setattr(pypi, "fetch", lambda *args: tmp_path / "small.gguf")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        failed(weights, capsys, "The disk became full", "NANOSERVE_WEIGHTS", name=name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_other_bytes_than_recorded_are_refused(weights, monkeypatch, capsys):
    monkeypatch.setattr(twin, "LAYERS", 0)
    failed(weights, capsys, "did not come out as recorded", "requirements.txt", name=TWIN)


def test_a_missing_package_is_named(weights, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "nanoserve.checkpoints.twin", None)
    monkeypatch.delattr("nanoserve.checkpoints.twin")
    failed(weights, capsys, "is missing", "pip install", name=TWIN)


def test_the_twins_tables():
    torch.manual_seed(0)
    norm = torch.tensor([0.5 + (i + 0.5) / 65536 for i in range(65536)])
    assert np.array_equal(twin.table("norm", (8,)), norm.bfloat16().view(torch.uint16).numpy())
    for name, shape, std in [("embed", (4, 9), 1.0), ("q_proj", (4, 2048), 2048**-0.5)]:
        table = torch.from_numpy(twin.table(name, shape)).view(torch.bfloat16).float()
        assert abs(table.std().item() / std - 1) < 1e-3 and abs(table.mean().item()) < 1e-4
        assert (table[1:] >= table[:-1]).all() and table.unique().numel() > 2000


def test_the_small_twin_is_a_part_of_the_full_one():
    config = twin.config(full=True)
    shapes = twin.shapes(config)
    parameters = sum(int(np.prod(shape)) for shape in shapes.values())
    assert (len(shapes), parameters) == (146, 1_235_814_400)
    small = twin.shapes(twin.config(full=False))
    assert {n: s for n, s in small.items() if "embed" not in n}.items() <= shapes.items()
    name = "model.embed_tokens.weight"
    few, many = (next(twin.chunks(name, s[name])) for s in (small, shapes))
    assert np.array_equal(few, many[: few.size])


def test_the_catalog_tells_the_sizes():
    from nanoserve.checkpoints import weights_dir

    for name in (DEFAULT, TWIN):
        files = json.loads((weights_dir() / name / ".nanoserve.json").read_text())["files"]
        total = sum(info["size"] for info in files.values())
        assert total == catalog.CATALOG[name].size
