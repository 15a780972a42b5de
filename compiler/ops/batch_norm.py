"""Batch normalisation as StableHLO has it: training, inference and gradient, by other ops."""

from __future__ import annotations

from ..ir.core import TensorType
from ..trace.core import bind
from .declare import FLOAT, OpDefinition, op, require


class _BatchNorm(OpDefinition):
    attributes = {"epsilon": "opaque", "feature_index": "i64"}
    features = slice(1, None)
    """Operands with one element per feature."""

    @classmethod
    def check(cls, operands, attributes) -> TensorType:
        x, index = operands[0], attributes["feature_index"]
        require(x.dtype in FLOAT, "I1", f"batch normalisation of {x}")
        require(0 <= index < x.rank, "C1", f"feature_index {index} of {x}")
        feature = TensorType((x.shape[index],), x.dtype)
        for other in operands[cls.features]:
            require(other == feature, "C3", f"batch normalisation of {x} needs {feature} per"
                    f" feature, got {other}")
        return feature


def _spread(value, x, index: int):
    return bind("stablehlo.broadcast_in_dim", value, shape=x.shape, broadcast_dimensions=(index,))


def _others(x, index: int) -> tuple[int, ...]:
    return tuple(d for d in range(len(x.shape)) if d != index)


def _mean(x, index: int):
    from .reduction import reduce

    total = reduce(x, _others(x, index), "add")
    count = 1
    for d in _others(x, index):
        count = count * x.shape[d]
    return total / count


def _epsilon(attributes) -> float:
    return float(attributes["epsilon"])


@op("stablehlo.batch_norm_training")
class BatchNormTraining(_BatchNorm):
    """Normalise with the batch's own mean and variance; results: output, mean, variance."""

    def infer(operands, attributes, regions):
        feature = BatchNormTraining.check(operands, attributes)
        return [operands[0], feature, feature]

    def decompose(operands, attributes, regions):
        from ..numpy import rsqrt

        x, scale, offset = operands
        index = attributes["feature_index"]
        mean = _mean(x, index)
        centered = x - _spread(mean, x, index)
        variance = _mean(centered * centered, index)
        factor = rsqrt(variance + _epsilon(attributes)) * scale
        return [centered * _spread(factor, x, index) + _spread(offset, x, index), mean, variance]


@op("stablehlo.batch_norm_inference")
class BatchNormInference(_BatchNorm):
    """Normalise with a given mean and variance. Operands: x, scale, offset, mean, variance."""


    def infer(operands, attributes, regions):
        BatchNormInference.check(operands, attributes)
        return [operands[0]]

    def decompose(operands, attributes, regions):
        from ..numpy import rsqrt

        x, scale, offset, mean, variance = operands
        index = attributes["feature_index"]
        factor = rsqrt(variance + _epsilon(attributes)) * scale
        centered = x - _spread(mean, x, index)
        return [centered * _spread(factor, x, index) + _spread(offset, x, index)]


@op("stablehlo.batch_norm_grad")
class BatchNormGrad(_BatchNorm):
    """Gradients of batch_norm_training for x, scale and offset. Operands: x, scale, mean, variance, the
    output's gradient."""

    features = slice(1, 4)

    def infer(operands, attributes, regions):
        feature = BatchNormGrad.check(operands, attributes)
        require(operands[4] == operands[0], "C3", f"batch_norm_grad of {operands[0]} with a gradient"
                f" of {operands[4]}")
        return [operands[0], feature, feature]

    def decompose(operands, attributes, regions):
        from ..numpy import rsqrt

        x, scale, mean, variance, ct = operands
        index = attributes["feature_index"]
        inverse = rsqrt(variance + _epsilon(attributes))
        normal = (x - _spread(mean, x, index)) * _spread(inverse, x, index)
        ct_mean, product = _mean(ct, index), _mean(ct * normal, index)
        count = 1
        for d in _others(x, index):
            count = count * x.shape[d]
        ct_x = _spread(scale * inverse, x, index) * (
            ct - _spread(ct_mean, x, index) - normal * _spread(product, x, index))
        return [ct_x, product * count, ct_mean * count]


