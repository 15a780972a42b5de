"""The trainer: one compiled program per train, test and predict step, with donated state.

State is lists of arrays (trainable, non-trainable, optimizer and metrics variables). After every step
the variables hold the new arrays, so a callback always reads true values; linking them again costs
an attribute per variable.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from keras.src import backend, tree
from keras.src import callbacks as callbacks_module
from keras.src.backend import config
from keras.src.distribution import distribution_lib
from keras.src.trainers import trainer as base_trainer
from keras.src.trainers.data_adapters import array_slicing, data_adapter_utils
from keras.src.trainers.epoch_iterator import EpochIterator
from keras.src.utils import traceback_utils
from keras.src.utils.python_utils import pythonify_logs

from ...compiler.errors import UnsupportedError
from ...compiler.trace.core import Array
from ...compiler.trace.grad import value_and_grad
from ...compiler.trace.jit import jit
from ...distributed import data_parallel_compiler, world

STATE = ("trainable_variables", "non_trainable_variables", "optimizer_variables",
         "metrics_variables")


class _Batches(EpochIterator):
    """Epochs of NumPy batches."""

    def __init__(self, *args, **kwargs):
        distribution = distribution_lib.distribution()
        if distribution is not None:
            # Every process reads whole batches; the compiled step takes its rows.
            distribution.auto_shard_dataset = False
        super().__init__(*args, **kwargs)

    def _get_iterator(self):
        return self.data_adapter.get_numpy_iterator()


class Trainer(base_trainer.Trainer):
    """`compile`, `fit`, `evaluate`, `predict` and the `*_on_batch` methods of `keras.Model`."""

    def __init__(self):
        super().__init__()
        self.train_function: Callable[[Any], Any] | None = None
        self.test_function: Callable[[Any], Any] | None = None
        self.predict_function: Callable[[Any], Any] | None = None
        self._losses_override: list[Any] = []

    # -- stateless steps --------------------------------------------------------------------------

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

    def train_step(self, state, data):
        """One optimizer step. Returns `(logs, new state)`."""
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

    def test_step(self, state, data):
        """Loss and metrics of one batch. Returns `(logs, new state)`."""
        trainable, non_trainable, metrics = state
        x, y, sample_weight = data_adapter_utils.unpack_x_y_sample_weight(data)
        loss, aux = self.compute_loss_and_updates(
            trainable, non_trainable, metrics, x, y, sample_weight, training=False)
        _, y_pred, non_trainable, metrics = aux
        logs, metrics = self._updated_metrics(metrics, loss, x, y, y_pred, sample_weight)
        return logs, (trainable, non_trainable, metrics)

    def predict_step(self, state, data):
        """Predictions of one batch. Returns `(outputs, non-trainable variables)`."""
        trainable, non_trainable = state
        kwargs = {"training": False} if self._call_has_training_arg else {}
        x, _, _ = data_adapter_utils.unpack_x_y_sample_weight(data)
        return self.stateless_call(trainable, non_trainable, x, **kwargs)

    # -- state ------------------------------------------------------------------------------------

    def _variables(self, kind: str) -> list:
        if kind == "optimizer_variables":
            return self.optimizer.variables if self.optimizer is not None else []
        return getattr(self, kind)

    def _state(self, kinds) -> tuple:
        return tuple([_to_lend(v) for v in self._variables(kind)] for kind in kinds)

    def _link(self, kinds, state) -> None:
        """Let the variables hold the arrays of `state`."""
        for kind, values in zip(kinds, state, strict=True):
            for variable, value in zip(self._variables(kind), values, strict=True):
                variable._value = value

    def _compiled(self, step, kinds, donate=(0,)):
        """`step` as one compiled program, unless the user asked for eager execution."""
        if self.run_eagerly or not self.jit_compile:
            return step
        return jit(step, donate_argnums=donate, compiler=self._distributed_compiler(kinds))

    def _distributed_compiler(self, kinds):
        """The partitioning compiler of the distribution in force, None without one."""
        distribution = distribution_lib.distribution()
        if distribution is None:
            return None
        if not isinstance(distribution, distribution_lib.DataParallel):
            raise UnsupportedError(f"the tfn backend trains under DataParallel, not yet under"
                                   f" {type(distribution).__name__}")
        self._agree_on_variables()
        return data_parallel_compiler(
            lambda: sum(len(self._variables(kind)) for kind in kinds),
            world.rank(), world.size(), world.communicator())

    def _agree_on_variables(self) -> None:
        """Start from rank 0's values: processes that drew their own would drift apart."""
        communicator = world.communicator()
        if communicator is None or communicator.size == 1:
            return
        variables = [v for kind in STATE for v in self._variables(kind)]
        values = communicator.broadcast([np.asarray(v.value) for v in variables])
        for variable, value in zip(variables, values, strict=True):
            variable._value = Array(value)

    # -- functions ----------------------------------------------------------------------------------

    def make_train_function(self, force=False) -> Callable[[Any], Any]:
        if self.train_function is None or force:
            self.train_function = self._stepper(
                self._compiled(self.train_step, STATE), STATE)
        return self.train_function

    def make_test_function(self, force=False) -> Callable[[Any], Any]:
        if self.test_function is None or force:
            kinds = (STATE[0], STATE[1], STATE[3])
            self.test_function = self._stepper(self._compiled(self.test_step, kinds), kinds)
        return self.test_function

    def make_predict_function(self, force=False) -> Callable[[Any], Any]:
        if self.predict_function is None or force:
            # Nothing is donated: the weights outlive the call unchanged.
            step = self._compiled(self.predict_step, STATE[:2], donate=())

            def predict(batch):
                state = self._state(STATE[:2])
                outputs, non_trainable = step(state, _arrays(batch))
                self._link(STATE[1:2], (non_trainable,))
                return outputs

            self.predict_function = predict
        return self.predict_function

    def _stepper(self, step, kinds):
        """`function(batches) -> logs` of the last of them."""

        def run(batches):
            logs = None
            for data in batches:
                logs, state = step(self._state(kinds), _arrays(data))
                self._link(kinds, state)
            return logs

        return run

    # -- loops --------------------------------------------------------------------------------------

    @traceback_utils.filter_traceback
    def fit(
        self, x=None, y=None, batch_size=None, epochs=1, verbose="auto", callbacks=None,
        validation_split=0.0, validation_data=None, shuffle=True, class_weight=None,
        sample_weight=None, initial_epoch=0, steps_per_epoch=None, validation_steps=None,
        validation_batch_size=None, validation_freq=1,
    ):
        self._assert_compile_called("fit")
        limit = config.max_epochs()
        if limit and limit < epochs:
            warnings.warn(f"KERAS_MAX_EPOCHS limits training to {limit} epochs", stacklevel=2)
            epochs = limit
        if validation_split and validation_data is None:
            (x, y, sample_weight), validation_data = array_slicing.train_validation_split(
                (x, y, sample_weight), validation_split=validation_split)
        batches = _Batches(
            x=x, y=y, sample_weight=sample_weight, batch_size=batch_size,
            steps_per_epoch=steps_per_epoch, shuffle=shuffle, class_weight=class_weight,
            steps_per_execution=self.steps_per_execution)
        self._symbolic_build(iterator=batches)
        batches.reset()
        self._eval_epoch_iterator = None
        callbacks = self._callback_list(callbacks, verbose, epochs, batches.num_batches,
                                        add_history=True)
        train = self.make_train_function()
        self.stop_training = False
        logs: dict[str, Any] = {}
        callbacks.on_train_begin()
        first = self._initial_epoch or initial_epoch
        for epoch in range(first, epochs):
            self.reset_metrics()
            callbacks.on_epoch_begin(epoch)
            with batches.catch_stop_iteration():
                for begin, end, data in batches:
                    callbacks.on_train_batch_begin(begin)
                    step_logs = train(data)
                    callbacks.on_train_batch_end(end, step_logs)
                    if self.stop_training:
                        break
            epoch_logs = dict(self._get_metrics_result_or_logs(step_logs))
            if validation_data is not None and self._should_eval(epoch, validation_freq):
                epoch_logs.update(self._validate(validation_data, validation_batch_size
                                                 or batch_size, validation_steps, callbacks))
            callbacks.on_epoch_end(epoch, epoch_logs)
            logs = epoch_logs
            if self.stop_training:
                break
        if isinstance(self.optimizer, backend_optimizer()) and epochs > 0:
            self.optimizer.finalize_variable_values(self.trainable_weights)
        self._eval_epoch_iterator = None
        callbacks.on_train_end(logs=logs)
        return self.history

    def _validate(self, data, batch_size, steps, callbacks) -> dict[str, Any]:
        x, y, sample_weight = data_adapter_utils.unpack_x_y_sample_weight(data)
        if self._eval_epoch_iterator is None:
            self._eval_epoch_iterator = _Batches(
                x=x, y=y, sample_weight=sample_weight, batch_size=batch_size,
                steps_per_execution=self.steps_per_execution, steps_per_epoch=steps, shuffle=False)
        result = self.evaluate(
            x=x, y=y, sample_weight=sample_weight, batch_size=batch_size, steps=steps,
            callbacks=callbacks, return_dict=True, _use_cached_eval_dataset=True)
        return {f"val_{name}": value for name, value in result.items()}

    def _callback_list(self, callbacks, verbose, epochs, steps, add_history=False):
        if isinstance(callbacks, callbacks_module.CallbackList):
            return callbacks
        verbose = verbose if world.rank() == 0 else 0
        extra = {"add_history": True} if add_history else {}
        return callbacks_module.CallbackList(
            callbacks, add_progbar=verbose != 0, verbose=verbose, epochs=epochs, steps=steps,
            model=self, **extra)

    @traceback_utils.filter_traceback
    def evaluate(
        self, x=None, y=None, batch_size=None, verbose="auto", sample_weight=None, steps=None,
        callbacks=None, return_dict=False, **kwargs,
    ):
        self._assert_compile_called("evaluate")
        cached = kwargs.pop("_use_cached_eval_dataset", False)
        if kwargs:
            raise ValueError(f"evaluate does not take the arguments {sorted(kwargs)}")
        if cached:
            batches: Any = self._eval_epoch_iterator
        else:
            batches = _Batches(
                x=x, y=y, sample_weight=sample_weight, batch_size=batch_size,
                steps_per_epoch=steps, shuffle=False,
                steps_per_execution=self.steps_per_execution)
        self._symbolic_build(iterator=batches)
        batches.reset()
        callbacks = self._callback_list(callbacks, verbose, 1, batches.num_batches)
        test = self.make_test_function()
        self.stop_evaluating = False
        callbacks.on_test_begin()
        self.reset_metrics()
        logs: Any = {}
        with batches.catch_stop_iteration():
            for begin, end, data in batches:
                callbacks.on_test_batch_begin(begin)
                logs = test(data)
                callbacks.on_test_batch_end(end, logs)
                if self.stop_evaluating:
                    break
        logs = pythonify_logs(self._get_metrics_result_or_logs(logs))
        callbacks.on_test_end(logs)
        return logs if return_dict else self._flatten_metrics_in_order(logs)

    @traceback_utils.filter_traceback
    def predict(self, x, batch_size=None, verbose="auto", steps=None, callbacks=None):
        batches = _Batches(x=x, batch_size=batch_size, steps_per_epoch=steps, shuffle=False,
                           steps_per_execution=1)
        if not all(layer.built for layer in self._flatten_layers()):
            for _, _, data in batches:
                with backend.StatelessScope():
                    self(data_adapter_utils.unpack_x_y_sample_weight(_arrays(data[0]))[0])
                break
            batches.reset()
        callbacks = self._callback_list(callbacks, verbose, 1, batches.num_batches)
        run = self.make_predict_function()
        self.stop_predicting = False
        callbacks.on_predict_begin()
        pieces: list[Any] = []
        with batches.catch_stop_iteration():
            for begin, end, data in batches:
                callbacks.on_predict_batch_begin(begin)
                outputs = tree.map_structure(np.asarray, run(data[0]))
                pieces.append(outputs)
                callbacks.on_predict_batch_end(end, {"outputs": outputs})
                if self.stop_predicting:
                    break
        callbacks.on_predict_end()
        return tree.map_structure(lambda *parts: np.concatenate(parts), *pieces)

    # -- single batches -----------------------------------------------------------------------------

    def train_on_batch(self, x, y=None, sample_weight=None, class_weight=None, return_dict=False):
        self._assert_compile_called("train_on_batch")
        if class_weight is not None:
            if sample_weight is not None:
                raise ValueError("train_on_batch takes class_weight or sample_weight, not both")
            sample_weight = data_adapter_utils.class_weight_to_sample_weights(y, class_weight)
        data = _arrays((x, y, sample_weight))
        self._symbolic_build(data_batch=data)
        return self._on_batch(self.make_train_function(), data, return_dict)

    def test_on_batch(self, x, y=None, sample_weight=None, return_dict=False):
        self._assert_compile_called("test_on_batch")
        data = _arrays((x, y, sample_weight))
        self._symbolic_build(data_batch=data)
        return self._on_batch(self.make_test_function(), data, return_dict)

    def _on_batch(self, function, data, return_dict):
        self.reset_metrics()
        logs = pythonify_logs(function([data]))
        return logs if return_dict else self._flatten_metrics_in_order(logs)

    def predict_on_batch(self, x):
        data = _arrays((x,))
        if not all(layer.built for layer in self._flatten_layers()):
            with backend.StatelessScope():
                self(data[0])
        return tree.map_structure(np.asarray, self.make_predict_function()(data))


def backend_optimizer():
    """The base class of Keras's optimizers (imported late: it imports the backend)."""
    from keras.src.optimizers.optimizer import Optimizer

    return Optimizer


# References to the array of a variable nobody else holds: the variable's, `value`, and the argument.
_UNSHARED = 3


def _to_lend(variable: Any) -> Any:
    """The array of `variable` for a step that donates it. Where someone else holds the array (another
    variable it was assigned to, a callback) it is a view, which donation copies."""
    value = variable.value
    if isinstance(value, Array) and sys.getrefcount(value) > _UNSHARED:
        return Array(value.numpy())
    return value


def _arrays(data: Any) -> Any:
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
