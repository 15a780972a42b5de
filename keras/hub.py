"""keras-hub on tfn: generation as one compiled program.

keras-hub asks for its backends by name and leaves generation to Python on any other. Here its tasks
generate on tfn as they do on jax: prompt, key-value cache, sampler and random numbers are one program.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from types import ModuleType
from typing import Any

from keras.src import backend

from ..compiler.trace.jit import Jitted, jit
from .backend.steps import arrays
from .plug import is_active


class Generation:
    """`generation(inputs, stop_token_ids=...)`: `task.generate_step`, compiled for each shape of its
    inputs and each choice of tokens to stop at.

    The weights are arguments of the program; those of the sampler's random numbers are written back.
    """

    def __init__(self, task: Any):
        self._task = task
        self._programs: dict[Hashable, Jitted] = {}

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        task = self._task
        fixed = tuple(sorted((name, tuple(value) if isinstance(value, list) else value)
                             for name, value in options.items()))
        program = self._programs.get(fixed)
        if program is None:
            program = self._programs[fixed] = jit(self._program(dict(fixed)))
        sampler = self._sampler_variables()
        state = [v.value for v in (*task.trainable_variables, *task.non_trainable_variables)]
        outputs, drawn = program([v.value for v in sampler], state, arrays(inputs))
        for variable, value in zip(sampler, drawn, strict=True):
            variable.assign(value)
        return outputs

    def _sampler_variables(self) -> list:
        return list(getattr(getattr(self._task, "sampler", None), "variables", ()))

    def _program(self, options: dict[str, Any]) -> Callable:
        task, sampler = self._task, self._sampler_variables()

        def generate(drawn, state, inputs):
            variables = [*sampler, *task.trainable_variables, *task.non_trainable_variables]
            mapping = list(zip(variables, [*drawn, *state], strict=True))
            with backend.StatelessScope(state_mapping=mapping) as scope:
                outputs = task.generate_step(*inputs, **options)
            return outputs, [scope.get_current_value(v) for v in sampler]

        return generate


def _compile_generation(module: ModuleType) -> None:
    """Let the task of `module` make a `Generation` when Keras runs on tfn."""
    task: Any = next(kind for kind in vars(module).values()
                if isinstance(kind, type) and "make_generate_function" in vars(kind))
    upstream = task.make_generate_function

    def make_generate_function(self):
        if not is_active() or self.run_eagerly or not self.jit_compile:
            return upstream(self)
        if self.generate_function is None:
            self.generate_function = Generation(self)
        return self.generate_function

    make_generate_function.__doc__ = upstream.__doc__
    task.make_generate_function = make_generate_function


def _interpolate_by_tfn(module: Any) -> None:
    """Resizing with aligned corners, which keras-hub has for the backends it knows."""
    upstream = module.interpolate

    def interpolate(x, size, data_format=None):
        if not is_active():
            return upstream(x, size, data_format)
        first = (data_format or backend.image_data_format()) == "channels_first"
        rows, columns = (2, 3) if first else (1, 2)
        shape = list(x.shape)
        # Pixel centres of the corners stay where they are: i -> i * (new - 1) / (old - 1).
        scale = [(size[0] - 1.0) / (shape[rows] - 1.0), (size[1] - 1.0) / (shape[columns] - 1.0)]
        shape[rows], shape[columns] = size
        return backend.image.scale_and_translate(
            x, tuple(shape), scale, [0.5 - s / 2.0 for s in scale], (rows, columns), "bilinear",
            antialias=False)

    interpolate.__doc__ = upstream.__doc__
    module.interpolate = interpolate


WRAPS: dict[str, Callable[[ModuleType], None]] = {
    **dict.fromkeys(("causal_lm", "text_to_image", "image_to_image", "inpaint"), _compile_generation),
    "depth_anything.interpolate": _interpolate_by_tfn,
}
"""Module below `keras_hub.src.models` -> what is changed in it after it has run."""
