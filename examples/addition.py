"""Teach a small transformer decoder to add: after "38+94=" it writes "231", one character at a time.

    tfn train examples/addition.py --epochs 8 --out runs/addition

The sum is written from its last digit to its first, the order in which one adds. The 10,000 pairs of
numbers below 100 are split: 8,000 to learn from, 2,000 never seen. After 8 epochs at least 0.98 of the
unseen sums are right in every digit.
"""

import keras
import numpy as np
from keras import layers

CHARACTERS = "0123456789+="
LENGTH, PROMPT, ANSWER = 8, 6, 3  # "38+94=231" without its last character is what the model reads


def encode(texts: list[str]) -> np.ndarray:
    """The numbers of the characters, (n, length) int32."""
    return np.array([[CHARACTERS.index(c) for c in text] for text in texts], "int32")


def decode(tokens: np.ndarray) -> list[str]:
    """The texts whose characters have these numbers."""
    return ["".join(CHARACTERS[t] for t in row) for row in tokens]


@keras.saving.register_keras_serializable("addition")
class TokenAndPosition(layers.Layer):
    """The sum of a vector for each token and a vector for each position."""

    def __init__(self, tokens: int, length: int, width: int, **options):
        super().__init__(**options)
        self.sizes = {"tokens": tokens, "length": length, "width": width}
        self.token = layers.Embedding(tokens, width)
        self.position = layers.Embedding(length, width)

    def build(self, shape):
        self.token.build(shape)
        self.position.build(shape[1:])

    def call(self, tokens):
        return self.token(tokens) + self.position(keras.ops.arange(tokens.shape[1]))

    def get_config(self):
        return super().get_config() | self.sizes


def build_model(width: int = 64, heads: int = 4, blocks: int = 2) -> keras.Model:
    """A decoder that gives logits for the character after each of the characters read so far."""
    tokens = keras.Input((LENGTH,), dtype="int32", name="tokens")
    x = TokenAndPosition(len(CHARACTERS), LENGTH, width)(tokens)
    for _ in range(blocks):
        y = layers.LayerNormalization()(x)
        x += layers.MultiHeadAttention(heads, width // heads)(y, y, use_causal_mask=True)
        y = layers.LayerNormalization()(x)
        x += layers.Dense(width)(layers.Dense(4 * width, activation="gelu")(y))
    logits = layers.Dense(len(CHARACTERS), name="logits")(layers.LayerNormalization()(x))
    model = keras.Model(tokens, logits)
    model.compile(optimizer=keras.optimizers.Adam(2e-3),
                  loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                  weighted_metrics=["accuracy"])
    return model


def load_data(examples: int = 8000):
    """`((read, next, weight), same)`: each character's successor, of which only the answer counts."""
    texts = [f"{a:02}+{b:02}={f'{a + b:03}'[::-1]}" for a in range(100) for b in range(100)]
    tokens = np.random.default_rng(0).permutation(encode(texts))
    weight = np.broadcast_to(np.arange(LENGTH) >= PROMPT - 1, (len(tokens), LENGTH)).astype("float32")
    data = tokens[:, :-1], tokens[:, 1:], weight
    return tuple(d[:examples] for d in data), tuple(d[8000:] for d in data)


def generate(model: keras.Model, prompts: list[str]) -> list[str]:
    """Prompts of six characters with the three that follow, each the likeliest."""
    texts = np.zeros((len(prompts), PROMPT + ANSWER), "int32")
    texts[:, :PROMPT] = encode(prompts)
    for place in range(PROMPT, PROMPT + ANSWER):
        logits = model.predict(texts[:, :LENGTH], batch_size=500, verbose=0)
        texts[:, place] = logits[:, place - 1].argmax(-1)
    return decode(texts)


def main(*, epochs: int = 8, examples: int = 8000) -> float:
    """Train; returns how many of the unseen sums are right in every digit."""
    keras.utils.set_random_seed(0)
    model = build_model()
    training, validation = load_data(examples)
    model.fit(*training[:2], sample_weight=training[2], validation_data=validation, epochs=epochs,
              verbose=2)
    tokens, following, _ = validation
    texts = decode(np.concatenate([tokens, following[:, -1:]], axis=1))
    answers = generate(model, [text[:PROMPT] for text in texts])
    print(*answers[:5])
    score = float(np.mean([answer == text for answer, text in zip(answers, texts, strict=True)]))
    print(f"right {score:.3f}")
    return score


if __name__ == "__main__":
    main()
