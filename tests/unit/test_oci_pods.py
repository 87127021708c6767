# SPDX-License-Identifier: Apache-2.0
"""Pods, as container managers describe them to a hook: sandboxes, annotations, process IDs."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nlraw
from lib import build
from nlraw import container, hook, oci

# As containerd's CRI plugin, podman and CRI-O write them.
CONTAINERD = "io.kubernetes.cri.sandbox-id"
CONTAINERD_TYPE = "io.kubernetes.cri.container-type"
CRIO = "io.kubernetes.cri-o.SandboxID"
CRIO_TYPE = "io.kubernetes.cri-o.ContainerType"


def state(bundle="/run/task/k8s.io/c1", **annotations):
    return oci.State(id="c1", status="stopped", pid=None, bundle=bundle, annotations=annotations)


def config(**annotations):
    return oci.Config(network="/run/netns/pod1", annotations=annotations)


def as_bytes(document):
    return json.dumps(document).encode("ascii")


# ---------------------------------------------------------------- annotations


@pytest.mark.parametrize(
    "value, annotations",
    [({"a": "b", "": ""}, {"a": "b", "": ""}), ({}, {}), (None, {})],
)
def test_annotations_are_strings_by_name(value, annotations):
    document = {"id": "c1", "status": "stopped", "bundle": "/b", "annotations": value}
    assert oci.state(as_bytes(document)).annotations == annotations
    assert oci.config(as_bytes({"annotations": value}), "/c").annotations == annotations
    del document["annotations"]
    assert oci.state(as_bytes(document)).annotations == {}


@pytest.mark.parametrize("value", [[], "a=b", 1, True, {"a": 1}, {"a": None}, {"a": {}}])
def test_other_annotations_are_bad_input(value):
    document = {"id": "c1", "status": "stopped", "bundle": "/b", "annotations": value}
    words = ': "annotations" is not an object of strings'
    with pytest.raises(nlraw.Error) as refused:
        oci.state(as_bytes(document))
    assert str(refused.value) == "read container state from stdin" + words
    with pytest.raises(nlraw.Error) as refused:
        oci.config(as_bytes({"annotations": value}), "/c")
    assert str(refused.value) == "read container config /c" + words


@pytest.mark.parametrize(
    "texts, wanted",
    [
        ([], []),
        (["a=b"], [("a", "b")]),
        (["a=b=c", "x.y/z=?*"], [("a", "b=c"), ("x.y/z", "?*")]),
        (["a=b", "a=*"], [("a", "b"), ("a", "*")]),
    ],
)
def test_wanted_annotations_are_keys_and_globs(texts, wanted):
    assert hook.parse_annotations(texts) == wanted


@pytest.mark.parametrize("text", ["", "a", "=b", "a=", "a=[bc]", "a={b,c}", "a=b]"])
def test_a_wanted_annotation_that_cannot_be_meant_is_a_usage_error(text):
    with pytest.raises(nlraw.Invalid):
        hook.parse_annotations(["a=b", text])


@pytest.mark.parametrize(
    "wanted, reason",
    [
        ([], None),
        (["name=vm"], None),
        (["name=v?", "kind=*"], None),
        (["name=v"], "its annotation name is vm, not v"),
        (["name=vm", "kind=guest"], "its annotation kind is , not guest"),
        (["NAME=vm"], None),  # which is in the config only
        (["long=a*b"], "its annotation long is %s..., not a*b" % ("a" * 100)),
    ],
)
def test_a_container_must_have_every_annotation_that_is_wanted(wanted, reason):
    seen = container.Container(state(name="vm", kind="", long="a" * 200))
    seen.config = lambda: config(name="other", NAME="vm")
    if reason is None:
        seen.check(hook.parse_annotations(wanted))
        return
    with pytest.raises(container.LeftAlone) as left:
        seen.check(hook.parse_annotations(wanted))
    assert (str(left.value), left.value.is_doubt) == (reason, False)


def test_an_annotation_that_is_nowhere_is_named():
    seen = container.Container(state())
    seen.config = config
    with pytest.raises(container.LeftAlone) as left:
        seen.check([("a", "*")])
    assert str(left.value) == "it has no annotation a"


# ---------------------------------------------------------------- the sandbox


@pytest.mark.parametrize(
    "bundle, annotations, path",
    [
        ("/run/task/k8s.io/c1", {CONTAINERD: "s1"}, "/run/task/k8s.io/s1"),
        ("/run/task/k8s.io/c1/", {CONTAINERD: "s1"}, "/run/task/k8s.io/s1"),
        ("/c1", {CONTAINERD: "s1"}, "//s1"),
        ("/v/c1/userdata", {CRIO: "s1"}, "/v/s1/userdata"),
        ("/v/c1/userdata", {CRIO: "..."}, "/v/.../userdata"),
        ("/v/c1/bundle", {CRIO: "s1"}, None),
        ("/userdata", {CRIO: "s1"}, None),
        ("/", {CONTAINERD: "s1"}, None),
        ("/run/task/k8s.io/c1", {}, None),
        ("/run/task/k8s.io/c1", {CONTAINERD_TYPE: "container"}, None),
    ],
)
def test_a_sandbox_is_a_sibling(bundle, annotations, path):
    found = oci.sandbox(state(bundle), annotations)
    assert (None if found is None else found.path) == path


HOSTILE = [
    "",
    ".",
    "..",
    "/",
    "s1/",
    "../other/s1",
    "/run/other",
    "s1\0",
    "a" * 256,
    "é" * 128,
    "\ud800",
]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("key", [CONTAINERD, CRIO])
def test_an_id_that_is_no_plain_file_name_is_refused(key, name):
    with pytest.raises(nlraw.Error, match="^check annotation %s" % key):
        oci.sandbox(state("/v/c1/userdata"), {key: name})


@given(st.text())
def test_a_plain_name_stays_in_its_directory(name):
    if oci.is_plain(name):
        path = "/v/%s/config.json" % name
        assert path.split("/") == ["", "v", name, "config.json"] and name not in (".", "..")
        assert 0 < len(oci.encode(name)) <= 255 and "\0" not in name


@pytest.mark.parametrize(
    "annotations, expected",
    [
        ({}, True),  # as podman's infra container
        ({CONTAINERD: "s1", CONTAINERD_TYPE: "sandbox"}, True),
        ({CRIO: "s1", CRIO_TYPE: "sandbox"}, True),
        ({CONTAINERD: "s2", CONTAINERD_TYPE: "sandbox"}, False),
        ({CONTAINERD: "s1", CONTAINERD_TYPE: "container"}, False),
        ({CRIO: "s1", CRIO_TYPE: "container"}, False),
        ({CRIO: "s2"}, False),
    ],
)
def test_a_config_that_belongs_to_another_container_is_not_the_sandboxs(annotations, expected):
    found = oci.sandbox(state(), {CONTAINERD: "s1"})
    assert oci.is_sandbox(found, config(**annotations)) is expected


# ---------------------------------------------------------------- a path that names a process


@pytest.mark.parametrize(
    "path, pid",
    [
        ("/proc/4242/ns/net", 4242),
        ("/proc/1/ns/net", 1),
        ("/proc/4194304/ns/net", 4194304),
        ("/proc/self/ns/net", None),
        ("/proc/4242/task/4242/ns/net", None),
        ("/proc/4242/ns/mnt", None),
        ("/proc/4242/ns/net/", None),
        ("/proc/-1/ns/net", None),
        ("/proc/+1/ns/net", None),
        ("/proc/\u0664/ns/net", None),
        ("/proc//ns/net", None),
        ("/proc/12345678/ns/net", None),
        ("/run/proc/1/ns/net", None),
        ("/run/netns/pod1", None),
        ("/", None),
    ],
)
def test_a_process_id_is_read_from_its_path(path, pid):
    assert oci.process_of(path) == pid


def status(start, command=b"pause"):
    """A /proc/PID/stat (proc_pid_stat(5)) of a process with a start time in clock ticks."""
    fields = [b"S", b"1"] + [b"0"] * 17 + [str(start).encode("ascii"), b"1052672", b"1"]
    return b"4242 (" + command + b") " + b" ".join(fields) + b" 0" * 28 + b"\n"


# A machine that was booted at 1,000,000 and is 5,000 seconds old.
BOOT, NOW = 5000.0, 1005000.0


@pytest.mark.parametrize(
    "start, changed, expected",
    [
        (100000, 1002000.0, True),  # it started a second after 1,000
        (100000, 1001000.03, True),
        (100000, 1001000.02, False),  # too close for clocks of 10 ms
        (100000, 1001000.0, False),
        (100000, 1000999.0, False),
        (100000, NOW, True),
        (100000, NOW + 0.01, True),
        (100000, NOW + 1, False),  # the clock was set back since
        (0, 1000000.03, True),
    ],
)
def test_a_process_is_older_only_if_that_is_certain(start, changed, expected):
    assert oci.is_older(status(start), 100, BOOT, NOW, changed) is expected


@pytest.mark.parametrize("command", [b"", b"a b", b") S 1 0 0", b"((", b"\xff\n)"])
def test_a_command_name_does_not_move_the_start_time(command):
    assert oci.is_older(status(100000, command), 100, BOOT, NOW, 1002000.0)
    assert not oci.is_older(status(300000, command), 100, BOOT, NOW, 1002000.0)


@pytest.mark.parametrize(
    "text", [b"", b"4242 (pause", b"4242 (pause) S 1 0", status("x"), status(-5), status("")]
)
def test_a_status_that_cannot_be_read_proves_nothing(text):
    assert not oci.is_older(text, 100, BOOT, NOW, 1002000.0)


@build.patient
@given(
    st.floats(0, 4000),
    st.floats(-1, 4000),
    st.floats(0, 0.0099),
    st.floats(0, 0.5),
    st.sampled_from([100, 250, 1000, 1024]),
)
def test_a_process_that_started_after_the_change_is_never_older(
    change, later, coarseness, pause, ticks
):
    """Clocks are read as the kernel shows them: rounded down, and one after the other."""
    start = change + later
    shown = status(math.floor(start * ticks) if start >= 0 else 0)
    changed = 1e6 + change - coarseness  # the time of the kernel's last tick
    is_older = oci.is_older(shown, ticks, BOOT, NOW + pause, changed)
    if later >= 0:
        assert not is_older
    elif pause == 0 and start >= 0 and later < -0.05:
        assert is_older
