"""XLA:CPU: the weight gradient of a 1×1 convolution is up to 20 times slower than the same product.

    python benchmarks/xla/weight_gradient_1x1.py

The gradient of ``y = conv(x, k)`` with respect to a kernel [1, 1, C, N] is ``xᵀ · dy`` over all pixels: one
product of matrices, [C, pixels] · [pixels, N]. XLA:CPU leaves it a convolution whose window is the whole
map. Needs jax alone. Prints operations per CPU-second, two for a multiply-accumulate; the fastest of three
calls.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np

# Images, side of the map, channels in, channels out: blocks of ResNet-50 at 320×320 pixels.
SHAPES = ((8, 80, 64, 256), (8, 80, 256, 64), (8, 40, 512, 128), (8, 20, 1024, 256))


def convolve(x, kernel):
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@jax.jit
def by_convolution(x, dy):
    kernel = jnp.zeros((1, 1, x.shape[-1], dy.shape[-1]), x.dtype)
    return jax.vjp(lambda kernel: convolve(x, kernel), kernel)[1](dy)[0][0, 0]


@jax.jit
def by_product(x, dy):
    return x.reshape(-1, x.shape[-1]).T @ dy.reshape(-1, dy.shape[-1])


def cpu_seconds(function, *arguments):
    jax.block_until_ready(function(*arguments))
    times = []
    for _ in range(3):
        start = time.process_time()
        jax.block_until_ready(function(*arguments))
        times.append(time.process_time() - start)
    return min(times)


print("jax", jax.__version__)
print("images × map × channels   convolution   product   GFLOP per CPU-second")
for images, side, inputs, outputs in SHAPES:
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(images, side, side, inputs)), jnp.float32)
    dy = jnp.asarray(rng.normal(size=(images, side, side, outputs)), jnp.float32)
    one, other = by_convolution(x, dy), by_product(x, dy)
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-2 * float(jnp.abs(other).max()))
    flops = 2e-9 * images * side * side * inputs * outputs
    rates = [flops / cpu_seconds(each, x, dy) for each in (by_convolution, by_product)]
    shape = f"{images} × {side}² × {inputs}→{outputs}"
    print(f"{shape:25s} {rates[0]:11.1f} {rates[1]:9.1f}")
