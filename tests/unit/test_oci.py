# SPDX-License-Identifier: Apache-2.0
"""nlraw.oci: what a container's state and config mean; a pod's sandbox is in test_oci_pods.py."""

import json
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nlraw
from lib import build
from nlraw import oci
from nlraw.container import LIMIT

# As each runtime wrote it to its oci.
RUNC = {
    "ociVersion": "1.0.2-dev",
    "id": "t1",
    "status": "creating",
    "pid": 11112,
    "bundle": "/b",
    "annotations": {},
}
RUNC_STOPPED = {
    "ociVersion": "1.0.2-dev",
    "id": "t1",
    "status": "stopped",
    "bundle": "/b",
    "annotations": {},
}
CRUN = {
    "ociVersion": "1.0",
    "id": "t1",
    "pid": 11112,
    "root": "/r",
    "bundle": "/b",
    "status": "created",
    "annotations": {},
}
CRUN_STOPPED = dict(CRUN, status="stopped", pid=0)
# the process is the runtime itself
KATA = {"ociVersion": "", "id": "t1", "status": "", "pid": 11112, "bundle": "/b"}


def changed(state, **fields):
    """That state with other fields; None takes one away."""
    return {key: value for key, value in dict(state, **fields).items() if value is not None}


def as_bytes(document):
    return document if isinstance(document, bytes) else json.dumps(document).encode("ascii")


# ---------------------------------------------------------------- the state


@pytest.mark.parametrize(
    "document, pid",
    [
        (RUNC, 11112),
        (CRUN, 11112),
        (changed(RUNC, status="running"), 11112),
        (changed(RUNC, pid=1), 1),
        (changed(RUNC, pid=4194304), 4194304),
        (changed(RUNC, pid=None), None),
        (changed(RUNC, pid=0), None),
    ],
)
def test_the_process_of_a_container_that_is_alive_is_the_one_in_the_state(document, pid):
    found = oci.state(as_bytes(document))
    assert (found.id, found.bundle, found.status, found.pid) == (
        "t1",
        "/b",
        document["status"],
        pid,
    )


@pytest.mark.parametrize(
    "document",
    [
        RUNC_STOPPED,
        CRUN_STOPPED,
        KATA,
        changed(RUNC, status="stopped"),
        changed(RUNC, status="paused"),
        changed(RUNC, status="Created"),
        changed(RUNC_STOPPED, pid="of somebody else"),
        changed(RUNC_STOPPED, pid=[-1]),
    ],
)
def test_the_process_of_a_container_that_is_not_alive_does_not_count(document):
    assert oci.state(as_bytes(document)).pid is None


@pytest.mark.parametrize("bundle", ["/", "/é", "/a\udcff", "/" + "a" * 4094])
def test_a_bundle_is_any_absolute_path(bundle):
    assert oci.state(as_bytes(changed(RUNC, bundle=bundle))).bundle == bundle


@pytest.mark.parametrize(
    "document, words",
    [
        (b"", "it is empty"),
        (b" \r\n\t", "it is empty"),
        (b"creating", "it is not JSON: Expecting value: line 1 column 1 (char 0)"),
        (b'{"id": "t1"', "it is not JSON: "),
        (b"{} {}", "it is not JSON: Extra data: line 1 column 4 (char 3)"),
        (b'{"id": "\n"}', "it is not JSON: Invalid control character "),
        (b'{"pid": NaN}', "it is not JSON: NaN is not JSON"),
        (b'{"pid": -Infinity}', "it is not JSON: -Infinity is not JSON"),
        (b'{"pid": 01}', "it is not JSON: "),
        (b'{"pid": ' + b"9" * 21 + b"}", "it is not JSON: a number of 21 digits"),
        (b'{"pid": 1, "pid": 2}', "it is not JSON: a key occurs twice in one object"),
        (
            b'{"annotations": {"a": "", "a": ""}}',
            "it is not JSON: a key occurs twice in one object",
        ),
        (b'\xef\xbb\xbf{"id": "t1"}', "it is not JSON: "),
        ('{"id": "é"}'.encode("latin-1"), "it is not JSON: 'utf-8' codec can't decode byte 0xe9"),
        ('{"id": "t1"}'.encode("utf-16"), "it is not JSON: "),
        (b"[" * 100000, "it is nested too deeply"),
        (b'{"a":' * 100000, "it is nested too deeply"),
        ([RUNC], "it is not a JSON object"),
        (b"null", "it is not a JSON object"),
        (b"{}", 'there is no "status"'),
        (changed(RUNC, status=None), 'there is no "status"'),
        (changed(RUNC, status=["creating"]), 'there is no "status"'),
        (changed(RUNC, id=None), 'there is no "id"'),
        (changed(RUNC, id=1), '"id" is not a string of 1 to 4095 characters'),
        (changed(RUNC, id=""), '"id" is not a string of 1 to 4095 characters'),
        (changed(RUNC, id="i" * 4096), '"id" is not a string of 1 to 4095 characters'),
        (changed(RUNC, bundle=None), 'there is no "bundle"'),
        (changed(RUNC_STOPPED, bundle=None), 'there is no "bundle"'),
        (changed(RUNC, bundle=True), '"bundle" is not a string of 1 to 4095 characters'),
        (changed(RUNC, bundle="bundle"), '"bundle" is not an absolute path'),
        (changed(RUNC, bundle="/b\0"), '"bundle" is not an absolute path'),
        (changed(RUNC, bundle="/\ud800"), '"bundle" is not an absolute path'),
        (changed(RUNC, pid=-1), '"pid" is not a process ID'),
        (changed(RUNC, pid=True), '"pid" is not a process ID'),
        (changed(RUNC, pid=False), '"pid" is not a process ID'),
        (changed(RUNC, pid="11112"), '"pid" is not a process ID'),
        (changed(RUNC, pid=11112.0), '"pid" is not a process ID'),
        (changed(RUNC, pid=0.0), '"pid" is not a process ID'),
        (changed(RUNC, pid=[11112]), '"pid" is not a process ID'),
        (changed(RUNC, pid=4194305), '"pid" is not a process ID'),
    ],
)
def test_a_bad_state_is_refused_with_a_word_on_what_is_wrong(document, words):
    with pytest.raises(nlraw.Error) as refused:
        oci.state(as_bytes(document))
    assert str(refused.value).startswith("read container state from stdin: " + words)


# ---------------------------------------------------------------- the config


def config(*namespaces):
    return {"ociVersion": "1.0.2", "linux": {"namespaces": list(namespaces)}}


@pytest.mark.parametrize(
    "document, path",
    [
        (
            config({"type": "pid"}, {"type": "network", "path": "/run/netns/pod1"}),
            "/run/netns/pod1",
        ),
        (config({"type": "network"}), ""),
        (config({"type": "network", "path": ""}), ""),
        (config({"type": "network", "path": None}), ""),
        (config({"type": "pid", "path": "/p"}, {"type": "mount"}), None),
        (config({"path": "/p"}), None),
        (config(), None),
        ({"linux": {"namespaces": None}}, None),
        ({"linux": {}}, None),
        ({"linux": None}, None),
        ({}, None),
    ],
)
def test_a_config_names_a_path_or_a_new_namespace_or_the_hosts(document, path):
    found = oci.config(as_bytes(document), "/b/config.json")
    assert (found.network, found.annotations) == (path, {})


@pytest.mark.parametrize(
    "document, words",
    [
        (b"", "it is empty"),
        (b"{", "it is not JSON: "),
        ([], "it is not a JSON object"),
        ({"linux": []}, '"linux" has the wrong type'),
        ({"linux": {"namespaces": {"type": "network"}}}, '"namespaces" has the wrong type'),
        ({"linux": {"namespaces": "network"}}, '"namespaces" has the wrong type'),
        (config("network"), '"namespaces" has an entry that is not an object'),
        (
            config({"type": "network"}, {"type": "network", "path": "/p"}),
            "there are two network namespaces",
        ),
        (config({"type": "network", "path": "pod1"}), '"path" is not an absolute path'),
        (config({"type": "network", "path": "/p\0"}), '"path" is not an absolute path'),
        (config({"type": "network", "path": 7}), '"path" is not a string of 1 to 4095 characters'),
    ],
)
def test_a_bad_config_is_refused_with_a_word_on_what_is_wrong(document, words):
    with pytest.raises(nlraw.Error) as refused:
        oci.config(as_bytes(document), "/b/config.json").network
    assert str(refused.value).startswith("read container config /b/config.json: " + words)


# ---------------------------------------------------------------- JSON

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**18), 10**18)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda values: st.lists(values, max_size=4) | st.dictionaries(st.text(), values, max_size=4),
    max_leaves=12,
)


@build.patient
@given(JSON, st.sampled_from([None, 1]), st.booleans())
def test_what_json_writes_is_read_as_it_was_meant(value, indent, escaped):
    text = json.dumps(value, indent=indent, ensure_ascii=escaped)
    if not escaped and any("\ud800" <= char <= "\udfff" for char in text):
        return  # a lone surrogate has no UTF-8
    assert oci.parse((" \n" + text + "\t").encode("utf-8")) == value


def result(function, *arguments):
    """What a function gives, or that it raises."""
    try:
        return function(*arguments)
    except (ValueError, RecursionError):
        return "refused"


ALMOST = st.lists(
    st.sampled_from([*'[]{}:,"\\ 0-9.eE\n', "true", "null", "NaN", '"a"', "\\u", "é", "\0"])
).map("".join)


@given(ALMOST | st.text())
def test_with_and_without_the_scanner_the_same_is_read(text):
    missing = {"_json": None}  # importing it fails then
    data = text.encode("utf-8", "surrogatepass")
    quick = result(oci.parse, data)
    kept = {name: sys.modules.get(name) for name in missing}
    sys.modules.update(missing)
    try:
        assert result(oci.parse, data) == quick
    finally:
        sys.modules.update((name, module) for name, module in kept.items() if module is not None)
        for name in [name for name, module in kept.items() if module is None]:
            del sys.modules[name]


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="the scanner of json is CPython's")
def test_a_state_is_read_without_the_json_module(monkeypatch):
    for name in ("json", "json.decoder", "json.scanner", "re"):
        monkeypatch.setitem(sys.modules, name, None)
    assert oci.state(as_bytes(RUNC).replace(b"t1", b"\\u0074\\t")).id == "t\t"


def test_a_python_without_json_says_so(monkeypatch):
    for name in ("_json", "json"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        nlraw.Error,
        match=r"^read container state from stdin: this Python has no json module \(Debian: ",
    ):
        oci.state(b"{}")


def test_the_largest_input_takes_no_time_to_speak_of():
    began = time.process_time()
    for part in (b"9", b"9.", b'"', b"\\u0000", b"[],", b'"":1,', b"-", b"1e9,", b"[", b" "):
        for begin in (b"", b"[", b'["'):
            data = begin + part * (LIMIT // len(part))
            with pytest.raises(nlraw.Error):
                oci.state(data)
    assert time.process_time() - began < 20
