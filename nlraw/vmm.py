# SPDX-License-Identifier: Apache-2.0
"""A finished setup as the arguments or the configuration of a VMM (`setup --print`).

    qemu              -netdev and -device, for a shell
    cloud-hypervisor  --net, for a shell
    firecracker       JSON in the layout of its --config-file
    cmdline           ip=, for the guest kernel's command line

Only the names of TAPs come from outside. A name is quoted for the VMM's own parser, then for the
shell. A common name stays as it is, another is put in single quotes, and one with bytes that are
not printable ASCII becomes $'\\377'. A copied line and `eval` need the quotes; a bare $(...) passes
them on.
"""

from .errors import Invalid
from .output import in_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, List, Optional, Sequence, Tuple

    from .guest import Pair, Setup, Uplink

QEMU, FIRECRACKER, CLOUD_HYPERVISOR = "qemu", "firecracker", "cloud-hypervisor"
CMDLINE = "cmdline"
FORMS = (QEMU, FIRECRACKER, CLOUD_HYPERVISOR, CMDLINE)

# Queue pairs of a multi-queue TAP: the minimum. With one pair, a VMM opens the TAP without
# IFF_MULTI_QUEUE, which the kernel refuses (tun_set_iff(), drivers/net/tun.c).
QUEUES = 2

# The MTU of a guest that is not given one.
DEFAULT_MTU = 1500


def check(form: str, multi_queue: bool = False) -> None:
    """Raise `Invalid` for an unknown form, or one whose VMM lacks ``multi_queue``."""
    if form not in FORMS:
        raise Invalid("one of %s is needed" % ", ".join(FORMS), "check --print", form)
    if form == FIRECRACKER and multi_queue:
        words = "it opens a TAP with one queue only; leave out --multi-queue"
        raise Invalid(words, "check --print", form)


def lines(forms: "Sequence[str]", made: "Setup") -> "List[str]":
    """A line of each form; none for a setup that failed, because a script passes it on."""
    return [] if made.error is not None else [describe(form, made) for form in forms]


def describe(form: str, made: "Setup") -> str:
    """Return a setup in one of `FORMS`: one line, ASCII. Raises `Invalid` as `check` does.

    The `cmdline` is empty if the kernel's ip= cannot express any address; see `unsaid`.
    """
    check(form, any(pair.tap.multi_queue for pair in made.pairs))
    if form == CMDLINE:
        return ip_argument(made) or ""
    if form == FIRECRACKER:
        return in_json(_firecracker(made))
    words: List[str] = []
    for number, pair in enumerate(made.pairs):
        if form == QEMU:
            words += _qemu(number, pair)
        else:
            words += ["--net"] if not words else []
            words.append(_cloud_hypervisor(pair))
    return " ".join(map(_for_shell, words))


# ---------------------------------------------------------------- each VMM


def _qemu(number: int, pair: "Pair") -> "List[str]":
    """The host's side and the guest's side of one card (qemu(1), -netdev tap)."""
    name = pair.tap.ifname.replace(",", ",,")
    netdev = "tap,id=net%d,ifname=%s,script=no,downscript=no" % (number, name)
    device = "virtio-net-pci,netdev=net%d" % number
    mac = _mac(pair)
    if mac is not None:
        device += ",mac=" + mac
    device += ",host_mtu=%d" % pair.tap.mtu
    if pair.tap.multi_queue:
        netdev += ",queues=%d" % QUEUES
        device += ",mq=on,vectors=%d" % (2 * QUEUES + 2)  # each queue, configuration, control
    return ["-netdev", netdev, "-device", device + ",romfile="]  # no network boot


def _cloud_hypervisor(pair: "Pair") -> str:
    """One value of --net (NetConfig::parse(), vmm/src/config.rs)."""
    name = pair.tap.ifname
    if not set(name).isdisjoint(',"[]'):
        name = '"%s"' % name.replace('"', '""')
    mac = _mac(pair)
    queues = 2 * (QUEUES if pair.tap.multi_queue else 1)  # receive and transmit
    facts = (name, "" if mac is None else ",mac=" + mac, pair.tap.mtu, queues)
    return "tap=%s%s,mtu=%d,num_queues=%d" % facts


def _firecracker(made: "Setup") -> "Dict[str, object]":
    """The parts of a configuration: network interfaces, and the kernel's arguments if any.

    An MTU of 1500 is left out: only versions from 1.16 on know the key, and others refuse it.
    """
    interfaces = []
    for number, pair in enumerate(made.pairs):
        one: Dict[str, object] = {"iface_id": _guest_name(number)}
        one["host_dev_name"] = pair.tap.ifname
        mac = _mac(pair)
        if mac is not None:
            one["guest_mac"] = mac
        if pair.tap.mtu != DEFAULT_MTU:
            one["mtu"] = pair.tap.mtu
        interfaces.append(one)
    whole: Dict[str, object] = {}
    argument = ip_argument(made)
    if argument is not None:
        whole["boot-source"] = {"boot_args": argument}
    whole["network-interfaces"] = interfaces
    return whole


def _mac(pair: "Pair") -> "Optional[str]":
    """The guest's MAC, which is the uplink's; None if there is none of six bytes."""
    address = None if pair.uplink is None else pair.uplink.address
    return address if address is not None and len(address) == 17 else None


def _guest_name(number: int) -> str:
    """The name that Linux gives to its n-th Ethernet device."""
    return "eth%d" % number


# ---------------------------------------------------------------- the kernel's ip=


def ip_argument(made: "Setup") -> "Optional[str]":
    """Return ip=CLIENT::GATEWAY:NETMASK::DEVICE:off; None if no NIC has an address it can express.

    It holds one IPv4 address of one NIC and a gateway in that address' network
    (Documentation/admin-guide/nfs/nfsroot.rst). The NIC is the first that has such an address.
    """
    for number, pair in enumerate(made.pairs):
        netmask = _netmask(pair.uplink)
        if pair.uplink is not None and netmask:
            gateway = pair.uplink.gateway if _is_gateway_near(pair.uplink) else ""
            words = (pair.uplink.local, gateway, _dotted(netmask), _guest_name(number))
            return "ip=%s::%s:%s::%s:off" % words
    return None


def unsaid(form: str, made: "Setup") -> "Tuple[str, ...]":
    """What a form that configures the guest cannot express: a sentence for each NIC."""
    if form not in (FIRECRACKER, CMDLINE):
        return ()
    found = []
    is_free = True  # no earlier NIC is configured
    for pair in made.pairs:
        if pair.uplink is None:
            continue
        is_configured = is_free and _netmask(pair.uplink) != 0
        is_free = is_free and not is_configured
        left = _left_out(pair.uplink, is_configured)
        if left:
            words = "%s: ip= cannot express %s: configure the guest from the JSON"
            found.append(words % (pair.uplink.ifname, ", ".join(left)))
    return tuple(found)


def all_unsaid(forms: "Sequence[str]", made: "Setup") -> "List[str]":
    """What `unsaid` returns for all forms of `lines`, each sentence once."""
    given = forms if made.error is None else ()
    return list(dict.fromkeys([words for form in given for words in unsaid(form, made)]))


def _left_out(uplink: "Uplink", is_configured: bool) -> "List[str]":
    """What ip= cannot express of an uplink, in words: how many of each kind."""
    families = [each.family for each in uplink.addresses]
    routes = [each for each in uplink.routes if each.protocol != "kernel"]  # come with addresses
    if is_configured and _is_gateway_near(uplink):
        routes = [
            each
            for each in routes
            if (each.family, each.dst, each.gateway) != ("inet", "default", uplink.gateway)
        ]
    counts = (
        (families.count("inet") - is_configured, "IPv4 address", "IPv4 addresses"),
        (families.count("inet6"), "IPv6 address", "IPv6 addresses"),
        (len(routes), "route", "routes"),
        (sum(each.mtu is not None for each in uplink.routes), "MTU of a route", "MTUs of routes"),
        (len(uplink.neighbours), "permanent neighbour", "permanent neighbours"),
    )
    return ["%d %s" % (count, one if count == 1 else many) for count, one, many in counts if count]


def _is_gateway_near(uplink: "Uplink") -> bool:
    """True if the gateway is in the address' network: the kernel refuses any other in ip=.

    It also refuses the last address, which it takes for the broadcast address even in a network of
    two addresses (ic_setup_if() and ic_setup_routes(), net/ipv4/ipconfig.c).
    """
    if uplink.gateway is None or uplink.local is None:
        return False
    gateway, netmask = _number(uplink.gateway), _netmask(uplink)
    is_last = gateway | netmask == 0xFFFFFFFF
    return (gateway ^ _number(uplink.local)) & netmask == 0 and not is_last


def _netmask(uplink: "Optional[Uplink]") -> int:
    """The netmask of the first IPv4 address; 0 if ip= cannot express it.

    The kernel takes 255.255.255.255 and 0.0.0.0 for no netmask at all, and guesses one by the
    address' class (ip_auto_config_setup() and ic_defaults(), net/ipv4/ipconfig.c).
    """
    if uplink is None or uplink.prefixlen is None or not 0 < uplink.prefixlen < 32:
        return 0
    return 0xFFFFFFFF >> (32 - uplink.prefixlen) << (32 - uplink.prefixlen)


def _number(dotted: str) -> int:
    return int.from_bytes(bytes(map(int, dotted.split("."))), "big")


def _dotted(number: int) -> str:
    return ".".join(map(str, number.to_bytes(4, "big")))


# ---------------------------------------------------------------- the shell

_SAFE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%_-+=:,./")


def _for_shell(word: str) -> str:
    """Quote a word, where it needs it, so that a shell reads it as one word."""
    if _SAFE.issuperset(word):
        return word
    if all(" " <= char <= "~" for char in word):
        return "'%s'" % word.replace("'", "'\\''")
    data = word.encode("utf-8", "surrogateescape")
    return "$'%s'" % "".join(map(_octal, data))


def _octal(byte: int) -> str:
    char = chr(byte)
    return char if " " <= char <= "~" and char not in "\\'" else "\\%03o" % byte
