"""The number of parameters of a GRU classifier, and the largest hidden size within a budget, without torch."""

import dataclasses
from bisect import bisect_right

from grulab.config.schema import MAX_HIDDEN_SIZE, Config
from grulab.config.validation_messages import shown_value
from grulab.config_error import ConfigError
from grulab.tasks.registry import build_task


def parameter_count(config: Config) -> int:
    """Return the number of weights and biases of a run's model. This builds the task to get its sizes."""
    task, model = build_task(config.data), config.model
    return count_parameters(
        task.num_features, model.hidden_size, model.num_layers, task.num_classes, model.bidirectional
    )


def within_budget(config: Config) -> Config:
    """Return the configuration with the largest hidden size within its parameter budget, if it has a budget.

    Raises:
        ConfigError: if the budget is less than a single unit needs.
    """
    model = config.model
    if model.parameter_budget is None:
        return config
    task = build_task(config.data)
    size = largest_hidden_size(
        model.parameter_budget, task.num_features, model.num_layers, task.num_classes, model.bidirectional
    )
    if size == 0:
        least = count_parameters(task.num_features, 1, model.num_layers, task.num_classes, model.bidirectional)
        raise ConfigError(
            f"model.parameter_budget={model.parameter_budget}: with model.num_layers={model.num_layers} and "
            f"model.bidirectional={shown_value(model.bidirectional)} a single unit needs {least}; raise it"
        )
    return dataclasses.replace(config, model=dataclasses.replace(model, hidden_size=size))


def count_parameters(
    num_features: int, hidden_size: int, num_layers: int, num_classes: int, bidirectional: bool
) -> int:
    """Return the number of weights and biases of a :class:`grulab.GRUClassifier`.

    Each layer and direction of ``nn.GRU`` has three gates, each with weights for its input and for its state, and two
    biases; the input of the linear head is the state of each direction of the last layer.
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
