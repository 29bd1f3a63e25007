"""Early stop: a run ends once its main metric has not improved for some evaluations.

The rule is that of ``jdet.train.saturation`` without reductions of the learning rate, which follows its
schedule to the end. The best checkpoint is kept, as always (``train.best_metric``, ``train.best_mode``).
"""

from __future__ import annotations

from collections.abc import Sequence

from ml_collections import ConfigDict

from jdet.train import saturation
from jdet.train.policy import Decision, Evaluation, Policy
from jdet.types import ConfigError


def from_config(config: ConfigDict) -> Policy | None:
    """The policy of ``train.early_stop``; None where it is off (``patience`` 0).

    Raises:
        ConfigError: a setting is for a run that stops early, or the run has no evaluations to decide from.
    """
    settings = config.train.early_stop
    if not saturation.is_on(config, "early_stop"):
        return None

    def policy(evaluations: Sequence[Evaluation]) -> Decision:
        return saturation.decide(
            saturation.main_values(evaluations, config),
            patience=settings.patience,
            minimum=settings.minimum,
            delta=settings.min_delta,
            reductions=0,
            factor=1.0,
            lowest=config.train.best_mode == "min",
        )

    return policy


CONTROLLERS = {"saturation": saturation.from_config, "early_stop": from_config}
"""What decides about learning rate and end of a run, by the group of ``train`` that sets it."""


def policy_of(config: ConfigDict) -> Policy | None:
    """The policy that a config asks for; None where it asks for none.

    Raises:
        ConfigError: it asks for two, or for one that is invalid.
    """
    found = {name: policy for name, make in CONTROLLERS.items() if (policy := make(config))}
    if len(found) > 1:
        keys = " and ".join(
            f"train.{name}.patience={config.train[name].patience}" for name in found
        )
        raise ConfigError(
            f"{keys}: one of them decides when a run ends; set the other to 0. Saturation with "
            "train.saturation.reductions=0 ends a run without reducing the rate"
        )
    return next(iter(found.values()), None)
