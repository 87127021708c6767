# SPDX-License-Identifier: Apache-2.0
"""Metrics of a sweep and of a watch as Prometheus' own parser reads them.

Skips whoever imports it without that parser.
"""

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


def watched(text):
    """The metrics of a watch: their types, and their values by name and, of a bucket, bound."""
    types, values = {}, {}
    for family in parser.text_string_to_metric_families(text):
        assert family.documentation.endswith("."), family
        types[family.name] = family.type
        for sample in family.samples:
            assert sample.name.startswith(family.name), sample
            assert set(sample.labels) <= {"le"}
            values[(sample.name, *sample.labels.values())] = sample.value
    return types, values


def read_watched(path):
    """The values of the metrics of a watch in a file."""
    with open(str(path)) as file:
        return watched(file.read())[1]
