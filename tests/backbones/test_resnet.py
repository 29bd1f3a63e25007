import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdet.backbones.resnet import ResNet
from jdet.nn.conv import Conv
from jdet.nn.conv_norm import ConvNorm
from jdet.nn.norm import Norm
from jdet.nn.residual import BasicBlock, Bottleneck, PreactBlock
from tests.golden import load

TORCH_NAMES = {
    "conv1/conv/kernel": "conv1.weight",
    "conv1/norm/scale": "bn1.weight",
    "conv1/norm/bias": "bn1.bias",
    "conv2/conv/kernel": "conv2.weight",
    "conv2/norm/scale": "bn2.weight",
    "conv2/norm/bias": "bn2.bias",
    "conv3/conv/kernel": "conv3.weight",
    "conv3/norm/scale": "bn3.weight",
    "conv3/norm/bias": "bn3.bias",
    "conv3/norm/mean": "bn3.running_mean",
    "conv3/norm/var": "bn3.running_var",
    "projection/conv/kernel": "downsample.0.weight",
    "projection/norm/scale": "downsample.1.weight",
    "projection/norm/bias": "downsample.1.bias",
    "conv1/norm/mean": "bn1.running_mean",
    "conv1/norm/var": "bn1.running_var",
    "conv2/norm/mean": "bn2.running_mean",
    "conv2/norm/var": "bn2.running_var",
    "projection/norm/mean": "downsample.1.running_mean",
    "projection/norm/var": "downsample.1.running_var",
}


def nhwc(x):
    return np.moveaxis(x, 1, -1)


def from_torch(tree, golden, prefix):
    """Fills a variable tree with torch's values; kernels go from OIHW to HWIO."""

    def fill(path, leaf):
        value = golden[prefix + TORCH_NAMES["/".join(key.key for key in path[1:])]]
        value = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value
        assert value.shape == leaf.shape
        return value

    return jax.tree_util.tree_map_with_path(fill, tree)


@pytest.mark.parametrize(
    "case, kind, strides, features",
    [
        ("basic_s1", BasicBlock, 1, 16),
        ("basic_s2", BasicBlock, 2, 24),
        ("bottle_s1", Bottleneck, 1, 32),
        ("bottle_s2", Bottleneck, 2, 48),
    ],
)
def test_block_equals_torchvision(case, kind, strides, features):
    golden = {k[len(case) + 1 :]: v for k, v in load("resnet_blocks").items() if k.startswith(case)}
    x = nhwc(golden["x"])

    def block(train):
        def layer(*args, **kwargs):
            return ConvNorm(*args, norm=Norm("batch"), train=train, **kwargs)

        return kind(layer, features, strides)

    shapes = jax.eval_shape(block(False).init, jax.random.key(0), x)
    variables = from_torch(shapes, golden, "w.")

    def loss(params, x):
        (y, _), updates = block(True).apply(
            {**variables, "params": params}, x, mutable=["batch_stats"]
        )
        return jnp.mean(y**2), (y, updates)

    @jax.jit
    def run(variables, x):
        gradient = jax.grad(loss, argnums=(0, 1), has_aux=True)
        return block(False).apply(variables, x)[0], gradient(variables["params"], x)

    fixed, ((params_grad, x_grad), (y, updates)) = run(variables, x)
    np.testing.assert_allclose(fixed, nhwc(golden["y_eval"]), rtol=1e-5, atol=2e-5)
    np.testing.assert_allclose(y, nhwc(golden["y_train"]), rtol=1e-5, atol=2e-5)
    np.testing.assert_allclose(x_grad, nhwc(golden["grad_x"]), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        params_grad["conv1"]["conv"]["kernel"],
        golden["grad_conv1"].transpose(2, 3, 1, 0),
        rtol=1e-4,
        atol=1e-6,
    )
    after = from_torch(updates, golden, "after.")
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), updates, after
    )


def test_preact_block_is_its_formula():
    """Norm, ReLU and convolution twice; the projection takes what the first convolution takes."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 6, 3)), jnp.float32)
    norm = functools.partial(Norm("batch"), train=False)
    block = PreactBlock(Conv, norm, features=4, strides=2)
    variables = jax.jit(block.init)(jax.random.key(0), x)
    params = variables["params"]
    assert set(params) == {"norm1", "norm2", "conv1", "conv2", "projection"}

    def conv(name, x, **fields):
        return Conv(4, **fields).apply({"params": params[name]}, x)

    def relu_norm(x):  # running statistics of a new block: mean 0, variance 1
        return jax.nn.relu(x / np.sqrt(1 + 1e-5))

    @jax.jit
    def formula(x):
        y = relu_norm(x)
        branch = conv("conv2", relu_norm(conv("conv1", y, strides=2)))
        return branch, branch + conv("projection", y, kernel_size=1, strides=2)

    branch, expected = formula(x)
    output, tapped = jax.jit(block.apply)(variables, x)
    np.testing.assert_allclose(tapped, branch, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-6)
    # Shapes agree: the shortcut is the input itself, not its normed self.
    block = PreactBlock(Conv, norm, features=3)
    output, tapped = jax.jit(lambda key: block.init_with_output(key, x)[0])(jax.random.key(0))
    np.testing.assert_allclose(output - tapped, x, rtol=1e-5, atol=1e-6)


def test_tapped_branch_and_output_differ_by_the_shortcut():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 32, 32, 3)), jnp.float32)
    fields = dict(depth=18, width=0.125, block="preact")
    outputs, branches = ResNet(**fields), ResNet(**fields, tap="branch")

    @jax.jit
    def run(key):
        variables = outputs.init(key, x, train=False)
        return [model.apply(variables, x, train=False) for model in (outputs, branches)]

    sums, parts = jax.device_get(run(jax.random.key(0, impl="rbg")))
    assert set(parts) == {*outputs.stage_names, "end"}  # jit sorts keys
    np.testing.assert_allclose(parts["end"], sums["c4"], rtol=1e-5, atol=1e-5)
    for name in sums:
        assert parts[name].shape == sums[name].shape
        assert (np.abs(parts[name] - sums[name]) > 1e-3).any()


@pytest.mark.parametrize(
    "fields, size, geometry",
    [
        (dict(caffe_pool=True, dilation=2), 300, dict(c2=75, c3=38, c4=19, c5=19)),
        (dict(caffe_pool=True, dilation=2), 321, dict(c2=80, c3=40, c4=20, c5=20)),
        (dict(), 321, dict(c2=81, c3=41, c4=21, c5=11)),
        (dict(stride_first=True), 224, dict(c2=56, c3=28, c4=14, c5=7)),
    ],
)
def test_bottleneck_stages(fields, size, geometry):
    model = ResNet(depth=50, root=0, stem_stride=2, pool=3, width=0.125, **fields)
    stages = jax.eval_shape(
        lambda x: model.init_with_output(jax.random.key(0), x, train=False)[0],
        jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32),
    )
    assert {name: stage.shape[1] for name, stage in stages.items()} == geometry
    assert [stage.shape[3] for stage in stages.values()] == [32, 64, 128, 256]
    promised = model.stage_geometry(size)
    assert {name: side for name, (_, side) in promised.items()} == geometry
    strides = [4, 8, 16, 16 if model.dilation > 1 else 32]
    assert [stride for stride, _ in promised.values()] == strides


def test_dilated_bottleneck_looks_two_cells_away():
    layer = functools.partial(ConvNorm, norm=Norm("none"), train=False)
    block = Bottleneck(layer, features=64, dilation=2)
    x = jnp.ones((1, 7, 7, 8))

    @jax.jit
    def seen_from(x):
        variables = block.init(jax.random.key(0), x)
        return jax.grad(lambda x: block.apply(variables, x)[1][0, 3, 3].sum())(x)[0] != 0

    seen = seen_from(x)
    assert set(zip(*map(list, np.nonzero(np.asarray(seen.any(-1)))))) == {
        (y, x) for y in (1, 3, 5) for x in (1, 3, 5)
    }


@pytest.mark.parametrize(
    "fields, sizes",
    [
        (dict(depth=18, root=0, stem_stride=2, pool=3), dict(c2=75, c3=38, c4=19, c5=10)),
        (dict(depth=18, root=0, stem_stride=2, pool=0), dict(c1=150, c2=75, c3=38, c4=19)),
        (dict(depth=18, root=0, stem_stride=1, pool=3), dict(c1=150, c2=75, c3=38, c4=19)),
        (dict(depth=34, root=3, stem_stride=1, pool=2), dict(c1=150, c2=75, c3=38, c4=19)),
    ],
)
def test_stages_of_every_stem(fields, sizes):
    model = ResNet(**fields)
    stages = jax.eval_shape(
        lambda x: model.init_with_output(jax.random.key(0), x, train=False)[0],
        jax.ShapeDtypeStruct((1, 300, 300, 3), jnp.float32),
    )
    assert {name: stage.shape[1] for name, stage in stages.items()} == sizes
    assert [stage.shape[3] for stage in stages.values()] == [64, 128, 256, 512]
    assert model.stage_names == tuple(stages)


def test_wrong_fields_are_named():
    with pytest.raises(ValueError, match=r"model.backbone.depth=19.*\(18, 34, 50, 101, 152\)"):
        ResNet(depth=19)
    with pytest.raises(ValueError, match="root_channels=.*root=3; give a number above 0"):
        ResNet(root_channels=(32, 64))
    with pytest.raises(ValueError, match="model.backbone.block='pre'.*preact"):
        ResNet(block="pre")
    with pytest.raises(ValueError, match="caffe_pool.*pool=2"):
        ResNet(caffe_pool=True)
    with pytest.raises(ValueError, match="kernel_init='xaviers'.*kaiming"):
        ResNet(kernel_init="xaviers")
    with pytest.raises(ValueError, match="zero_init=True .*'frozen_batch'"):
        ResNet(zero_init=True, norm=Norm("frozen_batch"))
    with pytest.raises(ValueError, match="zero_init=True .*'preact'"):
        ResNet(zero_init=True, block="preact")


@pytest.mark.parametrize("depth, parameters", [(50, 23_508_032), (101, 42_500_160)])
@pytest.mark.parametrize("kind", ["batch", "group"])
def test_published_parameters(depth, parameters, kind):
    model = ResNet(depth=depth, root=0, stem_stride=2, pool=3, norm=Norm(kind))
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), x)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == parameters


@pytest.mark.parametrize("depth", [18, 50])
def test_zero_init_makes_blocks_their_shortcuts(depth):
    model = ResNet(depth=depth, root=0, stem_stride=2, pool=3, width=0.125, zero_init=True)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 32, 32, 3)), jnp.float32)
    last = "conv3" if depth >= 50 else "conv2"

    def scales(key):
        params = model.init(key, x, train=False)["params"]
        return {
            (block, layer): leaf["norm"]["scale"]
            for block, layers in params.items()
            for layer, leaf in layers.items()
        }

    found = jax.device_get(jax.jit(scales)(jax.random.key(0, impl="rbg")))
    for (block, layer), scale in found.items():
        assert (scale == (0 if layer == last and block != "stem" else 1)).all(), (block, layer)


def test_kaiming_deviation_follows_the_outputs():
    model = ResNet(depth=18, root=0, stem_stride=2, pool=3, kernel_init="kaiming")
    x = jnp.zeros((1, 32, 32, 3))
    layer = jax.jit(
        lambda key: model.init(key, x, train=False)["params"]["stage3_block1"]["conv1"]
    )(jax.random.key(0, impl="rbg"))
    np.testing.assert_allclose(jnp.std(layer["conv"]["kernel"]), (2 / (9 * 256)) ** 0.5, rtol=0.01)


def test_deep_stem_has_published_parameters():
    """ResNet-50-C: its classifier has 25,576,264, of which 2,049,000 are the last layer's."""
    deep = dict(root=3, root_channels=(32, 32, 64), stem_stride=2, pool=3)
    model = ResNet(depth=50, **deep)
    x = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    stages, variables = jax.eval_shape(
        lambda x: model.init_with_output(jax.random.key(0), x, train=False), x
    )
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == 23_527_264
    assert [stage.shape[1] for stage in stages.values()] == [16, 8, 4, 2]
    narrow = ResNet(depth=18, width=0.5, **deep)
    variables = jax.eval_shape(lambda x: narrow.init(jax.random.key(0), x, train=False), x)
    kernels = [variables["params"]["stem"][f"conv{i}"]["conv"]["kernel"].shape for i in (1, 2, 3)]
    assert kernels == [(3, 3, 3, 16), (3, 3, 16, 16), (3, 3, 16, 32)]
