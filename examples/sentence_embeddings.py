"""Sentences as vectors: a sentence-transformers model, such as all-MiniLM-L6-v2, on tfn.

    python examples/sentence_embeddings.py FOLDER "A man eats." "Someone has a meal." --out exported

FOLDER is the model in Hugging Face's form: `config.json`, `model.safetensors` and `tokenizer.json`. The
example prints how alike the sentences are, and with `--out` writes the model as a bundle and as C++.
Needs keras-hub and tokenizers (docs/keras_hub.md).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import tfn  # noqa: F401  (before keras)

import keras  # isort: skip
import keras_hub  # isort: skip
from keras import ops  # isort: skip

LENGTH = 64
"""Tokens of a sentence; what is longer is cut off."""


def build_model(folder: Path | str, length: int = LENGTH) -> keras.Model:
    """`{"token_ids", "padding_mask"}`, int32 [batch, length], to vectors of length 1, [batch, width].

    keras-hub reads the weights; the mean over a sentence's tokens is its vector.
    """
    encoder = keras_hub.models.BertBackbone.from_preset(str(folder))
    inputs = {name: keras.Input((length,), dtype="int32", name=name)
              for name in ("token_ids", "padding_mask")}
    hidden = encoder({**inputs, "segment_ids": ops.zeros_like(inputs["token_ids"])})["sequence_output"]
    here = ops.cast(inputs["padding_mask"], hidden.dtype)[..., None]
    mean = ops.sum(hidden * here, axis=1) / ops.maximum(ops.sum(here, axis=1), 1e-9)
    return keras.Model(inputs, ops.normalize(mean, axis=-1, epsilon=1e-12), name="sentence_embeddings")


def tokenize(folder: Path | str, sentences: Sequence[str],
             length: int = LENGTH) -> dict[str, np.ndarray]:
    """The inputs of the model for a list of sentences."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length)
    found = tokenizer.encode_batch(list(sentences))
    return {"token_ids": np.array([f.ids for f in found], np.int32),
            "padding_mask": np.array([f.attention_mask for f in found], np.int32)}


def main() -> None:
    """Embed the sentences, and export the model when asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="of the model")
    parser.add_argument("sentences", nargs="+")
    parser.add_argument("--out", type=Path, help="folder to export to")
    options = parser.parse_args()

    model = build_model(options.folder)
    inputs = tokenize(options.folder, options.sentences)
    vectors = model.predict(inputs, verbose=0)
    for number, sentence in enumerate(options.sentences):
        alike = "  ".join(f"{a:5.2f}" for a in vectors @ vectors[number])
        print(f"{alike}  {sentence}")
    if options.out is not None:
        report = model.export(options.out, format="cpp", samples=inputs)
        found = report.reason or f"error {report.check.max_rel_error:.1e} in {report.check.runtime}"
        print(f"exported to {options.out}; C++: {found}")


if __name__ == "__main__":
    main()
