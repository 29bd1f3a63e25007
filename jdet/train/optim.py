"""SGD as Caffe does it and AdamW, with learning-rate and decay factors chosen by parameter path.

A parameter's path is its names joined by slashes, such as ``backbone/root/conv0/kernel``. Ordered
rules (regular expression of the whole path, learning-rate factor, decay factor) say how each is
treated: the first match counts, and a parameter without one is an error. Parameters whose learning-rate
factor is 0 are frozen: they have no gradient and no optimiser state.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from jdet.train import moments
from jdet.train.checkpoints.manifest import path_text
from jdet.train.partition import merge, split
from jdet.types import ConfigError

OPTIMIZERS = ("sgd", "adamw")


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
_POSITION = ".*position[^/]*"


def preset_rules(name: str, bias_lr: float) -> tuple[Rule, ...]:
    """The rules of ``optimizer.decay_mask``; convolution biases learn ``bias_lr`` times as fast.

    Args:
        name: "caffe", the multipliers of the SSD, ScratchDet and DSOD scripts: no decay on
            convolution biases and on norms of the head, decay on everything else (norms of the
            backbone and the scale of L2Norm included); "kernels" decays kernels only; "no_norm_decay"
            decays everything but norms, biases and tables of positions, as AdamW recipes of
            transformers do (Liu et al. 2021, Swin); "all" decays everything.
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
        "no_norm_decay": (
            Rule(_NORM, 1.0, 0.0),
            Rule(_POSITION, 1.0, 0.0),
            Rule(_BIAS, bias_lr, 0.0),
            Rule(".*", 1.0, 1.0),
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
    optimizer: ConfigDict, schedule: Callable[[Any], Any], params: Any, *, whole: bool = False
) -> optax.GradientTransformationExtraArgs:
    """The optimiser that ``optimizer.name`` says, without the parameters that are frozen.

    Both clip the global norm of the gradient g first where ``clip_norm`` is set, and multiply
    the learning rate lr and the decay by the factors of each parameter's rule.

    * "sgd", stochastic gradient descent with momentum in the order of Caffe's ``SGDSolver``: add the
      decay, multiply by the rate, then accumulate: ``v ← momentum · v + lr · (g + decay · w)``,
      ``w ← w − v``. Since the rate sits inside the momentum buffer, a drop of it takes effect over
      several steps.
    * "adamw" (Loshchilov & Hutter 2019): ``w ← w − lr · (m̂ / (√v̂ + epsilon) + decay · w)`` with the
      bias-corrected means m̂ of g (``beta1``) and v̂ of g² (``beta2``). The decay is not part of what is
      averaged, and is multiplied by the rate.

    Args:
        optimizer: the group ``optimizer`` of a config.
        schedule: step to learning rate.
        params: parameters, of which only paths and shapes are used.
        whole: keep a state of frozen parameters too, as earlier versions did, to restore their
            checkpoints (``drop_frozen``).

    Returns:
        An optax transformation. ``update`` also takes ``lr_scale``, a factor of the learning rate of this
        step, and ``finite``, a bool scalar: where it is False the state comes back as it was, and the
        updates mean nothing. It ignores gradients of frozen parameters, which may be None, and updates
        them by zeros.

    Raises:
        ConfigError: no rule covers a parameter, a rule of the config covers none, all parameters are
            frozen, or a setting is out of range.
    """
    _check(optimizer)
    factors, _ = _match(optimizer, params)
    chosen = jax.tree.map(lambda rule: whole or rule.lr != 0, factors, is_leaf=_is_rule)
    if not any(jax.tree.leaves(chosen)):
        raise ConfigError(
            "optimizer.rules freeze every parameter (learning-rate factor 0), so there is nothing to "
            "train; let some parameters have another factor"
        )
    rules, _ = split(factors, chosen)
    lr = jax.tree.map(lambda rule: rule.lr, rules, is_leaf=_is_rule)
    decay = jax.tree.map(lambda rule: rule.decay * optimizer.weight_decay, rules, is_leaf=_is_rule)
    add_decay = optax.stateless(lambda g, w: jax.tree.map(_add_decay, g, w, decay))
    take_rate = (
        moments.scale_by_rate(schedule),
        optax.stateless(lambda g, _: jax.tree.map(_scale, g, lr)),
    )
    if optimizer.name == "sgd":
        momentum = moments.trace(optimizer.momentum, optimizer.nesterov)
        parts = [add_decay, *take_rate, momentum, optax.scale(-1.0)]
    else:
        adam = moments.adam(optimizer.beta1, optimizer.beta2, optimizer.epsilon)
        parts = [adam, add_decay, *take_rate, optax.scale(-1.0)]
    if optimizer.clip_norm:
        parts.insert(0, optax.clip_by_global_norm(optimizer.clip_norm))
    return _of_chosen(optax.chain(*parts), chosen)


def trainable(optimizer: ConfigDict, params: Any) -> Any:
    """Which parameters train: a tree like ``params`` with False for those of learning-rate factor 0.

    Args:
        optimizer: the group ``optimizer`` of a config.
        params: parameters, arrays or shapes.

    Raises:
        ConfigError: no rule covers a parameter, or a rule of the config covers none.
    """
    factors, _ = _match(optimizer, params)
    return jax.tree.map(lambda rule: rule.lr != 0, factors, is_leaf=_is_rule)


def drop_frozen(opt_state: Any, like: Any) -> Any:
    """The state of an optimiser of all parameters as that of one without the frozen ones.

    Args:
        opt_state: of ``make_optimizer(…, whole=True)``.
        like: a state, arrays or shapes, of ``make_optimizer`` for the same config.
    """
    found = dict(jax.tree_util.tree_leaves_with_path(opt_state))
    return jax.tree_util.tree_map_with_path(lambda path, _: found[path], like)


def parameter_rules(optimizer: ConfigDict, params: Any) -> list[RuleUse]:
    """The rules in force, in order, each with how much it applies to.

    Args:
        optimizer: the group ``optimizer`` of a config.
        params: parameters, arrays or shapes.

    Raises:
        ConfigError: as in ``trainable``.
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


def _check(optimizer: ConfigDict) -> None:
    """Refuses settings of the optimiser in use that are out of range; those of others do not count."""
    if optimizer.name not in OPTIMIZERS:
        raise ConfigError(
            f"optimizer.name={optimizer.name!r} does not exist; there are {', '.join(OPTIMIZERS)}"
        )
    for key in ("momentum",) if optimizer.name == "sgd" else ("beta1", "beta2"):
        if not 0 <= optimizer[key] < 1:
            raise ConfigError(f"optimizer.{key}={optimizer[key]!r} must be in [0, 1)")
    if optimizer.name == "adamw" and not 0 < optimizer.epsilon < 1:
        raise ConfigError(
            f"optimizer.epsilon={optimizer.epsilon!r} must be above 0 and below 1, such as 1e-8"
        )


def _of_chosen(inner: Any, chosen: Any) -> optax.GradientTransformationExtraArgs:
    """An optimiser of the chosen parameters, for trees of all; the others are updated by zeros."""

    def init(params):
        return inner.init(split(params, chosen)[0])

    def update(updates, state, params=None, **more):
        own, others = split(params, chosen)
        updates, state = inner.update(split(updates, chosen)[0], state, own, **more)
        return merge(updates, jax.tree.map(jnp.zeros_like, others)), state

    return optax.GradientTransformationExtraArgs(init, update)


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
        name = path_text(path)
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
            paths = [path_text(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
            raise ConfigError(
                f"optimizer.rules: {use.pattern!r} decides for no parameter; the whole path must "
                f"match, as in {paths[0]!r}, and an earlier rule must not"
            )
    return tree, [use for use in uses if use.tensors]
