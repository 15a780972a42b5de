"""keras-hub on tfn: generation is one program that gives what eager execution gives, tasks learn from
strings, presets come back as they were."""

import sys

import keras
import numpy as np
import pytest

from tfn.compiler.trace.jit import Jitted

pytestmark = pytest.mark.outside("keras_hub")

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "a", "film", "was", "very",
         "good", "great", "bad", "awful"]
IDS = np.array([[3, 4, 0, 0, 0, 0], [7, 8, 9, 10, 0, 0]], "int32")
MASK = (IDS > 0).astype("int32")


@pytest.fixture(scope="module")
def hub():
    import keras_hub

    return keras_hub


@pytest.fixture
def gpt2(hub):
    keras.utils.set_random_seed(0)
    backbone = hub.models.GPT2Backbone(vocabulary_size=29, num_layers=1, num_heads=2, hidden_dim=16,
                                       intermediate_dim=32, max_sequence_length=16)
    for weight in backbone.weights:
        weight.assign(weight + keras.random.normal(weight.shape, stddev=0.3))
    return hub.models.GPT2CausalLM(backbone, preprocessor=None)


def samplers(hub):
    kinds = hub.samplers
    return {
        "greedy": lambda: kinds.GreedySampler(),
        "top_k": lambda: kinds.TopKSampler(k=5, seed=7),
        "top_p": lambda: kinds.TopPSampler(p=0.8, seed=7),
        "random": lambda: kinds.RandomSampler(seed=7),
        "beam": lambda: kinds.BeamSampler(num_beams=3),
        "contrastive": lambda: kinds.ContrastiveSampler(k=3, alpha=0.4),
    }


def generate(model, sampler, eager=False, times=1, **options):
    model.compile(sampler=sampler, run_eagerly=eager)
    options = {"stop_token_ids": None, **options}
    return [model.generate({"token_ids": IDS, "padding_mask": MASK}, **options)
            for _ in range(times)]


@pytest.mark.parametrize("name", ["greedy", "top_k", "top_p", "random", "beam", "contrastive"])
def test_a_compiled_sampler_draws_what_it_draws_eagerly(hub, gpt2, name):
    """Twice in a row, so that the state of its random numbers is seen to go on."""
    sampler = samplers(hub)[name]
    ours = generate(gpt2, sampler(), times=2)
    assert all(type(p) is Jitted for p in gpt2.generate_function._programs.values())
    for compiled, eager in zip(ours, generate(gpt2, sampler(), eager=True, times=2), strict=True):
        np.testing.assert_array_equal(compiled["token_ids"], eager["token_ids"])
        np.testing.assert_array_equal(compiled["token_ids"][MASK == 1], IDS[MASK == 1])
    if name == "random":
        assert (ours[0]["token_ids"] != ours[1]["token_ids"]).any()


def test_greedy_tokens_are_the_argmax_of_the_whole_model(hub, gpt2):
    """Without a cache: each token is the likeliest after all before it."""
    (made,) = generate(gpt2, hub.samplers.GreedySampler())
    tokens = np.where(MASK == 1, IDS, 0)
    for place in range(1, IDS.shape[1]):
        logits = gpt2.predict_on_batch({"token_ids": tokens, "padding_mask": np.ones_like(MASK)})
        following = logits[:, place - 1].argmax(-1)
        tokens[:, place] = np.where(MASK[:, place] == 1, IDS[:, place], following)
    np.testing.assert_array_equal(made["token_ids"], tokens)


def test_generation_ends_at_a_stop_token(hub, gpt2):
    (full,) = generate(gpt2, hub.samplers.GreedySampler())
    stop = int(full["token_ids"][0, 3])
    (made,) = generate(gpt2, hub.samplers.GreedySampler(), stop_token_ids=(stop,))
    first = np.argmax((full["token_ids"] == stop) & (MASK == 0), axis=1)
    for row, place in enumerate(first):
        if place:
            np.testing.assert_array_equal(made["padding_mask"][row], np.arange(6) <= place)


def test_generation_is_one_loop_whose_weights_are_arguments(hub, gpt2):
    """Not an unrolled one, and new weights compile nothing."""
    before = generate(gpt2, hub.samplers.GreedySampler())[0]["token_ids"]
    (program,) = gpt2.generate_function._programs.values()
    for weight in gpt2.weights:
        weight.assign(weight + keras.random.normal(weight.shape, stddev=0.5))
    after = gpt2.generate({"token_ids": IDS, "padding_mask": MASK}, stop_token_ids=None)
    assert (before != after["token_ids"]).any()
    assert list(gpt2.generate_function._programs.values()) == [program]
    assert len(program._programs) == 1
    state = [v.value for v in (*gpt2.trainable_variables, *gpt2.non_trainable_variables)]
    traced = program.trace([], state, ({"token_ids": IDS, "padding_mask": MASK},))
    assert sum(op.name == "stablehlo.while" for op in traced.ops) == 1


def sentences(count, seed=0):
    """Sentences with one word that says what they think of the film, and whether it is a good one."""
    source = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    texts = []
    for label in labels:
        words = [str(w) for w in source.choice(WORDS[5:10], 6)]
        words[source.integers(6)] = str(source.choice(WORDS[10:12] if label else WORDS[12:]))
        texts.append(" ".join(words))
    return texts, labels


@pytest.fixture(scope="module")
def classifier(hub):
    keras.utils.set_random_seed(0)
    tokenizer = hub.models.BertTokenizer(vocabulary=WORDS)
    backbone = hub.models.BertBackbone(
        vocabulary_size=len(WORDS), num_layers=1, num_heads=2, hidden_dim=32, intermediate_dim=64,
        max_sequence_length=12)
    model = hub.models.BertTextClassifier(
        backbone, num_classes=2,
        preprocessor=hub.models.BertTextClassifierPreprocessor(tokenizer, sequence_length=12))
    model.compile(optimizer=keras.optimizers.Adam(2e-3), metrics=["accuracy"],
                  loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


@pytest.mark.slow
def test_a_classifier_learns_from_strings_and_comes_back_from_a_preset(hub, classifier, tmp_path):
    texts, labels = sentences(256)
    classifier.fit(texts, labels, epochs=6, batch_size=32, verbose=0)
    unseen, truth = sentences(64, seed=1)
    _, accuracy = classifier.evaluate(unseen, truth, verbose=0)
    assert accuracy > 0.95
    classifier.save_to_preset(str(tmp_path))
    again = hub.models.BertTextClassifier.from_preset(str(tmp_path))
    np.testing.assert_array_equal(again.predict(unseen, verbose=0),
                                  classifier.predict(unseen, verbose=0))
    assert "tensorflow" not in sys.modules


def test_keras_hub_on_another_backend_is_left_as_it_is(gpt2, monkeypatch):
    """The plug is in place whenever tfn is loaded, whatever Keras runs on."""
    monkeypatch.setattr("tfn.keras.hub.is_active", lambda: False)
    gpt2.compile(sampler="greedy")
    assert gpt2.make_generate_function() == gpt2.generate_step
