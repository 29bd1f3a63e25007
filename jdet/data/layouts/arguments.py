"""How an argument that only the user knows is given, for messages that ask for it."""


def given(name: str, value: str, in_experiments: bool = True) -> str:
    """An argument of a source as each of the commands takes it.

    Args:
        name: of the argument.
        value: that it should have.
        in_experiments: the experiments on one's own images have it too.
    """
    short = f"{name}={value} of the experiments on your own images, " * in_experiments
    return (
        f"{short}--{name}={value} of jdet.convert, elsewhere "
        f"--config.data.train.{name}={value} --config.data.eval.{name}={value}"
    )
