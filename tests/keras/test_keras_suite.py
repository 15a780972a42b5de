"""Keras's own tests on tfn: those that are quick and need nothing beside Keras. All of them are run by
`python -m tfn.tools.conformance keras`, which takes most of an hour and other packages."""

import pytest

from tfn.tools.conformance.keras import EXCLUDED, batches, keras_source, read_exclusions, run

SELECTED = {
    # Paths below keras/src that share a process, and how many of their tests pass at least.
    ("losses", "metrics", "activations", "initializers", "regularizers", "constraints", "optimizers",
     "dtype_policies", "random", "tree", "legacy/saving"): 1110,
    ("backend/common/dtypes_test.py", "backend/common/keras_tensor_test.py",
     "backend/common/name_scope_test.py", "backend/common/stateless_scope_test.py",
     "backend/common/symbolic_scope_test.py", "backend/common/masking_test.py",
     "ops/core_test.py", "ops/ops_test.py", "ops/math_test.py", "ops/linalg_test.py",
     "ops/operation_test.py", "ops/function_test.py"): 380,
    ("layers/core", "layers/normalization", "layers/activations", "layers/regularization",
     "layers/merging", "layers/reshaping", "layers/pooling", "layers/attention"): 900,
    ("trainers", "models", "callbacks/early_stopping_test.py", "callbacks/model_checkpoint_test.py",
     "callbacks/callback_test.py", "saving", "distillation", "layers/rnn/lstm_test.py",
     "layers/convolutional/conv_test.py", "quantizers/quantizers_test.py"): 350,
}


@pytest.mark.slow
@pytest.mark.parametrize("paths", SELECTED, ids=lambda paths: paths[0])
def test_keras_passes(paths):
    root, excluded = keras_source(), read_exclusions(EXCLUDED)
    # One process for all files: importing Keras takes as long as a file of tests.
    files = [file for group in batches(root, paths) for file in group]
    outcomes = [o for _, found in run(root, [files], "tfn", excluded) for o in found]
    failed = [f"{o.id}: {o.detail}" for o in outcomes if o.outcome == "failed"]
    assert not failed, "\n".join(failed)
    assert sum(o.outcome == "passed" for o in outcomes) >= SELECTED[paths]
