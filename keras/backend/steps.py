"""The steps of training: what one batch does to a model's state, and programs made of it.

State is lists of arrays (trainable, non-trainable, optimizer and metrics variables). A step is a pure
function of state and batch; `Step` takes the state from a model's variables and puts the new one back,
so that callbacks always read true values.
"""

from __future__ import annotations

import inspect
import itertools
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from keras.src import backend, tree
from keras.src.backend import config
from keras.src.distribution import distribution_lib
from keras.src.layers.preprocessing.image_preprocessing.random_perspective import RandomPerspective
from keras.src.layers.preprocessing.image_preprocessing.random_rotation import RandomRotation
from keras.src.layers.preprocessing.image_preprocessing.random_shear import RandomShear
from keras.src.layers.preprocessing.image_preprocessing.random_translation import RandomTranslation
from keras.src.layers.preprocessing.image_preprocessing.random_zoom import RandomZoom
from keras.src.trainers import trainer as base_trainer
from keras.src.trainers.data_adapters import data_adapter_utils

from ...compiler.errors import UnsupportedError
from ...compiler.trace.core import Array
from ...compiler.trace.grad import value_and_grad
from ...compiler.trace.jit import jit
from ...distributed import world
from .variable import Lending

TRAINED = ("trainable_variables", "non_trainable_variables", "optimizer_variables",
           "metrics_variables")
TESTED = ("trainable_variables", "non_trainable_variables", "metrics_variables")
PREDICTED = ("trainable_variables", "non_trainable_variables")
"""The kinds of variables that are the state of each step, in order."""


COMPILED_ALL_THE_SAME = (RandomPerspective, RandomRotation, RandomShear, RandomTranslation, RandomZoom)
"""Layers that Keras marks as not compilable, which other compilers need and this one does not."""


class Steps(base_trainer.Trainer):
    """The steps of a model. Each is `step(state, data) -> (logs, state)`, and may be overridden so;
    or as `step(data) -> logs` that reads and assigns variables, which is how `super()` may be called
    as well."""

    def __init__(self) -> None:
        super().__init__()
        self._jit_compile: bool | None = None
        self._losses_override: list[Any] = []
        self.lending = Lending()

    def compute_loss_and_updates(
        self, trainable_variables, non_trainable_variables, metrics_variables, x, y, sample_weight,
        training=False, optimizer_variables=None,
    ):
        """`(loss, (unscaled loss, predictions, non-trainable, metrics variables))`, stateless."""
        kwargs = {"training": training} if self._call_has_training_arg else {}
        y_pred, non_trainable_variables, losses = self.stateless_call(
            trainable_variables, non_trainable_variables, x, return_losses=True, **kwargs)
        if losses:
            self._losses_override.clear()
            self._losses_override = losses
        loss, variables = self.stateless_compute_loss(
            trainable_variables, non_trainable_variables, metrics_variables,
            x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=training)
        if losses:
            self._losses_override.clear()
        trainable_variables, non_trainable_variables, metrics_variables = variables
        unscaled = loss
        if training and self.optimizer is not None:
            mapping = list(zip(self.optimizer.variables, optimizer_variables, strict=True))
            with backend.StatelessScope(state_mapping=mapping):
                loss = self.optimizer.scale_loss(loss)
        return loss, (unscaled, y_pred, non_trainable_variables, metrics_variables)

    def _updated_metrics(self, metrics_variables, loss, x, y, y_pred, sample_weight):
        """`(logs, metrics variables)` after one batch."""
        mapping = list(zip(self.metrics_variables, metrics_variables, strict=True))
        with backend.StatelessScope(state_mapping=mapping) as scope:
            size = next(i for i in tree.flatten(x) if i is not None).shape[0]
            self._loss_tracker.update_state(loss, sample_weight=size)
            logs = self.compute_metrics(x, y, y_pred, sample_weight)
        current = [scope.get_current_value(v) for v in self.metrics_variables]
        return logs, [v.value if new is None else new
                      for v, new in zip(self.metrics_variables, current, strict=True)]

    def train_step(self, *arguments):
        """One optimizer step."""
        return self._step(self._train, TRAINED, arguments)

    def test_step(self, *arguments):
        """Loss and metrics of one batch."""
        return self._step(self._test, TESTED, arguments)

    def predict_step(self, *arguments):
        """Predictions of one batch. With state, returns `(outputs, non-trainable variables)`."""
        return self._step(self._predict, PREDICTED, arguments)

    def _step(self, step, kinds, arguments):
        if len(arguments) == 2:
            return step(*arguments)
        (data,) = arguments
        variables = [self.variables_of(kind) for kind in kinds]
        results, state = step(tuple([v.value for v in group] for group in variables), data)
        if kinds == PREDICTED:
            variables, state = variables[1:], (state,)
        for group, values in zip(variables, state, strict=True):
            for variable, value in zip(group, values, strict=True):
                variable.assign(value)
        return results

    def _train(self, state, data):
        trainable, non_trainable, optimizer, metrics = state
        x, y, sample_weight = data_adapter_utils.unpack_x_y_sample_weight(data)

        def loss_of(variables):
            return self.compute_loss_and_updates(
                variables, non_trainable, metrics, x, y, sample_weight, training=True,
                optimizer_variables=optimizer)

        (_, aux), gradients = value_and_grad(loss_of, has_aux=True)(trainable)
        loss, y_pred, non_trainable, metrics = aux
        trainable, optimizer = self.optimizer.stateless_apply(optimizer, gradients, trainable)
        logs, metrics = self._updated_metrics(metrics, loss, x, y, y_pred, sample_weight)
        return logs, (trainable, non_trainable, optimizer, metrics)

    def _test(self, state, data):
        trainable, non_trainable, metrics = state
        x, y, sample_weight = data_adapter_utils.unpack_x_y_sample_weight(data)
        loss, aux = self.compute_loss_and_updates(
            trainable, non_trainable, metrics, x, y, sample_weight, training=False)
        _, y_pred, non_trainable, metrics = aux
        logs, metrics = self._updated_metrics(metrics, loss, x, y, y_pred, sample_weight)
        return logs, (trainable, non_trainable, metrics)

    def _predict(self, state, data):
        trainable, non_trainable = state
        kwargs = {"training": False} if self._call_has_training_arg else {}
        x, _, _ = data_adapter_utils.unpack_x_y_sample_weight(data)
        return self.stateless_call(trainable, non_trainable, x, **kwargs)

    # -- programs ---------------------------------------------------------------------------------

    def variables_of(self, kind: str) -> list:
        """The variables of one kind of state."""
        if kind == "optimizer_variables":
            return self.optimizer.variables if self.optimizer is not None else []
        return getattr(self, kind)

    @property
    def jit_compile(self) -> bool:
        """Is a step one compiled program? Unless the user says no, or a layer works outside programs.

        `COMPILED_ALL_THE_SAME` say of themselves that they do.
        """
        if self._jit_compile is None:
            self._jit_compile = self._resolve_auto_jit_compile()
        return self._jit_compile

    @jit_compile.setter
    def jit_compile(self, value: bool) -> None:
        if value and not self._resolve_auto_jit_compile():
            warnings.warn("jit_compile=True: a layer of the model cannot be compiled, so its steps run"
                          " eagerly", stacklevel=3)
            value = False
        self._jit_compile = value

    def _resolve_auto_jit_compile(self) -> bool:
        return all(layer.supports_jit or isinstance(layer, COMPILED_ALL_THE_SAME)
                   for layer in self._flatten_layers())

    def program_of(self, step: Callable, kinds: Sequence[str]) -> Callable[[Any, Any], Any]:
        """`step(state, data)` as one compiled program, unless the user asked for eager execution. A
        program that trains or tests writes the new state over the old; a prediction leaves it."""
        if not _takes_state(step):
            step = self._on_state(step, kinds)
        if kinds == PREDICTED:
            step = _changes_only(step)
        if self.run_eagerly or not self.jit_compile:
            return step

        def program(state, data):  # By these names a report of NaN calls its arguments.
            return step(state, data)

        donated = () if kinds == PREDICTED else (0,)
        return jit(program, donate_argnums=donated, compiler=self._distributed_compiler(kinds))

    def _on_state(self, step, kinds):
        """`step(data)`, which works on the variables, as a function of state and data."""

        def on_state(state, data):
            variables = [self.variables_of(kind) for kind in kinds]
            mapping = [pair for group, values in zip(variables, state, strict=True)
                       for pair in zip(group, values, strict=True)]
            with backend.StatelessScope(state_mapping=mapping) as scope:
                results = step(data)
            new = tuple([scope.get_current_value(v) for v in group] for group in variables)
            return results, new[1] if kinds == PREDICTED else new

        return on_state

    def _distributed_compiler(self, kinds):
        """The partitioning compiler of the distribution in force, None without one."""
        distribution = distribution_lib.distribution()
        if distribution is None:
            return None
        if not isinstance(distribution, distribution_lib.DataParallel):
            raise UnsupportedError(f"the tfn backend trains under DataParallel, not yet under"
                                   f" {type(distribution).__name__}")
        from ...distributed.data_parallel import data_parallel_compiler

        self._agree_on_variables()
        return data_parallel_compiler(
            lambda: sum(len(self.variables_of(kind)) for kind in kinds),
            world.rank(), world.size(), world.communicator())

    def _agree_on_variables(self) -> None:
        """Start from rank 0's values: processes that drew their own would drift apart."""
        communicator = world.communicator()
        if communicator is None or communicator.size == 1:
            return
        variables = [v for kind in TRAINED for v in self.variables_of(kind)]
        values = communicator.broadcast([np.asarray(v.value) for v in variables])
        for variable, value in zip(variables, values, strict=True):
            variable._value = Array(value)


def _changes_only(step: Callable) -> Callable:
    """A prediction that returns None for each variable it leaves as it is, not the value it was given:
    a thread that trains the model may have assigned another one."""

    def predict_step(state, data):
        outputs, values = step(state, data)
        return outputs, [None if new is old else new
                         for new, old in zip(values, state[1], strict=True)]

    return predict_step


def _takes_state(step: Callable) -> bool:
    """Does `step` take a state besides the data?"""
    kinds = [p.kind for p in inspect.signature(step).parameters.values()
             if p.default is p.empty]
    return inspect.Parameter.VAR_POSITIONAL in kinds or len(kinds) > 1


class Step:
    """A step on a model's variables: `step(batches)` returns the logs of the last one."""

    def __init__(self, model: Steps, step: Callable[[Any, Any], Any], kinds: Sequence[str]):
        self._model, self._step, self._kinds = model, step, kinds
        self._variables: list[list] = []
        self.refresh()

    def refresh(self) -> None:
        """Look up the variables: between epochs a model may get other ones."""
        self._variables = [self._model.variables_of(kind) for kind in self._kinds]
        for variable in itertools.chain(*self._variables):
            variable.lending = self._model.lending

    def __call__(self, batches: Sequence[Any]) -> Any:
        logs, lending = None, self._model.lending
        for data in batches:
            batch = arrays(data)
            with lending.lock:
                try:
                    lending.lent += 1
                    logs, state = self._step(tuple(map(_lent, self._variables)), batch)
                    for variables, values in zip(self._variables, state, strict=True):
                        for variable, value in zip(variables, values, strict=True):
                            variable._value = value
                finally:
                    lending.lent -= 1
                lending.come()
        return logs


class Prediction(Step):
    """A step that leaves the weights as they are: it returns the outputs of all batches."""

    def __call__(self, batches: Sequence[Any]) -> Any:
        found = []
        for data in batches:
            with self._model.lending.lock:
                state = tuple([v.value for v in group] for group in self._variables)
            outputs, changed = self._step(state, arrays(data))
            for variable, value in zip(self._variables[1], changed, strict=True):
                if value is not None:
                    variable._value = value
            found.append(tree.map_structure(np.asarray, outputs))
        if len(found) == 1:
            return found[0]
        return tree.map_structure(lambda *parts: np.concatenate(parts), *found)


# References to the array of a variable nobody else holds: the variable's, `value`, and the argument.
_UNSHARED = 3


def _lent(variables: list) -> list:
    """The arrays of variables for a step that donates them. Where someone else holds an array
    (another variable it was assigned to, a callback) it is a view, which donation copies."""
    lent = []
    for variable in variables:
        value = variable._value
        if type(value) is not Array:
            value = variable.value
        elif sys.getrefcount(value) > _UNSHARED:
            value = Array(value.numpy())
        lent.append(value)
    return lent


def arrays(data: Any) -> Any:
    """The leaves of a batch as arrays; None stays."""
    return tree.map_structure(_array, data)


def _array(leaf: Any) -> Any:
    if leaf is None or isinstance(leaf, Array):
        return leaf
    if hasattr(leaf, "__array__"):
        array = np.asarray(leaf)
        if array.dtype == np.float64:
            array = array.astype(config.floatx())
        return Array(array)
    return backend.convert_to_tensor(leaf)
