import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdet.backbones.resnet import BasicBlock, ResNet
from jdet.nn.conv_norm import ConvNorm
from jdet.nn.norm import Norm
from tests.golden import load

TORCH_NAMES = {
    "conv1/conv/kernel": "conv1.weight",
    "conv1/norm/scale": "bn1.weight",
    "conv1/norm/bias": "bn1.bias",
    "conv2/conv/kernel": "conv2.weight",
    "conv2/norm/scale": "bn2.weight",
    "conv2/norm/bias": "bn2.bias",
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
    return jnp.asarray(np.moveaxis(x, 1, -1))


def from_torch(tree, golden, prefix):
    """Fills a variable tree with torch's values; kernels go from OIHW to HWIO."""

    def fill(path, leaf):
        value = golden[prefix + TORCH_NAMES["/".join(key.key for key in path[1:])]]
        value = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value
        assert value.shape == leaf.shape
        return jnp.asarray(value)

    return jax.tree_util.tree_map_with_path(fill, tree)


@pytest.mark.parametrize("case, strides, features", [("basic_s1", 1, 16), ("basic_s2", 2, 24)])
def test_basic_block_equals_torchvision(case, strides, features):
    golden = {k[len(case) + 1 :]: v for k, v in load("resnet_blocks").items() if k.startswith(case)}
    x = nhwc(golden["x"])

    def block(train):
        def layer(*args, **kwargs):
            return ConvNorm(*args, norm=Norm("batch"), train=train, **kwargs)

        return BasicBlock(layer, features, strides)

    variables = block(False).init(jax.random.key(0), x)
    variables = from_torch(variables, golden, "w.")
    np.testing.assert_allclose(
        block(False).apply(variables, x), nhwc(golden["y_eval"]), rtol=1e-5, atol=2e-5
    )

    def loss(params, x):
        y, updates = block(True).apply({**variables, "params": params}, x, mutable=["batch_stats"])
        return jnp.mean(y**2), (y, updates)

    gradient = jax.grad(loss, argnums=(0, 1), has_aux=True)
    (params_grad, x_grad), (y, updates) = gradient(variables["params"], x)
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
    with pytest.raises(ValueError, match=r"model.backbone.depth=19.*\(18, 34\)"):
        ResNet(depth=19)
    with pytest.raises(ValueError, match="model.backbone.root=-1"):
        ResNet(root=-1)
