#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Cleanup of one namespace as a script does it, for a namespace known to hold nothing but what the
# product made.
set -e
ip link show dev eth0 >/dev/null
removed=1
idle='s/^[0-9]*: \(tap[^:]*_urunc\): <[^>]*NO-CARRIER.*/\1/p'
for tap in $(ip -o link show type tun | sed -n "$idle"); do
    tc filter show dev eth0 ingress | grep -q "$tap"
    tc qdisc del dev eth0 ingress
    tc qdisc del dev "$tap" ingress
    ip link del dev "$tap"
    removed=0
done
exit $removed
