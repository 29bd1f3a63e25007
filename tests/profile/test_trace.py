"""Times of instructions from traces of a CPU, a GPU and a TPU, put together by hand."""

import pytest
from jax.profiler import ProfileData

from jdet.profile import trace
from jdet.profile.trace import Event


def ns(events):
    return pytest.approx({name: value * 1e-9 for name, value in events.items()})


def test_a_loop_keeps_what_its_body_leaves():
    line = [Event("while", 0, 100), Event("a", 10, 30), Event("b", 40, 90), Event("c", 50, 60)]
    assert trace.share([line]) == ns({"while": 30, "a": 20, "b": 40, "c": 10})
    assert trace.share([line[::-1]]) == ns({"while": 30, "a": 20, "b": 40, "c": 10})


def test_what_runs_at_the_same_time_shares_it():
    one, other = [Event("a", 0, 60)], [Event("b", 20, 40), Event("a", 40, 100)]
    found = trace.share([one, other])
    assert found == ns({"a": 20 + 10 + 20 + 40, "b": 10})
    assert sum(found.values()) == pytest.approx(100e-9)


def test_gaps_are_nobodys():
    assert trace.share([[Event("a", 0, 10), Event("a", 50, 60)]]) == ns({"a": 20})
    assert trace.share([]) == {}


def plane(name, lines, stats=""):
    """Text of a plane; lines are (name, [(event, start ns, length ns, hlo_op)])."""
    names = dict.fromkeys(event for _, events in lines for event, *_ in events)
    ids = {event: i for i, event in enumerate(names, 1)}
    text = f'planes {{ name: "{name}"\n'
    for i, (line, events) in enumerate(lines):
        text += f'lines {{ id: {i} name: "{line}" timestamp_ns: 1000\n'
        for event, start, length, op in events:
            stat = f'stats {{ metadata_id: 1 str_value: "{op}" }}' if op else ""
            at = f"offset_ps: {start}000 duration_ps: {length}000"
            text += f"events {{ metadata_id: {ids[event]} {at} {stat} }}\n"
        text += "}\n"
    for event, i in ids.items():
        text += f'event_metadata {{ key: {i} value {{ id: {i} name: "{event}" }} }}\n'
    text += 'stat_metadata { key: 1 value { id: 1 name: "hlo_op" } }\n'
    return text + "}\n"


def read(*planes):
    return ProfileData.from_text_proto("".join(planes))


def test_threads_of_a_cpu():
    data = read(
        plane(
            "/host:CPU",
            [
                ("python", [("run", 0, 500, "")]),
                (
                    "tf_XLAEigen/1",
                    [
                        ("ThunkExecutor::Execute", 0, 400, ""),
                        ("fusion.1", 10, 100, ""),
                        ("dot.2", 200, 100, ""),
                    ],
                ),
                ("tf_XLAEigen/2", [("fusion.1", 10, 100, "")]),
            ],
        ),
        plane("Task Environment", []),
    )
    found = trace.by_instruction(data, {"fusion.1", "dot.2"})
    assert found == ns({"fusion.1": 100, "dot.2": 100})


def test_streams_of_gpus_by_the_instruction_that_started_them():
    lines = [
        ("Stream #1(Compute)", [("sm90_kernel", 0, 100, "conv.1"), ("Memcpy", 200, 40, "")]),
        ("Stream #2(Compute)", [("loop_add_fusion", 50, 100, "loop_add_fusion")]),
        ("XLA Modules", [("jit_scaled", 0, 300, "")]),
    ]
    names = {"conv.1", "loop_add_fusion"}
    one = trace.by_instruction(read(plane("/device:GPU:0", lines)), names)
    assert one == ns({"conv.1": 75, "loop_add_fusion": 75, trace.UNKNOWN: 40})
    host = plane("/host:CPU", [("tf_XLAEigen/1", [("conv.1", 0, 10, "")])])
    two = trace.by_instruction(
        read(plane("/device:GPU:0", lines), plane("/device:GPU:1", []), host), names
    )
    assert two == one  # a device without events runs nothing of the program


def test_the_operations_of_a_tpu_are_named_by_their_text():
    lines = [
        ("Steps", [("1", 0, 300, "")]),
        ("XLA Modules", [("jit_scaled(1)", 0, 300, "")]),
        (
            "XLA Ops",
            [
                ("%while.3 = (s32[]) while(...)", 0, 100, ""),
                ("%fusion.1 = f32[8] fusion(...)", 20, 50, ""),
            ],
        ),
    ]
    found = trace.by_instruction(read(plane("/device:TPU:0", lines)), {"while.3", "fusion.1"})
    assert found == ns({"while.3": 50, "fusion.1": 50})
