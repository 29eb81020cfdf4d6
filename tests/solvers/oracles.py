"""The method in float64 NumPy, one class at a time, as the paper reads."""

import numpy as np


def scene(patches, classes, seed=0, sharpness=2.0):
    """A random affinity with regions, rows summing to 1, and sparse sources."""
    rng = np.random.default_rng(seed)
    region = rng.integers(0, 4, patches)
    place = np.arange(patches)
    logits = sharpness * (region[:, None] == region[None])
    logits = logits - np.abs(place[:, None] - place[None]) / patches
    logits = logits + rng.normal(size=(patches, patches))
    affinity = np.exp(logits)
    affinity /= affinity.sum(axis=1, keepdims=True)
    owner = rng.permutation(np.arange(patches) % (3 * classes))
    source = rng.uniform(0.5, 1.5, (classes, patches))
    source *= owner[None] == np.arange(classes)[:, None]
    return source / source.sum(axis=1, keepdims=True), affinity


def sinkhorn(source, cost, *, target=None, epsilon=0.1, steps=50):
    """Eq. 8 from nu = 1; the plan of every class."""
    columns = cost.shape[1]
    target = np.full(columns, 1 / columns) if target is None else target
    kernel = np.exp(-cost / epsilon)
    plans = []
    for mass in source:
        nu = np.ones(columns)
        for _ in range(steps):
            mu = mass / (kernel @ nu)
            nu = target / (kernel.T @ mu)
        plans.append(mu[:, None] * kernel * nu[None])
    return np.array(plans)


def optimal_path(source, affinity, *, epsilon=0.1, steps=50):
    """Eq. 3 without Norm."""
    plans = sinkhorn(source, affinity, epsilon=epsilon, steps=steps)
    return np.array([(plan * affinity).sum(axis=0) for plan in plans])


def transition(affinity, rounds=15):
    """Eq. 11 on the matrix: columns, then rows."""
    matrix = affinity.copy()
    for _ in range(rounds):
        matrix = matrix / matrix.sum(axis=0, keepdims=True)
        matrix = matrix / matrix.sum(axis=1, keepdims=True)
    return matrix


def saturation(source, matrix, *, threshold=0.3, max_steps=1000, interpolate=True):
    """First passage of the chain whose state is scaled to maximum 1, as in M2N2."""
    arrivals, steps = [], []
    for mass in source:
        state = mass / mass.max()
        arrival = np.where(state > threshold, 0.0, np.inf)
        step = 0
        while np.isinf(arrival).any() and step < max_steps:
            new = state @ matrix
            new /= new.max()
            step += 1
            for patch in np.flatnonzero(np.isinf(arrival) & (new > threshold)):
                gain = 1 - threshold if step == 1 else new[patch] - state[patch]
                part = (new[patch] - threshold) / gain if interpolate else 0.0
                arrival[patch] = step - part
            state = new
        arrivals.append(np.where(np.isinf(arrival), max_steps, arrival))
        steps.append(step)
    return np.array(arrivals), np.array(steps)


def increment(source, matrix, *, threshold=0.3, max_steps=1000):
    """Eq. 12 to the letter."""
    arrivals = []
    for mass in source:
        state, arrival = mass, np.full(mass.size, np.inf)
        for step in range(1, max_steps + 1):
            new = state @ matrix
            arrival[np.isinf(arrival) & (np.abs(new - state) <= threshold)] = step
            state = new
            if np.isfinite(arrival).all():
                break
        arrivals.append(np.where(np.isinf(arrival), max_steps, arrival))
    return np.array(arrivals)


def replace(array, *edits):
    """A copy with ``array[index] = value`` for each (index, value)."""
    array = np.array(array)
    for index, value in edits:
        array[index] = value
    return array
