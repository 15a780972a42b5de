"""Tell praise from complaint, where the order of the words decides.

    tfn train examples/sentiment.py --epochs 4 --out runs/sentiment

The sentences are made: each has one or two clauses; "not" turns a judgement round, and after a
"but" the second clause counts. After 4 epochs the accuracy on new sentences is at least 0.97; a model
that adds up word vectors without regard to their order gets 0.74.
"""

from collections.abc import Sequence

import keras
import numpy as np
from keras import layers

SUBJECTS = "the plot|the cast|the music|this film|the ending|every scene|the camera work".split("|")
GOOD = "good great moving clever funny brilliant charming".split()
BAD = "bad dull weak silly boring awful lifeless".split()
ADVERBS = "very really quite so rather".split()
OTHER = "was not but and".split()
WORDS = ["", *sorted({w for s in SUBJECTS for w in s.split()} | {*GOOD, *BAD, *ADVERBS, *OTHER})]
NUMBER = {word: i for i, word in enumerate(WORDS)}
LENGTH = 16


def encode(sentences: Sequence[str]) -> np.ndarray:
    """Numbers of the words, (n, 16) int32; 0 fills up. A word that is not known raises a KeyError."""
    rows = [[NUMBER[word] for word in sentence.split()] for sentence in sentences]
    return np.array([row + [0] * (LENGTH - len(row)) for row in rows], "int32")


def clause(rng: np.random.Generator) -> tuple[str, bool]:
    """A clause, and whether it is praise."""
    praise, negated, strong = map(bool, rng.random(3) < (0.5, 0.5, 0.3))
    words = [rng.choice(SUBJECTS), "was"] + ["not"] * negated + [rng.choice(ADVERBS)] * strong
    return " ".join([*words, rng.choice(GOOD if praise else BAD)]), praise != negated


def sentence(rng: np.random.Generator) -> tuple[str, bool]:
    """A sentence, and whether it is praise. Clauses that "and" joins agree."""
    first, praise = clause(rng)
    if rng.random() < 0.3:
        return first, praise
    second, verdict = clause(rng)
    return f"{first} {'and' if verdict == praise else 'but'} {second}", verdict


def build_model(width: int = 32) -> keras.Model:
    """Word vectors, read from left to right by a GRU whose last state is judged."""
    model = keras.Sequential([
        keras.Input((LENGTH,), dtype="int32", name="words"),
        layers.Embedding(len(WORDS), width, mask_zero=True),
        layers.GRU(width),
        layers.Dense(1, activation="sigmoid", name="praise"),
    ])
    model.compile(optimizer=keras.optimizers.Adam(5e-3), loss="binary_crossentropy",
                  metrics=["accuracy"])
    return model


def load_data(examples: int = 6000):
    """`((words, praise), (words, praise))`: int32 (n, 16) and float32 (n,); 1,000 to validate."""
    rng = np.random.default_rng(0)
    sentences, praise = zip(*(sentence(rng) for _ in range(examples + 1000)), strict=True)
    words, judged = encode(sentences), np.array(praise, "float32")
    return (words[:examples], judged[:examples]), (words[examples:], judged[examples:])


def main(*, epochs: int = 4, examples: int = 6000) -> float:
    """Train and judge a few sentences; returns the accuracy on new ones."""
    keras.utils.set_random_seed(0)
    model = build_model()
    training, validation = load_data(examples)
    model.fit(*training, validation_data=validation, epochs=epochs, verbose=2)
    score = model.evaluate(*validation, verbose=0, return_dict=True)["accuracy"]
    said = ["the plot was not bad", "the cast was brilliant but the ending was not very clever"]
    for text, praise in zip(said, model.predict(encode(said), verbose=0)[:, 0], strict=True):
        print(f"{praise:.2f}  {text}")
    print(f"accuracy {score:.3f}")
    return score


if __name__ == "__main__":
    main()
