# SPDX-License-Identifier: Apache-2.0
"""Containers' bundles and states, as a container runtime writes them for a hook."""

import json
import os


class Bundle:
    """A container's bundle in a directory of its own."""

    def __init__(self, path):
        self.path = path
        self.config = os.path.join(path, "config.json")

    def configure(self, *namespaces):
        """Write a config with these namespaces."""
        with open(self.config, "w") as file:
            json.dump(
                {
                    "ociVersion": "1.0.2",
                    "linux": {"namespaces": [{"type": "mount"}] + list(namespaces)},
                },
                file,
            )

    def network(self, path):
        self.configure({"type": "network", "path": path})

    def state(self, status, **more):
        """What the runtime writes; a pid that is None is left out."""
        told = dict(
            {
                "ociVersion": "1.0.2",
                "id": "t1",
                "status": status,
                "bundle": self.path,
                "annotations": {},
            },
            **more,
        )
        return json.dumps({key: value for key, value in told.items() if value is not None}).encode(
            "ascii"
        )
