"""Balance a pole on a cart: reinforcement learning with policy gradients, and the physics in NumPy.

    KERAS_BACKEND=tfn python examples/cartpole.py

REINFORCE (Williams, 1992): play 32 games at once, then make what was done more likely where the
pole stayed up for longer than usual. A policy gradient is a cross-entropy of the actions weighted by
that advantage, so `train_on_batch` is the whole update. Pushes at random keep the pole up for about 22
steps; after 50 updates the mean game lasts at least 180.0 of 200 steps.
"""

import keras
import numpy as np
from keras import layers

LIMIT, GAMES = 200, 32


def push(state: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The state (n, 4) a fiftieth of a second later, and which poles fell.

    The equations are those of Barto, Sutton and Anderson, "Neuronlike adaptive elements" (1983), with a
    cart of 1 kg, a pole of 0.1 kg and 1 m, and a push of 10 N.
    """
    _, speed, angle, spin = state.T
    sin, cos = np.sin(angle), np.cos(angle)
    pull = (np.where(right, 10.0, -10.0) + 0.05 * spin ** 2 * sin) / 1.1
    turn = (9.8 * sin - cos * pull) / (0.5 * (4 / 3 - 0.1 * cos ** 2 / 1.1))
    rate = np.stack([speed, pull - 0.05 * turn * cos / 1.1, spin, turn], axis=1)
    state = state + 0.02 * rate
    return state, (abs(state[:, 0]) > 2.4) | (abs(state[:, 2]) > np.radians(12))


def play(policy: keras.Model, rng: np.random.Generator):
    """`GAMES` games: states (t, n, 4), actions (t, n), and whether each was still going on (t, n)."""
    state, alive = rng.uniform(-0.05, 0.05, (GAMES, 4)), np.ones(GAMES, bool)
    states: list[np.ndarray] = []
    actions: list[np.ndarray] = []
    going: list[np.ndarray] = []
    while alive.any() and len(states) < LIMIT:
        chance = policy.predict_on_batch(state.astype("float32"))[:, 1]
        right = rng.random(GAMES) < chance
        states.append(state)
        actions.append(right)
        going.append(alive)
        state, fell = push(state, right)
        alive = alive & ~fell
        state = np.where(alive[:, None], state, 0)
    return np.array(states, "float32"), np.array(actions, "int32"), np.array(going)


def build_model(width: int = 32) -> keras.Model:
    """The chances of pushing left and right in a state."""
    policy = keras.Sequential([
        keras.Input((4,), name="state"),
        layers.Dense(width, activation="tanh"),
        layers.Dense(2, activation="softmax", name="push"),
    ])
    policy.compile(optimizer=keras.optimizers.Adam(1e-2), loss="sparse_categorical_crossentropy")
    return policy


def main(*, updates: int = 50) -> float:
    """Train; returns how many steps the games of the last five updates lasted on average."""
    keras.utils.set_random_seed(0)
    rng, policy, lengths = np.random.default_rng(0), build_model(), []
    for update in range(updates):
        states, actions, going = play(policy, rng)
        # The return from a step on: steps still to come, later ones counting less.
        coming = np.zeros(going.shape)
        for t in reversed(range(len(going))):
            coming[t] = going[t] + (0.99 * coming[t + 1] if t + 1 < len(going) else 0)
        usual = coming.mean(1, where=going, keepdims=True)
        advantage = np.where(going, coming - usual, 0) / ((coming - usual)[going].std() + 1e-6)
        # Games end at any time, but a batch of one shape is compiled once.
        still = [(0, LIMIT - len(going)), (0, 0)]
        policy.train_on_batch(np.pad(states, [*still, (0, 0)]).reshape(-1, 4),
                              np.pad(actions, still).ravel(),
                              sample_weight=np.pad(advantage, still).ravel().astype("float32"))
        lengths.append(going.sum() / GAMES)
        if update % 5 == 4:
            print(f"update {update + 1}: {np.mean(lengths[-5:]):.0f} steps")
    return float(np.mean(lengths[-5:]))


if __name__ == "__main__":
    main()
