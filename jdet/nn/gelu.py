"""The exact GELU by plain operations, which run wherever a network does."""

import jax
import jax.numpy as jnp

_ABOVE = (
    1.128379143519084,
    0.18520832239976145,
    0.050955695062380861,
    0.0034082910107109506,
    0.00022905065861350646,
)
_BELOW = (
    1.0,
    0.49746925110067538,
    0.11098505178285362,
    0.014070470171167667,
    0.0010179625278914885,
    0.000023547966471313185,
    -1.1791602954361697e-7,
)
_END = 3.7439211627767994
"""Where the error function is 1 in float32."""


@jax.custom_jvp
def gelu(x: jax.Array) -> jax.Array:
    """``x · Φ(x)`` within 1e-6, Φ the normal distribution function (Hendrycks and Gimpel 2016).

    ``jax.nn.gelu(x, approximate=False)`` is that too, but the error function of jax 0.12 cannot be
    divided over the devices of a mesh by ``jax.shard_map``. Here it is a quotient of polynomials, which
    XLA and Eigen have used as well. Only x waits for the backward pass.

    Args:
        x: any shape, a floating type; computed in float32.

    Returns:
        The same shape and type.
    """
    wide = x.astype(jnp.float32)
    return (wide * _normal(wide)).astype(x.dtype)


@gelu.defjvp
def _derivative(primals, tangents):
    (x,), (tangent,) = primals, tangents
    wide = x.astype(jnp.float32)
    density = jnp.exp(-0.5 * wide * wide) * (2 * jnp.pi) ** -0.5
    slope = _normal(wide) + wide * density
    return gelu(x), (slope * tangent.astype(jnp.float32)).astype(x.dtype)


def _normal(x):
    """The normal distribution function of float32 values."""
    z = jnp.clip(x * 2**-0.5, -_END, _END)
    square = z * z
    inside = z * (_polynomial(square, _ABOVE) / _polynomial(square, _BELOW))
    return 0.5 + 0.5 * jnp.where(jnp.abs(z) < _END, inside, jnp.sign(z))


def _polynomial(x, coefficients):
    *lower, value = coefficients
    for coefficient in reversed(lower):
        value = value * x + coefficient
    return value
