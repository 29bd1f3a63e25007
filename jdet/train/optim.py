"""SGD as Caffe does it, with learning-rate and decay factors chosen by parameter path.

A parameter's path is its names joined by slashes, such as ``backbone/root/conv0/kernel``. Ordered
rules (regular expression of the whole path, learning-rate factor, decay factor) say how each is
treated: the first match counts, and a parameter without one is an error.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax
from ml_collections import ConfigDict

from jdet.types import ConfigError


class Rule(NamedTuple):
    """How the parameters whose path matches are treated.

    Attributes:
        pattern: regular expression, matched against the whole path.
        lr: factor of the learning rate; 0 freezes.
        decay: factor of the weight decay.
    """

    pattern: str
    lr: float
    decay: float


class RuleUse(NamedTuple):
    """A rule with what it applies to: ``tensors`` arrays of ``parameters`` numbers in all."""

    pattern: str
    lr: float
    decay: float
    tensors: int
    parameters: int


_NORM = ".*[nN]orm[^/]*/(scale|bias)"  # also of Flax's own layers, such as GroupNorm_0
_KERNEL = ".*kernel"
_BIAS = ".*bias"


def preset_rules(name: str, bias_lr: float) -> tuple[Rule, ...]:
    """The rules of ``optimizer.decay_mask``; convolution biases learn ``bias_lr`` times as fast.

    Args:
        name: "caffe", the multipliers of the SSD, ScratchDet and DSOD scripts: no decay on
            convolution biases and on norms of the head, decay on everything else (norms of the
            backbone and the scale of L2Norm included); "kernels" decays kernels only; "all" decays
            everything.
        bias_lr: Caffe scripts say 2.

    Raises:
        ConfigError: there is no such preset.
    """
    presets = {
        "caffe": (
            Rule(".*l2norm[^/]*/scale", 1.0, 1.0),
            Rule("head/" + _NORM, 1.0, 0.0),
            Rule(_NORM, 1.0, 1.0),
            Rule(_KERNEL, 1.0, 1.0),
            Rule(_BIAS, bias_lr, 0.0),
        ),
        "kernels": (
            Rule(_KERNEL, 1.0, 1.0),
            Rule(_NORM, 1.0, 0.0),
            Rule(_BIAS, bias_lr, 0.0),
            Rule(".*", 1.0, 0.0),
        ),
        "all": (
            Rule(_NORM, 1.0, 1.0),
            Rule(_BIAS, bias_lr, 1.0),
            Rule(".*", 1.0, 1.0),
        ),
    }
    if name not in presets:
        raise ConfigError(
            f"optimizer.decay_mask={name!r} does not exist; known are {', '.join(presets)}"
        )
    return presets[name]


def make_optimizer(
    optimizer: ConfigDict, schedule: Callable[[Any], Any], params: Any
) -> optax.GradientTransformation:
    """Stochastic gradient descent with momentum, in the order of Caffe's ``SGDSolver``.

    Clip the global norm of the gradient g, add the decay, multiply by the learning rate, then
    accumulate: ``v ← momentum · v + lr · (g + decay · w)``, ``w ← w − v``. Since the rate sits
    inside the momentum buffer, a drop of it takes effect over several steps.

    Args:
        optimizer: the group ``optimizer`` of a config.
        schedule: step to learning rate.
        params: parameters, of which only paths and shapes are used.

    Raises:
        ConfigError: no rule covers a parameter, or a rule of the config covers none.
    """
    factors, _ = _match(optimizer, params)
    lr = jax.tree.map(lambda rule: rule.lr, factors, is_leaf=_is_rule)
    decay = jax.tree.map(
        lambda rule: rule.decay * optimizer.weight_decay, factors, is_leaf=_is_rule
    )
    parts = [
        optax.stateless(lambda g, w: jax.tree.map(_add_decay, g, w, decay)),
        optax.scale_by_schedule(schedule),
        optax.stateless(lambda g, _: jax.tree.map(_scale, g, lr)),
        optax.trace(decay=optimizer.momentum, nesterov=optimizer.nesterov),
        optax.scale(-1.0),
    ]
    if optimizer.clip_norm:
        parts.insert(0, optax.clip_by_global_norm(optimizer.clip_norm))
    return optax.chain(*parts)


def parameter_rules(optimizer: ConfigDict, params: Any) -> list[RuleUse]:
    """The rules in force, in order, each with how much it applies to.

    Args:
        optimizer: the group ``optimizer`` of a config.
        params: parameters, arrays or shapes.

    Raises:
        ConfigError: as ``make_optimizer``.
    """
    return _match(optimizer, params)[1]


def describe_rules(uses: list[RuleUse]) -> str:
    """The table of rules as text, with the share of parameters that train at all."""
    total = sum(use.parameters for use in uses)
    frozen = sum(use.parameters for use in uses if use.lr == 0)
    width = max(len(use.pattern) for use in uses)
    lines = [f"{'parameters':{width}}  {'lr':>5}  {'decay':>5}  {'tensors':>7}  {'numbers':>11}"]
    for use in uses:
        lines.append(
            f"{use.pattern:{width}}  {use.lr:5g}  {use.decay:5g}  {use.tensors:7}  "
            f"{use.parameters:11,}"
        )
    share = "nothing is frozen" if not frozen else f"{frozen:,} of them FROZEN (lr 0)"
    lines.append(f"{total:,} parameters, {share}")
    return "\n".join(lines)


def _add_decay(gradient: jax.Array, weight: jax.Array, decay: float) -> jax.Array:
    return gradient + decay * weight if decay else gradient


def _scale(gradient: jax.Array, factor: float) -> jax.Array:
    return gradient if factor == 1.0 else factor * gradient


def _is_rule(x: Any) -> bool:
    return isinstance(x, Rule)


def _match(optimizer: ConfigDict, params: Any) -> tuple[Any, list[RuleUse]]:
    """A tree of rules like ``params``, and the rules with their use."""
    own = []
    for entry in optimizer.rules:
        try:
            pattern, lr, decay = entry
            re.compile(pattern)
            own.append(Rule(pattern, float(lr), float(decay)))
        except (TypeError, ValueError, re.error) as error:
            raise ConfigError(
                f"optimizer.rules holds {entry!r} ({error}); an entry is "
                "(regular expression of the parameter path, learning-rate factor, decay factor)"
            ) from error
    rules = (*own, *preset_rules(optimizer.decay_mask, optimizer.bias_lr))
    uses = [RuleUse(*rule, 0, 0) for rule in rules]

    def find(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        for i, rule in enumerate(rules):
            if re.fullmatch(rule.pattern, name):
                use = uses[i]
                uses[i] = use._replace(
                    tensors=use.tensors + 1, parameters=use.parameters + math.prod(leaf.shape)
                )
                return rule
        raise ConfigError(
            f"no rule says how to train the parameter {name!r}; "
            f"add one to optimizer.rules, such as ({name!r}, 1.0, 1.0)"
        )

    tree = jax.tree_util.tree_map_with_path(find, params)
    for use in uses[: len(own)]:
        if not use.tensors:
            paths = [
                jax.tree_util.keystr(path, simple=True, separator="/")
                for path, _ in jax.tree_util.tree_leaves_with_path(params)
            ]
            raise ConfigError(
                f"optimizer.rules: {use.pattern!r} decides for no parameter; the whole path must "
                f"match, as in {paths[0]!r}, and an earlier rule must not"
            )
    return tree, [use for use in uses if use.tensors]
