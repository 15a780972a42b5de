"""Train the digits model on several processes, each on its share of every batch.

    tfn launch -n 2 examples/digits_parallel.py -- --epochs 2 --out weights.npz

The result does not depend on the number of processes: sums over the batch are made of the same parts
in the same order on one rank and on two.
"""

import argparse
import sys
from pathlib import Path

import keras
import numpy as np

from tfn import distributed

sys.path.insert(0, str(Path(__file__).parent))
import digits


def main() -> None:
    """Train, and let the first process write weights and losses."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=32, help="of all processes together")
    parser.add_argument("--out", type=Path, required=True, help="a .npz file")
    options = parser.parse_args()

    keras.distribution.set_distribution(keras.distribution.DataParallel())
    keras.utils.set_random_seed(1)
    model = digits.build_model()
    (images, labels), _ = digits.load_data()
    whole = len(images) // options.batch_size * options.batch_size
    history = model.fit(images[:whole], labels[:whole], batch_size=options.batch_size,
                        epochs=options.epochs, verbose=0)
    if distributed.rank() == 0:
        weights = {f"w{i}": w for i, w in enumerate(model.get_weights())}
        np.savez(options.out, loss=np.array(history.history["loss"]), **weights)


if __name__ == "__main__":
    main()
