"""The trainer: `fit`, `evaluate`, `predict` and their relatives for single batches.

Each runs a step (`steps.py`) on batches from Keras's data adapters and tells the callbacks.
"""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import numpy as np
from keras.src import backend, tree
from keras.src import callbacks as callbacks_module
from keras.src.backend import config
from keras.src.distribution import distribution_lib
from keras.src.trainers.data_adapters import array_slicing, data_adapter_utils
from keras.src.trainers.epoch_iterator import EpochIterator
from keras.src.utils import traceback_utils
from keras.src.utils.python_utils import pythonify_logs

from ...distributed import world
from .prefetch import overlapped
from .steps import PREDICTED, TESTED, TRAINED, Prediction, Step, Steps, arrays


class _Batches(EpochIterator):
    """Epochs of NumPy batches."""

    steps_per_execution: int

    def __init__(self, *args, **kwargs):
        distribution = distribution_lib.distribution()
        if distribution is not None:
            # Every process reads whole batches; the compiled step takes its rows.
            distribution.auto_shard_dataset = False
        super().__init__(*args, **kwargs)

    def _get_iterator(self):
        return self.data_adapter.get_numpy_iterator()

    def build(self, model: Trainer) -> None:
        """Build `model` on the first batch, and begin anew. One batch is what a generator gets back."""
        several, self.steps_per_execution = self.steps_per_execution, 1
        model._symbolic_build(iterator=self)
        self.steps_per_execution = several
        self.reset()

    def reset(self):
        self.stop()
        super().reset()

    def stop(self) -> None:
        """End the workers of a `PyDataset` where an epoch was left early. They keep what they have made
        for the next run, which is to begin with the first batch, unless there is no end to them."""
        enqueuer = getattr(self.data_adapter, "enqueuer", None)
        if enqueuer is None:
            return
        enqueuer.stop()
        while self._num_batches is not None and not enqueuer.ready_queue.empty():
            enqueuer.ready_queue.get()

    def __next__(self):
        begin, end, batches = next(self._epoch_iterator)
        found = list(itertools.islice(batches, self.steps_per_execution))
        if not found or (len(found) < self.steps_per_execution and self._num_batches is None):
            with self.catch_stop_iteration():
                raise StopIteration
        if not found:
            raise StopIteration
        return begin, end, found


def _prepared(item: tuple[int, int, list]) -> tuple[int, int, list]:
    """Batches as arrays, of the dtypes a step takes."""
    begin, end, batches = item
    return begin, end, [arrays(data) for data in batches]


class _Callbacks(callbacks_module.CallbackList):
    """Callbacks are told at once: the results are there when a step returns, and handing them to a
    thread takes longer than most callbacks do."""

    def _configure_async_dispatch(self, callbacks):
        pass


class Trainer(Steps):
    """`compile`, `fit`, `evaluate`, `predict` and the `*_on_batch` methods of `keras.Model`."""

    def __init__(self):
        super().__init__()
        self.train_function: Step | None = None
        self.test_function: Step | None = None
        self.predict_function: Step | None = None

    def make_train_function(self, force=False) -> Step:
        if self.train_function is None or force:
            self.train_function = Step(self, self.program_of(self.train_step, TRAINED), TRAINED)
        return self.train_function

    def make_test_function(self, force=False) -> Step:
        if self.test_function is None or force:
            self.test_function = Step(self, self.program_of(self.test_step, TESTED), TESTED)
        return self.test_function

    def make_predict_function(self, force=False) -> Step:
        if self.predict_function is None or force:
            self.predict_function = Prediction(
                self, self.program_of(self.predict_step, PREDICTED), PREDICTED)
        return self.predict_function

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
        batches.build(self)
        self._eval_epoch_iterator = None
        callbacks = self._callback_list(callbacks, verbose, epochs, batches.num_batches,
                                        add_history=True)
        train = self.make_train_function()
        self.stop_training = False
        logs: dict[str, Any] = {}
        callbacks.on_train_begin()
        try:
            for epoch in range(self._initial_epoch or initial_epoch, epochs):
                self.reset_metrics()
                callbacks.on_epoch_begin(epoch)
                logs = self._train_epoch(train, batches, callbacks)
                if validation_data is not None and self._should_eval(epoch, validation_freq):
                    logs.update(self._validate(validation_data, validation_batch_size or batch_size,
                                               validation_steps, callbacks))
                callbacks.on_epoch_end(epoch, logs)
                if self.stop_training:
                    break
        finally:
            # Also after an interruption: the weights an optimizer averages are the model's then.
            if isinstance(self.optimizer, backend_optimizer()) and epochs > 0:
                self.optimizer.finalize_variable_values(self.trainable_weights)
            batches.stop()
            self._eval_epoch_iterator = None
        callbacks.on_train_end(logs=logs)
        return self.history

    def _train_epoch(self, train, batches, callbacks) -> dict[str, Any]:
        train.refresh()
        logs = None
        with (batches.catch_stop_iteration(), self.lending.interruptible(),
              overlapped(batches, _prepared) as items):
            for begin, end, data in items:
                callbacks.on_train_batch_begin(begin)
                logs = train(data)
                callbacks.on_train_batch_end(end, logs)
                if self.stop_training:
                    break
        return dict(self._get_metrics_result_or_logs(logs))

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
        return _Callbacks(
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
        batches.build(self)
        callbacks = self._callback_list(callbacks, verbose, 1, batches.num_batches)
        test = self.make_test_function()
        test.refresh()
        self.stop_evaluating = False
        callbacks.on_test_begin()
        self.reset_metrics()
        logs: Any = {}
        with (batches.catch_stop_iteration(), self.lending.interruptible(),
              overlapped(batches, _prepared) as items):
            for begin, end, data in items:
                callbacks.on_test_batch_begin(begin)
                logs = test(data)
                callbacks.on_test_batch_end(end, logs)
                if self.stop_evaluating:
                    break
        batches.stop()
        logs = pythonify_logs(self._get_metrics_result_or_logs(logs))
        callbacks.on_test_end(logs)
        return logs if return_dict else self._flatten_metrics_in_order(logs)

    @traceback_utils.filter_traceback
    def predict(self, x, batch_size=None, verbose="auto", steps=None, callbacks=None):
        batches = _Batches(x=x, batch_size=batch_size, steps_per_epoch=steps, shuffle=False,
                           steps_per_execution=self.steps_per_execution)
        if not all(layer.built for layer in self._flatten_layers()):
            for _, _, data in batches:
                with backend.StatelessScope():
                    self(data_adapter_utils.unpack_x_y_sample_weight(arrays(data[0]))[0])
                break
            batches.reset()
        callbacks = self._callback_list(callbacks, verbose, 1, batches.num_batches)
        run = self.make_predict_function()
        run.refresh()
        self.stop_predicting = False
        callbacks.on_predict_begin()
        pieces: list[Any] = []
        with batches.catch_stop_iteration(), overlapped(batches, _prepared) as items:
            for begin, end, data in items:
                callbacks.on_predict_batch_begin(begin)
                outputs = run(data)
                pieces.append(outputs)
                callbacks.on_predict_batch_end(end, {"outputs": outputs})
                if self.stop_predicting:
                    break
        batches.stop()
        callbacks.on_predict_end()
        return tree.map_structure(lambda *parts: np.concatenate(parts), *pieces)

    # -- single batches -----------------------------------------------------------------------------

    def train_on_batch(self, x, y=None, sample_weight=None, class_weight=None, return_dict=False):
        self._assert_compile_called("train_on_batch")
        if class_weight is not None:
            if sample_weight is not None:
                raise ValueError("train_on_batch takes class_weight or sample_weight, not both")
            sample_weight = data_adapter_utils.class_weight_to_sample_weights(y, class_weight)
        data = arrays((x, y, sample_weight))
        self._symbolic_build(data_batch=data)
        return self._on_batch(self.make_train_function(), data, return_dict)

    def test_on_batch(self, x, y=None, sample_weight=None, return_dict=False):
        self._assert_compile_called("test_on_batch")
        data = arrays((x, y, sample_weight))
        self._symbolic_build(data_batch=data)
        return self._on_batch(self.make_test_function(), data, return_dict)

    def _on_batch(self, function, data, return_dict):
        self.reset_metrics()
        function.refresh()
        with self.lending.interruptible():
            logs = pythonify_logs(function([data]))
        return logs if return_dict else self._flatten_metrics_in_order(logs)

    def predict_on_batch(self, x):
        data = arrays((x,))
        if not all(layer.built for layer in self._flatten_layers()):
            with backend.StatelessScope():
                self(data[0])
        predict = self.make_predict_function()
        predict.refresh()
        return predict([data])


def backend_optimizer():
    """The base class of Keras's optimizers (imported late: it imports the backend)."""
    from keras.src.optimizers.optimizer import Optimizer

    return Optimizer
