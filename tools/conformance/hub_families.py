"""Model families of keras-hub, tiny and with random weights, on whatever backend Keras has.

Also the other backend's side of `conformance hub`: `PYTHON -P hub_families.py FOLDER NAME...` builds
each family and leaves `NAME.weights.h5`, `NAME.in.npz` and `NAME.out.npz`; it knows nothing of tfn.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Part(NamedTuple):
    """A class of `keras_hub.models` or `keras_hub.layers`, or one that is not among their names as
    `folder.file.Class`; and its arguments, which may be parts."""

    kind: str
    arguments: dict[str, Any]


def part(kind: str, **arguments: Any) -> Part:
    return Part(kind, arguments)


@dataclass(frozen=True)
class Family:
    """A backbone, the kind of data it is for, and the task that generates with it."""

    kind: str
    backbone: Part
    generates: str = ""
    sizes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Inputs whose shape the backbone leaves open or gets wrong, without the batch."""


WORDS, LENGTH, BATCH = 61, 12, 2

_TEXT = dict(vocabulary_size=WORDS, num_layers=2, num_heads=2, hidden_dim=16, intermediate_dim=32)
_PLACED = {**_TEXT, "max_sequence_length": 24}
_GROUPED = dict(vocabulary_size=WORDS, num_layers=2, num_query_heads=4, num_key_value_heads=2,
                hidden_dim=16, intermediate_dim=32)
_EXPERTS = dict(num_experts=4, top_k=2)
_VISION = dict(image_shape=(32, 32, 3), patch_size=8, num_layers=2, num_heads=2, hidden_dim=16)
_LINEAR = dict(linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=8,
               linear_value_head_dim=8)
_RESNET = part(
    "ResNetBackbone", input_conv_filters=[64], input_conv_kernel_sizes=[3], image_shape=(32, 32, 3),
    stackwise_num_filters=[64, 16, 16, 16], stackwise_num_blocks=[1, 1, 1, 1],
    stackwise_num_strides=[1, 2, 2, 2], block_type="basic_block", use_pre_activation=True)
_HGNET = part(
    "HGNetV2Backbone", depths=[1, 1], embedding_size=8, hidden_sizes=[16, 32],
    stem_channels=[3, 8, 8], hidden_act="relu", use_learnable_affine_block=True,
    stackwise_stage_filters=[[8, 8, 16, 1, 2, 3], [16, 8, 32, 1, 2, 3]],
    apply_downsample=[False, True], use_lightweight_conv_block=[False, True],
    image_shape=(32, 32, 3))
_MIT = part(
    "MiTBackbone", layerwise_depths=[1, 1, 1, 1], num_layers=4, layerwise_num_heads=[1, 1, 2, 2],
    layerwise_sr_ratios=[8, 4, 2, 1], max_drop_path_rate=0.1, layerwise_patch_sizes=[7, 3, 3, 3],
    layerwise_strides=[4, 2, 2, 2], image_shape=(64, 64, 3), hidden_dims=[8, 16, 24, 32])
_TOWER = dict(vocabulary_size=WORDS, embedding_dim=16, hidden_dim=16, num_layers=2, num_heads=2,
              intermediate_dim=32, max_sequence_length=LENGTH)
_SIGHT = dict(patch_size=8, hidden_dim=16, num_layers=2, num_heads=2, intermediate_dim=32,
              image_shape=(32, 32, 3))
_DINO = dict(patch_size=8, num_layers=2, hidden_dim=16, num_heads=2, intermediate_dim=32,
             image_shape=(32, 32, 3))
_VAE = part("vae.vae_backbone.VAEBackbone", encoder_num_filters=[32, 32], encoder_num_blocks=[1, 1],
            decoder_num_filters=[32, 32], decoder_num_blocks=[1, 1],
            sampler_method="mode")

FAMILIES: dict[str, Family] = {
    # -- encoders of text
    "bert": Family("language", part("BertBackbone", **_PLACED)),
    "roberta": Family("language", part("RobertaBackbone", **_PLACED)),
    "xlm_roberta": Family("language", part("XLMRobertaBackbone", **_PLACED)),
    "albert": Family("language", part("AlbertBackbone", embedding_dim=8, **_PLACED)),
    "deberta": Family("language", part("DebertaV3Backbone", bucket_size=8, **_PLACED)),
    "distil_bert": Family("language", part("DistilBertBackbone", **_PLACED)),
    "electra": Family("language", part(
        "ElectraBackbone", vocab_size=WORDS, num_layers=2, num_heads=2, hidden_dim=16,
        embedding_dim=8, intermediate_dim=32, max_sequence_length=24)),
    "f_net": Family("language", part(
        "FNetBackbone", vocabulary_size=WORDS, num_layers=2, hidden_dim=16, intermediate_dim=32,
        max_sequence_length=24)),
    "xlnet": Family("language", part("XLNetBackbone", **_TEXT)),
    "roformer": Family("language", part("RoformerV2Backbone", head_size=8, **_TEXT)),
    "esm": Family("language", part("ESMBackbone", **_PLACED)),
    # -- language models
    "gpt2": Family("language", part("GPT2Backbone", **_PLACED), "GPT2CausalLM"),
    "gpt_neo_x": Family("language", part("GPTNeoXBackbone", **_PLACED), "GPTNeoXCausalLM"),
    "opt": Family("language", part("OPTBackbone", **_PLACED), "OPTCausalLM"),
    "bloom": Family("language", part("BloomBackbone", **_TEXT), "BloomCausalLM"),
    "falcon": Family("language", part(
        "FalconBackbone", vocabulary_size=WORDS, num_layers=2, num_attention_heads=2, hidden_dim=16,
        intermediate_dim=64), "FalconCausalLM"),
    "llama": Family("language", part("LlamaBackbone", **_GROUPED), "LlamaCausalLM"),
    "llama3": Family("language", part(
        "Llama3Backbone", rope_frequency_adjustment_factor=8.0, rope_low_freq_factor=1.0,
        rope_high_freq_factor=4.0, rope_pretraining_sequence_length=8, **_GROUPED),
        "Llama3CausalLM"),
    "mistral": Family("language", part("MistralBackbone", sliding_window=4, **_GROUPED),
                      "MistralCausalLM"),
    "mixtral": Family("language", part("MixtralBackbone", **_GROUPED, **_EXPERTS),
                      "MixtralCausalLM"),
    "gemma": Family("language", part("GemmaBackbone", head_dim=4, **_GROUPED), "GemmaCausalLM"),
    "gemma2": Family("language", part(
        "GemmaBackbone", head_dim=4, use_post_ffw_norm=True, use_post_attention_norm=True,
        attention_logit_soft_cap=50.0, final_logit_soft_cap=30.0, use_sliding_window_attention=True,
        sliding_window_size=4, **_GROUPED), "GemmaCausalLM"),
    "gemma3": Family("language", part(
        "Gemma3Backbone", head_dim=4, image_size=16, use_post_ffw_norm=True,
        use_post_attention_norm=True, use_sliding_window_attention=True, sliding_window_size=4,
        **{**_GROUPED, "num_layers": 6})),
    "phi3": Family("language", part("Phi3Backbone", **_GROUPED), "Phi3CausalLM"),
    "qwen": Family("language", part("QwenBackbone", **_GROUPED), "QwenCausalLM"),
    "qwen_moe": Family("language", part(
        "QwenMoeBackbone", moe_intermediate_dim=16, shared_expert_intermediate_dim=16, **_GROUPED,
        **_EXPERTS), "QwenMoeCausalLM"),
    "qwen3": Family("language", part("Qwen3Backbone", head_dim=8, **_GROUPED), "Qwen3CausalLM"),
    "qwen3_moe": Family("language", part(
        "Qwen3MoeBackbone", head_dim=8, moe_intermediate_dim=16, **_GROUPED, **_EXPERTS),
        "Qwen3MoeCausalLM"),
    "qwen3_5": Family("language", part(
        "Qwen3_5Backbone", head_dim=8, layer_types=["linear_attention", "full_attention"],
        **_GROUPED, **_LINEAR), "Qwen3_5CausalLM"),
    "gpt_oss": Family("language", part(
        "GptOssBackbone", head_dim=4, sliding_window=4, **_GROUPED, **_EXPERTS), "GptOssCausalLM"),
    "smollm3": Family("language", part(
        "SmolLM3Backbone", vocabulary_size=WORDS, hidden_dim=16, intermediate_dim=32, num_layers=2,
        num_attention_heads=4, num_key_value_heads=2, attention_bias=False, attention_dropout=0.0,
        rope_layer_enabled_list=[True, False], layer_types=["full_attention"] * 2, mlp_bias=False,
        layer_norm_epsilon=1e-6, max_position_embeddings=24, rope_theta=10000.0,
        partial_rotary_factor=1.0), "SmolLM3CausalLM"),
    "rwkv7": Family("language", part(
        "RWKV7Backbone", hidden_size=16, head_size=8, num_layers=2, vocabulary_size=WORDS,
        intermediate_dim=32, gate_lora=8, mv_lora=8, aaa_lora=8, decay_lora=8),
        sizes={"token_ids": (16,), "padding_mask": (16,)}),
    "bart": Family("language", part("BartBackbone", **_PLACED), "BartSeq2SeqLM"),
    "t5": Family("language", part("T5Backbone", **_TEXT), "T5Seq2SeqLM"),
    "t5gemma": Family("language", part(
        "T5GemmaBackbone", vocabulary_size=WORDS, **{
            f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in {
                "hidden_dim": 16, "intermediate_dim": 32, "num_layers": 2, "num_attention_heads": 4,
                "num_key_value_heads": 2, "head_dim": 4,
                "layer_types": ["full_attention", "sliding_attention"]}.items()},
        sliding_window=4), "T5GemmaSeq2SeqLM"),
    # -- vision
    "resnet": Family("vision", _RESNET),
    "densenet": Family("vision", part("DenseNetBackbone", stackwise_num_repeats=[2, 2],
                                      growth_rate=8, image_shape=(32, 32, 3))),
    "vgg": Family("vision", part("VGGBackbone", stackwise_num_repeats=[1, 2],
                                 stackwise_num_filters=[8, 16], image_shape=(32, 32, 3))),
    "efficientnet": Family("vision", part(
        "EfficientNetBackbone", stackwise_kernel_sizes=[3, 5], stackwise_num_repeats=[1, 2],
        stackwise_input_filters=[16, 8], stackwise_output_filters=[8, 16],
        stackwise_expansion_ratios=[1, 4], stackwise_squeeze_and_excite_ratios=[0.25, 0.25],
        stackwise_strides=[1, 2], stackwise_block_types=["v1", "unfused"],
        stackwise_width_coefficients=[1.0, 1.0], stackwise_depth_coefficients=[1.0, 1.0],
        stackwise_force_input_filters=[0, 0], stackwise_nores_option=[False, False],
        num_features=32, input_shape=(32, 32, 3))),
    "mobilenet": Family("vision", part(
        "MobileNetBackbone", stackwise_expansion=[[8, 16]], stackwise_num_blocks=[2],
        stackwise_num_filters=[[8, 8]], stackwise_kernel_size=[[3, 5]],
        stackwise_num_strides=[[2, 1]], stackwise_se_ratio=[[None, 0.25]],
        stackwise_activation=[["relu", "hard_swish"]], stackwise_padding=[[1, 2]],
        output_num_filters=32, depthwise_filters=8, depthwise_stride=1, depthwise_residual=True,
        last_layer_filter=16, input_num_filters=8, image_shape=(32, 32, 3))),
    "xception": Family("vision", part(
        "XceptionBackbone", stackwise_conv_filters=[[8, 16], [16, 16]],
        stackwise_pooling=[True, False], image_shape=(32, 32, 3))),
    "cspnet": Family("vision", part(
        "CSPNetBackbone", stem_filters=8, stem_kernel_size=3, stem_strides=1, stackwise_depth=[1, 2],
        stackwise_strides=[1, 2], stackwise_num_filters=[8, 16], block_type="dark_block",
        stage_type="csp", bottle_ratio=[0.5, 1.0], block_ratio=[1.0, 0.5], expand_ratio=[2.0, 1.0],
        down_growth=True, image_shape=(32, 32, 3))),
    "hgnet": Family("vision", _HGNET),
    "vit": Family("vision", part("ViTBackbone", mlp_dim=32, **_VISION)),
    "deit": Family("vision", part("DeiTBackbone", intermediate_dim=32, **_VISION)),
    "vit_det": Family("vision", part(
        "ViTDetBackbone", hidden_size=16, num_layers=2, intermediate_dim=32, num_heads=2,
        global_attention_layer_indices=[1], image_shape=(64, 64, 3), patch_size=8,
        num_output_channels=8, window_size=3)),
    "swin": Family("vision", part(
        "SwinTransformerBackbone", image_shape=(32, 32, 3), embed_dim=8, depths=[2, 2],
        num_heads=[2, 2], window_size=4)),
    "dinov2": Family("vision", part(
        "DINOV2Backbone", position_embedding_shape=(48, 48, 3), num_register_tokens=2,
        use_swiglu_ffn=True, **_DINO)),
    "dinov3": Family("vision", part("DINOV3Backbone", use_gated_mlp=True, **_DINO)),
    "mit": Family("vision", _MIT),
    "segformer": Family("vision", part("SegFormerBackbone", image_encoder=_MIT,
                                       projection_filters=16)),
    "deeplab_v3": Family("vision", part(
        "DeepLabV3Backbone", image_encoder=_RESNET, spatial_pyramid_pooling_key="P5",
        low_level_feature_key="P2", upsampling_size=8, dilation_rates=[2, 3],
        projection_filters=8, image_shape=(32, 32, 3))),
    "retinanet": Family("vision", part(
        "RetinaNetBackbone", image_encoder=_RESNET, min_level=3, max_level=4, use_p5=False,
        image_shape=(32, 32, 3))),
    "depth_anything": Family("vision", part(
        "DepthAnythingBackbone", reassemble_factors=[4, 2, 1, 0.5], neck_hidden_dims=[8, 8, 8, 8],
        fusion_hidden_dim=8, head_hidden_dim=8, head_in_index=-1,
        feature_keys=["stage1", "stage2", "stage3", "stage4"],
        image_encoder=part("DINOV2Backbone", position_embedding_shape=(48, 48, 3),
                           apply_layernorm=True,
                           **{**_DINO, "num_layers": 4, "image_shape": (64, 64, 3)}))),
    "sam": Family("vision", part(
        "SAMBackbone",
        image_encoder=part(
            "ViTDetBackbone", hidden_size=16, num_layers=2, intermediate_dim=32, num_heads=2,
            global_attention_layer_indices=[1], image_shape=(64, 64, 3), patch_size=16,
            num_output_channels=8, window_size=2),
        prompt_encoder=part("SAMPromptEncoder", hidden_size=8, image_embedding_size=(4, 4),
                            input_image_size=(64, 64), mask_in_channels=8),
        mask_decoder=part("SAMMaskDecoder", num_layers=2, hidden_size=8, intermediate_dim=16,
                          num_heads=4, embedding_dim=8, iou_head_hidden_dim=8)),
        sizes={"points": (1, 2), "labels": (1,), "boxes": (1, 2, 2), "masks": (0, 16, 16, 1)}),
    # -- images and text
    "clip": Family("vision", part(
        "CLIPBackbone", vision_encoder=part("CLIPVisionEncoder", **_SIGHT),
        text_encoder=part("CLIPTextEncoder", **_TOWER), projection_dim=16)),
    "siglip": Family("vision", part(
        "SigLIPBackbone", vision_encoder=part("SigLIPVisionEncoder", **_SIGHT),
        text_encoder=part("SigLIPTextEncoder", **_TOWER))),
    # -- sound
    "whisper": Family("audio", part(
        "WhisperBackbone", num_mels=20, max_encoder_sequence_length=24,
        max_decoder_sequence_length=LENGTH, **_TEXT), sizes={"encoder_features": (24, 20)}),
    "moonshine": Family("audio", part(
        "MoonshineBackbone", vocabulary_size=WORDS, filter_dim=16, encoder_num_layers=2,
        decoder_num_layers=2, hidden_dim=16, intermediate_dim=32, encoder_num_heads=2,
        decoder_num_heads=2), sizes={"encoder_input_values": (1600, 1),
                                     "encoder_padding_mask": (1600,)}),
    # -- diffusion
    "vae": Family("diffusion", _VAE, sizes={"images": (32, 32, 3)}),
    "mmdit": Family("diffusion", part(
        "stable_diffusion_3.mmdit.MMDiT", patch_size=2, hidden_dim=32, num_layers=2, num_heads=2,
        position_size=8, latent_shape=(8, 8, 4), context_shape=(LENGTH, 16),
        pooled_projection_shape=(16,), qk_norm="rms_norm", dual_attention_indices=(0,))),
    "flux": Family("diffusion", part(
        "FluxBackbone", input_channels=8, hidden_size=32, mlp_ratio=2.0, num_heads=2, depth=1,
        depth_single_blocks=2, axes_dim=[4, 6, 6], theta=10000, use_bias=True, guidance_embed=True,
        image_shape=(16, 8), text_shape=(LENGTH, 32), image_ids_shape=(16, 3),
        text_ids_shape=(LENGTH, 3), y_shape=(32,))),
}


def build(described: Any) -> Any:
    """The object a `Part` describes."""
    if not isinstance(described, Part):
        return described
    import keras_hub

    file, _, name = described.kind.rpartition(".")
    if file:
        kind = getattr(importlib.import_module(f"keras_hub.src.models.{file}"), name)
    else:
        public = keras_hub.models if hasattr(keras_hub.models, name) else keras_hub.layers
        kind = getattr(public, name)
    return kind(**{name: build(value) for name, value in described.arguments.items()})


def randomize(model: Any, seed: int = 0) -> None:
    """Draw every weight, so that none is a zero or a one its part of the model hides behind."""
    source = np.random.default_rng(seed)
    for variable in model.weights:
        if "float" not in str(variable.dtype):
            continue
        value = np.asarray(variable) + 0.1 * source.standard_normal(variable.shape)
        if "variance" in variable.path:
            value = 1 + np.abs(value - 1)
        variable.assign(value.astype("float32"))


def inputs_of(family: Family, model: Any, seed: int = 1) -> dict[str, np.ndarray]:
    """A batch of what the model takes, by the names and shapes of its inputs."""
    source = np.random.default_rng(seed)
    given = model.input if isinstance(model.input, dict) else {"images": model.input}
    return {name: _input(source, name, (BATCH, *family.sizes.get(name, [
        LENGTH if d is None else d for d in x.shape[1:]])), str(x.dtype))
        for name, x in sorted(given.items())}


def _input(source: np.random.Generator, name: str, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    if "mask" in name and len(shape) == 2:
        ends = np.arange(shape[0])[:, None]
        return (np.arange(shape[1]) < shape[1] - 3 * ends).astype(dtype)
    if "segment" in name:
        return source.integers(0, 2, shape).astype(dtype)
    if "ids" in name:
        return source.integers(3, WORDS, shape).astype(dtype)
    if "position" in name:
        return np.broadcast_to(np.arange(shape[-1]), shape).astype(dtype)
    return source.standard_normal(shape).astype(dtype)


def leaves(results: Any, prefix: str = "output") -> Iterator[tuple[str, np.ndarray]]:
    """The arrays of a nest with their names."""
    if isinstance(results, dict):
        for name in sorted(results):
            yield from leaves(results[name], f"{prefix}.{name}")
    elif isinstance(results, (list, tuple)):
        for number, value in enumerate(results):
            yield from leaves(value, f"{prefix}.{number}")
    else:
        yield prefix, np.asarray(results)


def prompts(family: Family, model: Any, seed: int = 2) -> dict[str, np.ndarray]:
    """Two prompts of different length and room to go on."""
    source = np.random.default_rng(seed)
    mask = np.arange(LENGTH) < np.array([[3], [5]])
    ids = np.where(mask, source.integers(3, WORDS, mask.shape), 0).astype("int32")
    given = {name: (mask.astype("int32") if "mask" in name else ids) for name in model.input}
    if "encoder_token_ids" in given:
        full = source.integers(3, WORDS, mask.shape).astype("int32")
        given |= {"encoder_token_ids": full, "encoder_padding_mask": np.ones_like(full)}
    return given


def run(family: Family, model: Any, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the model predicts, and with a task the tokens it generates greedily."""
    import keras_hub

    x = given if isinstance(model.input, dict) else given["images"]
    results = dict(leaves(model.predict_on_batch(x)))
    if family.generates:
        task = getattr(keras_hub.models, family.generates)(backbone=model, preprocessor=None)
        task.compile(sampler=keras_hub.samplers.GreedySampler())
        made = task.generate(prompts(family, model), stop_token_ids=None)
        results |= leaves(made, "generated")
    return results


def save(name: str, folder: Path) -> dict[str, Any]:
    """Write the files of a family; seconds of CPU, or why it does not run here."""
    family = FAMILIES[name]
    begun = time.process_time()
    try:
        model = build(family.backbone)
        randomize(model)
        given = inputs_of(family, model)
        model.save_weights(folder / f"{name}.weights.h5")
        # Some weights are made of others when a file is read.
        model.load_weights(folder / f"{name}.weights.h5")
        np.savez(folder / f"{name}.in.npz", **given)  # type: ignore[arg-type]
        np.savez(folder / f"{name}.out.npz", **run(family, model, given))  # type: ignore[arg-type]
    except Exception as error:
        traceback.print_exc()
        return {"name": name, "failure": f"{type(error).__name__}: {error}"}
    return {"name": name, "seconds": time.process_time() - begun}


def main(folder: str, *names: str) -> None:
    for name in names or FAMILIES:
        print(json.dumps(save(name, Path(folder))), flush=True)


if __name__ == "__main__":
    os.environ.setdefault("KERAS_BACKEND", "jax")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    main(*sys.argv[1:])
