# SPDX-License-Identifier: Apache-2.0
"""In any locale, and with any names, text is plain and JSON holds the bytes."""

import os

import pytest

import nlraw
from lib import command
from lib.names import NAMES, is_plain

LOCALES = [
    {"LC_ALL": "C"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"LC_ALL": "xx_XX.nonsense", "LANG": "\udcff"},
    {"PYTHONIOENCODING": "ascii:strict"},
    {"LC_ALL": "C", "PYTHONIOENCODING": "utf-16", "PYTHONUTF8": "0"},
    {"PYTHONUTF8": "1"},
]


@pytest.mark.parametrize(
    "env", LOCALES, ids=lambda env: ascii(" ".join("%s=%s" % pair for pair in sorted(env.items())))
)
def test_in_any_locale_text_is_plain_and_json_holds_the_bytes(pod, tmp_path, env):
    assert {len(name) for name in NAMES} == {15}
    before = pod.state()
    (tmp_path / "pod").symlink_to(pod.path)
    encoding = "utf-16" if "utf-16" in env.get("PYTHONIOENCODING", "") else "ascii"
    pod.add_taps(NAMES)
    for name in NAMES:
        pod.tc("qdisc", "add", "dev", os.fsdecode(name), "ingress")
    for form in ([], ["-j"]):
        for arguments in (
            ["scan", "-n", pod.path],
            ["sweep", "--dir", str(tmp_path), "-N", "--include-fresh"],
        ):
            done = command.nlraw(*arguments, "-m", "tap*_u", *form, env=env, encoding=encoding)
            assert (done.status, done.err) == (0, "") and is_plain(done.out)
            if form:
                told = done.document
                taps = told["namespaces"][0]["taps"] if "namespaces" in told else told["taps"]
                assert sorted(
                    each["ifname"].encode("utf-8", "surrogateescape") for each in taps
                ) == sorted(NAMES)
    assert nlraw.cleanup(netns=pod.path, match="tap*_u").outcome == "cleaned"
    assert pod.state() == before
