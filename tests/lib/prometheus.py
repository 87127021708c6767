# SPDX-License-Identifier: Apache-2.0
"""Metrics of a sweep as Prometheus' own parser reads them. Skips whoever imports it without one."""

import pytest

parser = pytest.importorskip(
    "prometheus_client.parser", reason="prometheus_client is not installed"
)


def read(path):
    """The metrics in a file, by name."""
    with open(str(path)) as file:
        return parsed(file.read())


def parsed(text):
    told = {}
    for family in parser.text_string_to_metric_families(text):
        assert family.type == "gauge" and family.documentation, family
        (sample,) = family.samples
        assert (sample.name, sample.labels) == (family.name, {})
        told[sample.name] = sample.value
    return told


def counted(told):
    """The metrics that count something and are not 0, by the part of the name that differs."""
    return {
        name[len("nlraw_sweep_") :]: value
        for name, value in told.items()
        if value and not name.endswith("_seconds")
    }
