"""How many parameters a GRU classifier has, and the largest one within a budget. No torch."""

from bisect import bisect_right

MAX_HIDDEN_SIZE = 2**16


def count_parameters(
    num_features: int, hidden_size: int, num_layers: int, num_classes: int, bidirectional: bool
) -> int:
    """Return the number of weights and biases of a :class:`grulab.GRUClassifier`.

    Each layer and direction of ``nn.GRU`` has three gates, each with weights for its input and for its state, and two
    biases; the head reads the last layer's directions.
    """
    directions = 2 if bidirectional else 1
    inputs = num_features + (num_layers - 1) * directions * hidden_size
    recurrent = 3 * hidden_size * directions * (inputs + num_layers * (hidden_size + 2))
    return recurrent + (directions * hidden_size + 1) * num_classes


def largest_hidden_size(
    budget: int, num_features: int, num_layers: int, num_classes: int, bidirectional: bool
) -> int:
    """Return the largest hidden size with at most ``budget`` parameters; 0 if there is none."""
    return bisect_right(
        range(1, MAX_HIDDEN_SIZE + 1),
        budget,
        key=lambda size: count_parameters(num_features, size, num_layers, num_classes, bidirectional),
    )
