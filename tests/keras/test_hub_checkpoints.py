"""Checkpoints in Hugging Face's form, read by keras-hub's converters on tfn, against NumPy."""

import json

import numpy as np
import pytest

pytestmark = pytest.mark.outside("keras_hub")

WORDS, WIDTH, HEADS, LAYERS, PLACES = 37, 16, 4, 2, 24
IDS = np.random.default_rng(3).integers(0, WORDS, (2, 9)).astype("int32")


@pytest.fixture(scope="module")
def hub():
    import keras_hub

    return keras_hub


def draw(shapes):
    source = np.random.default_rng(0)
    return {name: (source.standard_normal(shape) * 0.3 + (1 if "norm" in name or "ln_" in name else 0))
            .astype("float32") for name, shape in shapes.items()}


def write(folder, config, weights):
    from safetensors.numpy import save_file

    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights, folder / "model.safetensors")


def softmax(x):
    grown = np.exp(x - x.max(-1, keepdims=True))
    return grown / grown.sum(-1, keepdims=True)


def attend(q, k, v):
    """Causal attention of `[batch, places, heads, width]`; heads of keys may be shared."""
    k, v = (np.repeat(a, q.shape[2] // a.shape[2], axis=2) for a in (k, v))
    scores = np.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(q.shape[-1])
    future = np.triu(np.ones(scores.shape[-2:], bool), 1)
    found = np.einsum("bhqk,bkhd->bqhd", softmax(np.where(future, -np.inf, scores)), v)
    return found.reshape(*found.shape[:2], -1)


# -- GPT-2: layer norms before attention and before the network, positions are weights

GPT2 = {"model_type": "gpt2", "vocab_size": WORDS, "n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS,
        "n_inner": None, "n_positions": PLACES, "resid_pdrop": 0.1}


def gpt2_shapes():
    yield "wte.weight", (WORDS, WIDTH)
    yield "wpe.weight", (PLACES, WIDTH)
    for i in range(LAYERS):
        for name, shape in {"ln_1": (WIDTH,), "attn.c_attn": (WIDTH, 3 * WIDTH),
                            "attn.c_proj": (WIDTH, WIDTH), "ln_2": (WIDTH,),
                            "mlp.c_fc": (WIDTH, 4 * WIDTH), "mlp.c_proj": (4 * WIDTH, WIDTH)}.items():
            yield f"h.{i}.{name}.weight", shape
            yield f"h.{i}.{name}.bias", shape[-1:]
    yield "ln_f.weight", (WIDTH,)
    yield "ln_f.bias", (WIDTH,)


def gpt2(weights, ids):
    """Logits, in f64."""
    w = {name: value.astype("float64") for name, value in weights.items()}

    def norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        scale = np.sqrt((centred ** 2).mean(-1, keepdims=True) + 1e-5)
        return centred / scale * w[f"{name}.weight"] + w[f"{name}.bias"]

    def dense(x, name):
        return x @ w[f"{name}.weight"] + w[f"{name}.bias"]

    x = w["wte.weight"][ids] + w["wpe.weight"][: ids.shape[1]]
    for i in range(LAYERS):
        qkv = dense(norm(x, f"h.{i}.ln_1"), f"h.{i}.attn.c_attn")
        parts = [a.reshape(*a.shape[:2], HEADS, -1) for a in np.split(qkv, 3, axis=-1)]
        x = x + dense(attend(*parts), f"h.{i}.attn.c_proj")
        h = dense(norm(x, f"h.{i}.ln_2"), f"h.{i}.mlp.c_fc")
        h = 0.5 * h * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h ** 3)))
        x = x + dense(h, f"h.{i}.mlp.c_proj")
    return norm(x, "ln_f") @ w["wte.weight"].T


# -- Llama: RMS norms, rotated pairs of queries and keys, a gated network, shared heads of keys

GROUPS = 2
LLAMA = {"model_type": "llama", "vocab_size": WORDS, "hidden_size": WIDTH, "num_hidden_layers": LAYERS,
         "num_attention_heads": HEADS, "num_key_value_heads": GROUPS, "intermediate_size": 24,
         "rms_norm_eps": 1e-6, "rope_theta": 500.0, "max_position_embeddings": PLACES,
         "tie_word_embeddings": False}


def llama_shapes():
    shared = WIDTH // HEADS * GROUPS
    yield "model.embed_tokens.weight", (WORDS, WIDTH)
    for i in range(LAYERS):
        for name, shape in {
                "self_attn.q_proj": (WIDTH, WIDTH), "self_attn.k_proj": (shared, WIDTH),
                "self_attn.v_proj": (shared, WIDTH), "self_attn.o_proj": (WIDTH, WIDTH),
                "mlp.gate_proj": (24, WIDTH), "mlp.up_proj": (24, WIDTH), "mlp.down_proj": (WIDTH, 24),
                "input_layernorm": (WIDTH,), "post_attention_layernorm": (WIDTH,)}.items():
            yield f"model.layers.{i}.{name}.weight", shape
    yield "model.norm.weight", (WIDTH,)
    yield "lm_head.weight", (WORDS, WIDTH)


def llama(weights, ids):
    """Logits, in f64."""
    w = {name: value.astype("float64") for name, value in weights.items()}
    size = WIDTH // HEADS
    angles = np.arange(ids.shape[1])[:, None] * LLAMA["rope_theta"] ** (-np.arange(0, size, 2) / size)
    cos, sin = (f(np.concatenate([angles, angles], -1))[:, None, :] for f in (np.cos, np.sin))

    def norm(x, name):
        return x / np.sqrt((x ** 2).mean(-1, keepdims=True) + 1e-6) * w[f"{name}.weight"]

    def heads(x, name):
        return (x @ w[f"{name}.weight"].T).reshape(*x.shape[:2], -1, size)

    def rotated(x):
        first, second = np.split(x, 2, axis=-1)
        return x * cos + np.concatenate([-second, first], -1) * sin

    x = w["model.embed_tokens.weight"][ids]
    for i in range(LAYERS):
        layer = f"model.layers.{i}"
        h = norm(x, f"{layer}.input_layernorm")
        q, k, v = (heads(h, f"{layer}.self_attn.{n}_proj") for n in "qkv")
        x = x + attend(rotated(q), rotated(k), v) @ w[f"{layer}.self_attn.o_proj.weight"].T
        h = norm(x, f"{layer}.post_attention_layernorm")
        gate, up = (h @ w[f"{layer}.mlp.{n}_proj.weight"].T for n in ("gate", "up"))
        x = x + (gate / (1 + np.exp(-gate)) * up) @ w[f"{layer}.mlp.down_proj.weight"].T
    return norm(x, "model.norm") @ w["lm_head.weight"].T


@pytest.mark.parametrize(("config", "shapes", "oracle", "kind"), [
    (GPT2, gpt2_shapes, gpt2, "GPT2"), (LLAMA, llama_shapes, llama, "Llama")],
    ids=["gpt2", "llama"])
def test_a_checkpoint(hub, tmp_path, config, shapes, oracle, kind):
    """Logits of the whole, and what is generated with a cache: the likeliest token each time."""
    weights = draw(dict(shapes()))
    write(tmp_path, config, weights)
    backbone = getattr(hub.models, f"{kind}Backbone").from_preset(str(tmp_path))
    model = getattr(hub.models, f"{kind}CausalLM")(backbone, preprocessor=None)
    expected = oracle(weights, IDS)
    logits = model.predict_on_batch({"token_ids": IDS, "padding_mask": np.ones_like(IDS)})
    assert np.abs(logits - expected).max() <= 1e-5 * np.abs(expected).max()

    model.compile(sampler="greedy")
    room = np.pad(IDS, ((0, 0), (0, 6)))
    made = model.generate({"token_ids": room, "padding_mask": np.arange(15)[None] < [[9], [9]]},
                          stop_token_ids=None)["token_ids"]
    tokens = IDS
    for _ in range(6):
        following = oracle(weights, tokens)[:, -1].argmax(-1)
        tokens = np.concatenate([tokens, following[:, None].astype("int32")], 1)
    np.testing.assert_array_equal(made, tokens)
