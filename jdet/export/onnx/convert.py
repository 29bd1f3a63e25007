"""From a jaxpr to an ONNX graph: constants are folded, calls put in, loops and branches become bodies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core

from jdet.export.onnx import indexing, proto, shaping, suppression  # noqa: F401  (operations enter the table)
from jdet.export.onnx.elementwise import simple
from jdet.export.onnx.graph import Graph, Value
from jdet.export.onnx.precision import SINGLE, Precision
from jdet.export.onnx.table import OPERATIONS, Equation, Unsupported

MOST = 1 << 20
"""Numbers of a constant that is calculated here instead of when the program runs."""

_CALLS = ("jaxpr", "call_jaxpr", "fun_jaxpr")

Jaxpr = Any


def _open(jaxpr: Any) -> tuple[Jaxpr, Sequence[Any]]:
    """A jaxpr and its constants."""
    return (jaxpr.jaxpr, jaxpr.consts) if hasattr(jaxpr, "consts") else (jaxpr, ())


def run(graph: Graph, jaxpr: Any, inputs: Sequence[Value]) -> list[Value]:
    """Writes the operations of a jaxpr; its outputs, whose shapes may have 1 for other sides."""
    opened, consts = _open(jaxpr)
    known: dict[Any, Value] = {}
    for variable, const in zip(opened.constvars, consts, strict=True):
        known[variable] = Value.of(np.asarray(const, variable.aval.dtype))
    known |= dict(zip(opened.invars, inputs, strict=True))

    def value(atom: Any) -> Value:
        if isinstance(atom, core.Literal):
            kind: Any = atom.aval
            return Value.of(np.asarray(atom.val, kind.dtype))
        return known[atom]

    for equation in opened.eqns:
        if equation.primitive.name == "platform_index":
            known[equation.outvars[0]] = Value.of(np.int32(_platform(equation, opened)))
            continue
        values = [value(atom) for atom in equation.invars]
        outputs = _write(graph, equation, values)
        known |= dict(zip(equation.outvars, outputs, strict=True))
    return [value(atom) for atom in opened.outvars]


def _platform(equation: Any, jaxpr: Jaxpr) -> int:
    """Which of the variants for platforms is written: that for CPUs, unless its loops write into arrays.

    ONNX's loops copy what they write into, step by step; accelerators take few steps.
    """
    platforms = equation.params["platforms"]
    cpu = next(i for i, names in enumerate(platforms) if names is None or "cpu" in names)
    for user in jaxpr.eqns:
        if user.primitive.name == "cond" and user.invars[0] is equation.outvars[0]:
            if _has(user.params["branches"][cpu], "dynamic_update_slice"):
                return len(platforms) - 1
    return cpu


def _has(jaxpr: Any, name: str) -> bool:
    """Whether an operation occurs in a jaxpr or in those within it."""
    opened, _ = _open(jaxpr)
    for equation in opened.eqns:
        inner = [x for x in equation.params.values() if hasattr(x, "eqns") or hasattr(x, "jaxpr")]
        inner += equation.params.get("branches", ())
        if equation.primitive.name == name or any(_has(each, name) for each in inner):
            return True
    return False


def _write(graph: Graph, equation: Any, inputs: list[Value]) -> Sequence[Value]:
    name, params = equation.primitive.name, equation.params
    if name in _CONTROL:
        return _CONTROL[name](graph, params, inputs, [v.aval for v in equation.outvars])
    called = next((params[key] for key in _CALLS if key in params), None)
    if called is not None:
        return _called(
            graph, params.get("name"), called, inputs, [v.aval for v in equation.outvars]
        )
    if name not in OPERATIONS:
        raise Unsupported(f"the operation {name}")
    avals = [v.aval for v in equation.outvars]
    told = Equation(
        name=name,
        inputs=inputs,
        given=[v.aval.shape for v in equation.invars],
        params=params,
        shapes=[aval.shape for aval in avals],
        dtypes=[str(aval.dtype) for aval in avals],
    )
    if all(x.const is not None for x in inputs) and name not in ("iota", "broadcast_in_dim"):
        sizes = [np.prod(shape, dtype=float) for shape in (*told.given, *told.shapes)]
        if max(sizes) <= MOST:
            return _folded(equation, told)
    written = OPERATIONS[name](graph, told)
    return [written] if isinstance(written, Value) else written


def _called(
    graph: Graph, name: Any, jaxpr: Any, inputs: list[Value], avals: Sequence[Any]
) -> Sequence[Value]:
    """A call; one that ``suppression`` knows is written by it, and in full for where it is in doubt."""
    if name not in suppression.CALLS:
        return run(graph, jaxpr, inputs)
    sure, found = suppression.CALLS[name](graph, inputs, [aval.shape for aval in avals])
    return _either(graph, sure, avals, lambda _: found, lambda inner: run(inner, jaxpr, inputs))


def _either(
    graph: Graph,
    taken: Value,
    avals: Sequence[Any],
    *branches: Callable[[Graph], Sequence[Value]],
) -> list[Value]:
    """What one of two branches gives."""
    bodies = []
    for write in branches:
        inner = graph.inner()
        found = [_named(inner, v, a) for v, a in zip(write(inner), avals, strict=True)]
        bodies.append(inner.encoded("branch", [], _outputs(found)))
    kinds = [(tuple(aval.shape), str(aval.dtype)) for aval in avals]
    return graph.emit_many("If", [taken], kinds, then_branch=bodies[0], else_branch=bodies[1])


def _folded(equation: Any, told: Equation) -> list[Value]:
    """Constants of constants; those that broadcast stay small in what works number by number."""
    values: list[Any] = [x.const for x in told.inputs]
    # With equal axes of 1, an operation number by number has the same result in small.
    if equation.primitive.name in _BY_NUMBER:
        values = [*np.broadcast_arrays(*values)]
    else:
        values = [np.broadcast_to(x, shape) for x, shape in zip(values, told.given, strict=True)]
    found = equation.primitive.bind(*map(np.array, values), **equation.params)
    return [
        Value.of(np.asarray(x)) for x in (found if equation.primitive.multiple_results else [found])
    ]


_BY_NUMBER = (
    *(
        "add",
        "sub",
        "mul",
        "div",
        "max",
        "min",
        "neg",
        "exp",
        "log",
        "sqrt",
        "rsqrt",
        "abs",
        "floor",
    ),
    *(
        "ceil",
        "eq",
        "ne",
        "lt",
        "gt",
        "le",
        "ge",
        "and",
        "or",
        "not",
        "rem",
        "sign",
        "pow",
        "square",
    ),
)


def _named(graph: Graph, value: Value, aval: Any) -> Value:
    """A value of whole shape that has a name, as loops carry and branches return it."""
    value = graph.full(graph.cast(value, str(aval.dtype)), tuple(aval.shape))
    return graph.emit("Identity", [value], value.shape, value.dtype)


def _outputs(values: Sequence[Value]) -> list[tuple[str, str, Any]]:
    return [(value.name, value.dtype, None) for value in values]


def _cond(graph: Graph, params: Mapping, inputs: list[Value], avals: Sequence[Any]) -> list[Value]:
    which, *operands = inputs
    branches = params["branches"]
    if which.const is not None:
        return run(graph, branches[int(np.clip(which.const, 0, len(branches) - 1))], operands)

    def choose(graph: Graph, first: int) -> list[Value]:
        """The branches from ``first`` on."""
        if first == len(branches) - 1:
            return run(graph, branches[first], operands)
        # An index beyond either end means the branch there.
        least = graph.constant(first, which.dtype)
        return _either(
            graph,
            simple(graph, "LessOrEqual", which, least, dtype="bool"),
            avals,
            lambda inner: run(inner, branches[first], operands),
            lambda inner: choose(inner, first + 1),
        )

    if which.dtype == "bool":
        which = graph.cast(which, "int32")
    return choose(graph, 0)


def _loop(
    graph: Graph,
    count: Value | None,
    start: Value,
    carry: list[Value],
    avals: Sequence[Any],
    body: Callable[[Graph, Value, list[Value]], tuple[Value, list[Value], list[Value]]],
    stacked: Sequence[Any] = (),
) -> list[Value]:
    """A Loop: ``body`` gives whether to go on, what is carried, and a row of each stacked output."""
    inner = graph.inner()
    number, going = Value((), "int64", name=graph.fresh()), Value((), "bool", name=graph.fresh())
    held = [Value(tuple(a.shape), str(a.dtype), name=graph.fresh()) for a in avals]
    more, carried, rows = body(inner, number, held)
    more = inner.emit("Identity", [more], (), "bool")
    carried = [_named(inner, v, a) for v, a in zip(carried, avals, strict=True)]
    slices = [jax.ShapeDtypeStruct(a.shape[1:], a.dtype) for a in stacked]
    rows = [_named(inner, v, a) for v, a in zip(rows, slices, strict=True)]
    inputs = [(v.name, v.dtype, v.shape) for v in (number, going, *held)]
    encoded = inner.encoded("body", inputs, _outputs([more, *carried, *rows]))
    first = [_named(graph, v, a) for v, a in zip(carry, avals, strict=True)]
    kinds = [(tuple(aval.shape), str(aval.dtype)) for aval in (*avals, *stacked)]
    return graph.emit_many("Loop", [count, start, *first], kinds, body=encoded)


def _while(graph: Graph, params: Mapping, inputs: list[Value], avals: Sequence[Any]) -> list[Value]:
    """A loop; of several at once (``jax.vmap``), each keeps its values from its own end on."""
    ahead, within = params["cond_nconsts"], params["body_nconsts"]
    asked, given = inputs[:ahead], inputs[ahead : ahead + within]

    several = tuple(params["cond_jaxpr"].out_avals[0].shape)

    def each_going(graph: Graph, carry: Sequence[Value]) -> Value:
        (answer,) = run(graph, params["cond_jaxpr"], [*asked, *carry])
        return graph.full(answer, several)

    def going(graph: Graph, carry: Sequence[Value]) -> Value:
        answer = graph.cast(each_going(graph, carry), "int32")
        any_of = graph.emit("ReduceMax", [answer], (), "int32", keepdims=0) if several else answer
        return graph.cast(any_of, "bool")

    def body(inner: Graph, number: Value, carry: list[Value]) -> Any:
        del number
        before = carry
        carry = run(inner, params["body_jaxpr"], [*given, *carry])
        if several:
            own = each_going(inner, before)
            carry = [_kept(inner, own, new, old) for new, old in zip(carry, before, strict=True)]
        # The condition is asked of values of whole shape.
        carry = [inner.full(v, tuple(a.shape)) for v, a in zip(carry, avals, strict=True)]
        return going(inner, carry), carry, []

    carry = inputs[ahead + within :]
    return _loop(graph, None, going(graph, carry), carry, avals, body)


def _kept(graph: Graph, going: Value, new: Value, old: Value) -> Value:
    """Of loops that run together, the new value of those that are going."""
    going = graph.reshape(going, (*going.shape, *(1,) * (len(old.shape) - len(going.shape))))
    one, other = (graph.cast(x, "int32") if x.dtype == "bool" else x for x in (new, old))
    return graph.cast(simple(graph, "Where", going, one, other), old.dtype)


def _scan(graph: Graph, params: Mapping, inputs: list[Value], avals: Sequence[Any]) -> list[Value]:
    consts, carried = params["num_consts"], params["num_carry"]
    length, given = params["length"], inputs[:consts]
    opened, _ = _open(params["jaxpr"])
    rows_in = opened.invars[consts + carried :]
    sequences = [
        graph.full(value, (length, *v.aval.shape))
        for value, v in zip(inputs[consts + carried :], rows_in, strict=True)
    ]

    def body(inner: Graph, number: Value, carry: list[Value]) -> Any:
        place = number
        if params["reverse"]:
            last = inner.constant(length - 1, "int64")
            place = simple(inner, "Sub", last, number)
        rows = [
            inner.emit("Gather", [each, place], each.shape[1:], each.dtype, axis=0)
            for each in sequences
        ]
        found = run(inner, params["jaxpr"], [*given, *carry, *rows])
        return Value.of(np.bool_(True)), found[:carried], found[carried:]

    count, always = graph.constant(length, "int64"), Value.of(np.bool_(True))
    start, stacked = inputs[consts : consts + carried], avals[carried:]
    found = _loop(graph, count, always, start, avals[:carried], body, stacked)
    if params["reverse"] and stacked:
        raise Unsupported("a reversed scan with outputs")
    return found


_CONTROL: dict[str, Callable[..., Sequence[Value]]] = {
    "cond": _cond,
    "while": _while,
    "scan": _scan,
}


def convert(
    function: Callable[..., Mapping[str, Any]],
    constants: Sequence[np.ndarray],
    inputs: Sequence[tuple[str, Any, Sequence[int | str]]],
    precision: Precision = SINGLE,
) -> proto.Graph:
    """The ONNX graph of a function of JAX.

    Args:
        function: of the constants and then the inputs; returns named arrays.
        constants: become tensors of the graph.
        inputs: name, ``jax.ShapeDtypeStruct`` (its sides may be symbolic), and sides as ONNX names them.
        precision: of convolutions and products with weights. What it observes becomes further outputs,
            float32 [], which are called by key, end and number.

    Raises:
        Unsupported: an operation cannot be written.
    """
    specs = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in constants]
    arguments = (*specs, *(x for _, x, _ in inputs))
    jaxpr, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
    graph = Graph(precision=precision)
    values = [Value.of(x) for x in constants]
    values += [Value(tuple(x.shape), str(x.dtype), name=name) for name, x, _ in inputs]
    outputs = []
    found = run(graph, jaxpr, values)
    for name, value, aval in zip(sorted(shapes), found, jaxpr.out_avals, strict=True):
        graph.nodes.append(proto.node("Identity", [_named(graph, value, aval).name], [name], {}))
        outputs.append((name, str(aval.dtype), tuple(aval.shape)))
    for name, ends in (precision.observed or {}).items():
        for number, end in enumerate(ends):
            graph.nodes.append(proto.node("Identity", [end.name], [f"{name} {number}"], {}))
            outputs.append((f"{name} {number}", "float32", ()))
    told = [(name, str(x.dtype), sides) for name, x, sides in inputs]
    return graph.encoded("jdet", told, outputs)
