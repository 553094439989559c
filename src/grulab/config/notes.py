"""Notes on a configuration: options without effect, and devices with known errors."""

from grulab.config.parameter_budget import parameter_count
from grulab.config.schema import Config, is_higher_better
from grulab.system.cores import available_cores
from grulab.tasks.registry import build_task

_FEW_STEPS = 100


def notes_on_data(config: Config) -> list[str]:
    """Return a line for each thing that is odd in a person's own sequences, or in how a run uses them."""
    task = build_task(config.data)
    lines = list(task.notes)
    steps = -(-task.size("train") // config.data.batch_size) * config.trainer.max_epochs
    if task.has_ids and steps < _FEW_STEPS:
        lines.append(
            f"the run has {steps} steps of the optimizer, which is hardly enough to learn anything: lower "
            "data.batch_size, or raise trainer.max_epochs"
        )
    return lines


def notes(config: Config) -> list[str]:
    """Return a line for every option that has no effect in this run or needs the user's attention."""
    lines = notes_on_data(config)
    if config.model.parameter_budget is not None:
        lines.append(
            f"model.parameter_budget={config.model.parameter_budget} makes model.hidden_size="
            f"{config.model.hidden_size}: {parameter_count(config):,} parameters"
        )
    return lines + notes_on_options(config)


def notes_on_options(config: Config) -> list[str]:
    """Return a line for every option that has no effect in this run, or another one than it seems to have."""
    task = build_task(config.data)
    lines = []
    if config.model.dropout > 0 and config.model.num_layers == 1:
        lines.append(
            f"model.dropout={config.model.dropout} has no effect with model.num_layers=1: dropout acts between layers"
        )
    if config.model.chrono_length is not None and config.model.update_bias == "default":
        lines.append(f"model.chrono_length={config.model.chrono_length} has no effect with model.update_bias=default")
    if config.model.update_bias == "chrono" and (config.model.chrono_length or task.length_range[1]) <= 2:
        lines.append("model.update_bias=chrono sets all biases to 0, for there are at most 2 steps to remember")
    if config.model.class_weights == "balanced" and task.class_counts("train") is None:
        lines.append(
            f"model.class_weights=balanced has no effect with data={config.data.task}, whose classes are not counted"
        )
    if config.checkpoint.every_n_epochs > config.trainer.max_epochs:
        lines.append(
            f"checkpoint.every_n_epochs={config.checkpoint.every_n_epochs} has no effect with "
            f"trainer.max_epochs={config.trainer.max_epochs}: only the final epoch is kept"
        )
    threshold, monitor = config.trainer.early_stopping_threshold, config.checkpoint.monitor
    if threshold is not None and threshold > 1 and is_higher_better(monitor):
        lines.append(f"trainer.early_stopping_threshold={threshold} has no effect: {monitor} is at most 1")
    if config.optimizer.horizon is not None and config.optimizer.schedule == "constant":
        lines.append(f"optimizer.horizon={config.optimizer.horizon} has no effect with optimizer.schedule=constant")
    elif config.optimizer.horizon is not None and config.optimizer.horizon < config.trainer.max_epochs:
        lines.append(
            f"optimizer.horizon={config.optimizer.horizon}: the learning rate is 0 in the epochs after it, of "
            f"trainer.max_epochs={config.trainer.max_epochs}"
        )
    if config.optimizer.schedule != "constant" and config.trainer.max_epochs == 1:
        lines.append(
            f"optimizer.schedule={config.optimizer.schedule} has no effect with trainer.max_epochs=1: the rate "
            "changes between epochs"
        )
    if config.trainer.threads > (cores := available_cores()):
        lines.append(
            f"trainer.threads={config.trainer.threads} is more than the {cores} cores that this process may use: "
            "the threads wait for each other"
        )
    if config.data.num_workers > cores:
        lines.append(
            f"data.num_workers={config.data.num_workers} is more than the {cores} cores that this process may use: "
            "the workers wait for each other"
        )
    return lines
