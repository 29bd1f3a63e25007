import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdet.parallel import device_memory


def test_free_memory_of_a_cpu_is_the_hosts_shared_by_its_devices():
    one, four = (device_memory.free_memory(jax.devices()[:n]) for n in (1, 4))
    if one is None:
        pytest.skip("no /proc/meminfo")
    assert 2**20 < one < device_memory.host_memory()
    assert four == pytest.approx(one / 4, rel=0.2)
    assert device_memory.free_memory([]) is None


def test_a_program_needs_its_inputs_and_results_beside_what_is_there():
    held = {"w": np.zeros((256, 256), np.float32)}
    x = jax.ShapeDtypeStruct((64, 256), jnp.float32)
    program = jax.jit(lambda held, x: jnp.sin(x @ held["w"])).lower(held, x).compile()
    needed = device_memory.needed_memory(program, held)
    assert 2 * 64 * 256 * 4 <= needed < 256 * 256 * 4 + 2 * 64 * 256 * 4
    everything = device_memory.needed_memory(program, None)
    assert everything == needed + 256 * 256 * 4
