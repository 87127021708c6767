# SPDX-License-Identifier: Apache-2.0
"""Random pods: a seed becomes command lines for `ip` and `tc`, and the TAPs that somebody holds.

This file makes no system call. A command line that the kernel refuses does no harm: what is
predicted follows from what is there (`podmodel`).
"""

import fnmatch
import random
from collections import namedtuple

# ---------------------------------------------------------------- a pod

# One thing that is done to build a pod. phase: "ip", "tap", "tc" or "late" (ip, after tc).
# text: command lines without the leading program. fact: a Tap or Chain, or None.
Part = namedtuple("Part", "phase text tags fact")
# state: "fresh" (never opened again), "used" (opened again and released), "held", "detached" (one
# queue, detached), "half-detached" (two queues, one detached), "carrier-off" (held, carrier off)
Tap = namedtuple("Tap", "name state multi_queue up")
# A place holds filters: "eth0" (its ingress or clsact), 7 (a shared block) or ("eth0", "1:") (a
# classful qdisc). A spot is a (side, chain) there; the side is None but on devices.
Chain = namedtuple("Chain", "place spot")
# match: globs; uplinks: names, or ("auto",) or ("none",); None: the default, option not given
Options = namedtuple("Options", "match uplinks exclude keep_in_use")

DEFAULT_MATCH = ("tap*_urunc",)
DEFAULT_UPLINKS = ("eth0",)
IN_USE_STATES = ("held", "detached", "half-detached")


class Pod:
    """The parts of a pod in the order in which they are built, and the options of the cleanup."""

    def __init__(self, seed, parts, options):
        self.seed = seed
        self.parts = tuple(parts)
        self.options = options

    def facts(self, kind):
        return [part.fact for part in self.parts if isinstance(part.fact, kind)]

    def lines(self, phase):
        return [line for part in self.parts if part.phase == phase for line in part.text]

    def without(self, *parts):
        return Pod(self.seed, [part for part in self.parts if part not in parts], self.options)

    def without_tags(self, tags):
        return self.without(*[part for part in self.parts if set(part.tags) & set(tags)])

    @property
    def match(self):
        return self.options.match or DEFAULT_MATCH

    @property
    def uplinks(self):
        return self.options.uplinks or DEFAULT_UPLINKS


def matches(name, globs):
    return any(fnmatch.fnmatchcase(name, glob) for glob in globs)


# ---------------------------------------------------------------- the generator

MATCHING = ("tap0_urunc", "tap1_urunc", "tap0_kata", "tap1_kata", "tap_urunc")
OTHER_TAPS = ("tap0", "vm0", "xtap0_urunc", "tap0_urunc2", "tap0_Urunc")
GLOBS = (("tap*_urunc",), ("tap?_urunc",), ("tap*_kata",), ("tap*",), ("*",), ("tap1_*",))
GLOB_PAIRS = (("tap*_urunc", "tap*_kata"), ("tap0_*", "tap1_*"), ("vm*", "tap?_urunc"))

MATCH_ALL = ("match u32 0 0", "match u32 0 0 at 8", "match u32 0 0 match u32 0 0 at 4")
CONDITIONS = (
    "match ip dst 10.66.0.0/16",
    "match u32 0 0 match ip protocol 6 0xff",
    "match u32 0 0x1",
    "match u32 0 0 match mark 5 0xff",
    "match u16 0x0800 0xffff at -2",
)
BPF_ALL = "bytecode '1,6 0 0 4294967295'"
BPF_NONE = "bytecode '1,6 0 0 0'"

U32 = "u32"
BPF = "bpf"


class _Filter:
    """A filter while it is being drawn."""

    def __init__(self, hook, chain, pref, protocol, kind, match, flowid, actions, tags):
        self.place, self.side = hook
        self.chain = chain
        self.pref = pref
        self.protocol = protocol
        self.kind = kind
        self.match = match
        self.flowid = flowid
        self.actions = actions
        self.tags = tags

    def part(self):
        words = ["filter add", words_for((self.place, self.side))]
        words += ["pref %d" % self.pref] if self.pref is not None else []
        words += ["chain %d" % self.chain] if self.chain else []
        words += ["protocol", self.protocol, self.kind, self.match]
        words += ["flowid " + self.flowid] if self.flowid else []
        words += self.actions
        return Part("tc", (" ".join(words),), self.tags, None)


def words_for(hook):
    """How `tc` calls a (place, side)."""
    place, _ = hook
    if isinstance(place, int):
        return "block %d" % place
    return "dev %s parent %s" % place if isinstance(place, tuple) else "dev %s %s" % hook


class Generator:
    """Draws one pod. Each method draws one layer of it and appends its parts."""

    def __init__(self, seed, limit):
        self.limit = limit
        self.random = random.Random(seed)
        self.seed = seed
        self.parts = []
        self.uplinks = []  # eth0, net1, net2
        self.taps = []
        self.others = ["lo"]
        self.hooks = []
        self.filters = []
        self.default_uplink = None
        self.numbers = 0

    def chance(self, probability):
        return self.random.random() < probability

    def pick(self, *choices):
        return self.random.choice(choices)

    def number(self):
        self.numbers += 1
        return self.numbers

    def add(self, phase, *text, **more):
        self.parts.append(Part(phase, text, tuple(more.get("tags", ())), more.get("fact")))

    def pod(self):
        self.options = self.draw_options()
        if self.chance(0.5):
            self.draw_uplinks()
            self.draw_taps()
        else:
            self.draw_taps()
            self.draw_uplinks()
        self.draw_impostors()
        self.draw_uppers()
        self.draw_addresses()
        self.add("ip", "tuntap add gone0 mode tap")
        self.draw_hooks()
        self.draw_roots()
        self.draw_pairs()
        self.draw_filters()
        self.parts += [each.part() for each in self.filters]
        self.draw_tables()
        self.add("late", "link del gone0")
        return Pod(self.seed, self.parts, self.limit(self.options))

    def draw_options(self):
        match = None if self.chance(0.5) else self.pick(*GLOBS)
        if self.chance(0.1):
            match = self.pick(*GLOB_PAIRS)
        draw = self.random.random()
        uplinks = None
        if draw > 0.4:
            uplinks = self.pick(("eth0",), ("eth0",), ("net1",), ("auto",), ("auto",), ("none",))
        if draw > 0.85:
            uplinks = self.pick(
                ("eth0", "net1"), ("net1", "net2"), ("gone9", "net1"), ("eth0", "net1", "net2")
            )
        exclude = self.pick(("tap1_*",), ("tap0_urunc",), ("x*",)) if self.chance(0.08) else None
        return Options(match, uplinks, exclude, self.chance(0.15))

    # ------------------------------------------------------------ links

    def draw_uplinks(self):
        names = ["eth0", "net1", "net2"][: self.pick(1, 1, 2, 2, 2, 3)]
        if self.chance(0.06):
            names.remove("eth0")
        for name in names:
            if self.chance(0.3):
                # the peer is in another namespace: its index there may be that of a TAP here
                far = self.random.randint(2, 9)
                self.add(
                    "ip",
                    "link add %s type veth peer name far%s index %d netns FAR" % (name, name, far),
                    "link set %s up" % name,
                )
            else:
                self.add(
                    "ip",
                    "link add %s type veth peer name p%s" % (name, name),
                    "link set %s up" % name,
                    "link set p%s up" % name,
                )
                self.others.append("p" + name)
            self.uplinks.append(name)
        if self.chance(0.08):
            self.add("ip", "link add ifb0 type ifb", "link set ifb0 up")
            self.others.append("ifb0")

    def draw_taps(self):
        some_in_use = self.chance(0.25)
        names = list(MATCHING + OTHER_TAPS)
        ours = [name for name in MATCHING if matches(name, self.options.match or DEFAULT_MATCH)]
        for _ in range(self.pick(0, 1, 1, 1, 2, 2, 2, 3, 3, 4)):
            name = self.pick(*(ours if ours and self.chance(0.7) else names))
            if name in [tap.name for tap in self.taps]:
                continue
            multi_queue = self.chance(0.2)
            states = ["fresh", "used", "used", "used"]
            is_ours = matches(name, self.options.match or DEFAULT_MATCH)
            if some_in_use or not is_ours:
                states += ["held", "held", "held"]
                if multi_queue:
                    states += ["detached", "detached", "half-detached"]
            state = "carrier-off" if self.chance(0.03) else self.pick(*states)
            if state == "carrier-off" and multi_queue and not some_in_use:
                state = "used"
            tap = Tap(name, state, multi_queue, self.chance(0.8))
            queues = " multi_queue" if multi_queue else ""
            lines = ["tuntap add %s mode tap%s" % (name, queues)]
            lines += ["link set %s up" % name] if tap.up else []
            self.add("ip", *lines)
            self.add("tap", fact=tap)
            self.taps.append(tap)
        if self.taps and self.chance(0.08):
            port = self.pick(*self.taps).name
            self.add(
                "ip",
                "link add br0 address 02:00:00:00:00:99 type bridge",
                "link set br0 up",
                "link set %s master br0" % port,
            )
            self.others.append("br0")

    def draw_impostors(self):
        """Links whose names match and that are no TAPs in TAP mode."""
        taken = [tap.name for tap in self.taps]
        for name in MATCHING:
            if name in taken or not self.chance(0.05):
                continue
            kind = self.pick("veth", "tun", "macvtap", "ifb")
            if kind == "tun":
                self.add("ip", "tuntap add %s mode tun" % name)
            elif kind == "veth":
                self.add("ip", "link add %s type veth peer name x%s" % (name, name))
            elif kind == "ifb":
                self.add("ip", "link add %s type ifb" % name)
            elif self.uplinks:
                lower = self.pick(*self.uplinks)
                self.add("ip", "link add %s link %s type macvtap mode bridge" % (name, lower))
            self.others.append(name)

    def draw_uppers(self):
        """Devices that are stacked on another one."""
        names = ["mv0", "mv1"]
        if "eth0" not in self.uplinks and self.chance(0.4):
            names.insert(0, "eth0")
        free = [name for name in MATCHING if name not in [tap.name for tap in self.taps]]
        for name in names:
            if name != "eth0" and not self.chance(0.07):
                continue
            kind = self.pick("macvlan mode bridge", "macvtap mode bridge")
            if self.chance(0.1):
                kind = "vlan id 5"  # refused where the kernel has none
            if name == "mv1" and free and self.chance(0.5):
                name, kind = free[0], "macvtap mode bridge"
            on_tap = self.taps and self.chance(0.75)
            lower = self.pick(*[tap.name for tap in self.taps]) if on_tap else None
            if lower is None and self.uplinks and name != "eth0":
                lower = self.pick(*self.uplinks)
            if lower is not None:
                tags = ("stacked",) if on_tap else ()
                self.add("ip", "link add %s link %s type %s" % (name, lower, kind), tags=tags)
                (self.uplinks if name == "eth0" else self.others).append(name)

    def draw_addresses(self):
        for tap in self.taps:
            if tap.up and self.chance(0.12):
                number = self.number()
                self.add("ip", "address add 10.7.%d.1/24 dev %s" % (number, tap.name))
                if self.chance(0.5):
                    self.add("ip", "route add 10.8.%d.0/24 dev %s" % (number, tap.name))
        routed = []
        for metric in (30, 20, 10):
            candidates = self.uplinks + (["ifb0"] if "ifb0" in self.others else [])
            if candidates and self.chance(0.5):
                dev = self.pick(*candidates)
                table = " table 100" if self.chance(0.2) else ""
                metric = 0 if self.chance(0.1) and not table else metric
                line = "route add default dev %s metric %d%s" % (dev, metric, table)
                self.add("ip", line)
                routed += [] if table else [(metric, dev)]
        self.default_uplink = min(routed)[1] if routed else None

    # ------------------------------------------------------------ TC

    def named_uplinks(self):
        uplinks = self.limit(self.options).uplinks or DEFAULT_UPLINKS
        return [self.default_uplink] if uplinks == ("auto",) else list(uplinks)

    def draw_hooks(self):
        tap_names = [tap.name for tap in self.taps]
        devices = [(name, 0.85) for name in self.uplinks]
        devices += [(name, 0.5) for name in tap_names]
        devices += [(name, 0.12) for name in self.others]
        with_blocks = self.chance(0.15)
        for dev, probability in devices:
            if not self.chance(probability):
                continue
            kind = self.pick("ingress", "ingress", "ingress", "clsact", "clsact")
            words, hooks, tags = ["qdisc add dev", dev], [(dev, "ingress")], []
            if kind == "clsact":
                hooks.append((dev, "egress"))
            if with_blocks and self.chance(0.5):
                block = self.pick(7, 7, 8)
                words.append("ingress_block %d" % block)
                hooks[0] = (block, None)
                tags.append("block")
                if kind == "clsact" and self.chance(0.4):
                    words.append("egress_block 9")
                    hooks[1] = (9, None)
            self.add("tc", " ".join(words + [kind]), tags=tags)
            self.hooks += [hook for hook in hooks if hook not in self.hooks]
        for hook in self.hooks:
            for index in (0, 3, 7):
                if self.chance(0.04):
                    line = "chain add %s chain %d" % (words_for(hook), index)
                    fact = Chain(hook[0], (hook[1], index))
                    self.add("tc", line, tags=["chain"], fact=fact)

    def draw_roots(self):
        """Qdiscs at the root: with handles, so not the kernel's default ones."""
        for dev in [tap.name for tap in self.taps] + self.uplinks:
            if not self.chance(0.15):
                continue
            kind = self.pick("htb", "htb", "tbf", "pfifo")
            if kind == "htb":
                self.add(
                    "tc",
                    "qdisc add dev %s root handle 1: htb default 5" % dev,
                    "class add dev %s parent 1: classid 1:5 htb rate 10mbit" % dev,
                )
                if self.chance(0.4):
                    self.add("tc", "qdisc add dev %s parent 1:5 handle 20: pfifo limit 5" % dev)
                if self.chance(0.3):
                    line = "filter add dev %s parent 1: protocol all u32 match u32 0 0 flowid 1:5"
                    self.add("tc", line % dev)
                if self.chance(0.15):
                    line = (
                        "filter add dev %s parent 1: protocol all u32 match u32 0 0 action mirred"
                    )
                    line += " egress redirect dev %s"
                    self.add("tc", line % (dev, self.target()), tags=["classful"])
            elif kind == "tbf":
                self.add("tc", "qdisc add dev %s root tbf rate 1mbit burst 10k latency 50ms" % dev)
            else:
                self.add("tc", "qdisc add dev %s root pfifo limit 7" % dev)

    def target(self):
        ours = [tap.name for tap in self.taps]
        draw = self.random.random()
        if draw < 0.55 and ours:
            return self.pick(*ours)
        if draw < 0.8:
            return "gone0"
        return self.pick(*(self.uplinks + self.others + ours))

    def wide(self, hook, *targets):
        """The tag of a redirect to a TAP elsewhere than on a named uplink."""
        is_wide = hook[0] not in self.named_uplinks() and not isinstance(hook[0], int)
        return ["wide"] if is_wide and set(targets) & {tap.name for tap in self.taps} else []

    def draw_pairs(self):
        """What runtimes make: redirects both ways between uplinks and TAPs, a TAP for each."""
        for uplink, tap in zip(self.uplinks, self.taps):
            for dev, target in ((uplink, tap.name), (tap.name, uplink)):
                if (dev, "ingress") in self.hooks and self.chance(0.7):
                    action = "action mirred egress redirect dev " + target
                    self.draw_filter((dev, "ingress"), 0, None, "all", U32, MATCH_ALL[0], [action])

    def draw_filters(self):
        used = {}  # one protocol and one classifier to a chain and priority
        for hook in self.hooks:
            chains = (0, 0, 0, 3, 7) if self.chance(0.3) else (0,)
            prefs = self.pick((None,), (None, 1), (1, 2), (1, 2, 3), (5, 49152))
            for _ in range(self.pick(0, 0, 1, 1, 2, 2, 3, 5)):
                chain, pref = self.pick(*chains), self.pick(*prefs)
                drawn = self.pick("all", "all", "all", "ip"), self.pick(U32, U32, U32, U32, BPF)
                if pref is not None:
                    drawn = used.setdefault((hook, chain, pref), drawn)
                self.draw_filter(hook, chain, pref, drawn[0], drawn[1], None, self.draw_actions())

    def draw_actions(self):
        draw = self.random.random()
        redirect = "action mirred egress redirect dev "
        if draw < 0.7:
            return [redirect + self.target()]
        if draw < 0.76:
            return ["action mirred ingress redirect dev " + self.target()]
        if draw < 0.84:
            control = self.pick("", " pipe", " goto chain 9")
            return ["action mirred egress mirror dev " + self.target() + control]
        if draw < 0.92:
            first = "action mirred %s mirror dev %s pipe" % (self.pick("egress", "ingress"), "%s")
            return [first % self.target(), redirect + self.target()]
        if draw < 0.95:
            # an action that several filters share: the first one says what it does
            return [redirect + self.target() + " index 500"]
        return []

    def draw_filter(self, hook, chain, pref, protocol, kind, match, actions):
        if match is None and kind == U32:
            match = self.pick(*(MATCH_ALL if self.chance(0.3) else MATCH_ALL[:1]))
            if self.chance(0.25):
                match = self.pick(*CONDITIONS)
        elif match is None:
            match = self.pick(BPF_ALL, BPF_ALL, BPF_NONE)
        flowid = "1:1" if self.chance(0.15) or (kind == U32 and not actions) else None
        tags = ["block"] if isinstance(hook[0], int) else []
        tags += ["chains"] if chain else []
        others = [each for each in self.filters if each.place == hook[0]]
        if others and (others[0].side, others[0].chain) != (hook[1], chain):
            tags.append("spots")
        redirects = [action.split(" dev ")[1].split()[0] for action in actions if "redir" in action]
        tags += self.wide(hook, *redirects)
        drawn = _Filter(hook, chain, pref, protocol, kind, match, flowid, actions, tuple(tags))
        self.filters.append(drawn)

    def draw_tables(self):
        """Priorities in which only a root table is left, and tables that somebody made."""
        for number, hook in enumerate(self.hooks):
            place = words_for(hook)
            if hook[0] in [other[0] for other in self.hooks[:number]]:
                continue  # both sides of a clsact have their tables in common
            if self.chance(0.06):
                self.add(
                    "tc",
                    "filter add %s pref 21 handle 2: protocol all u32 divisor 1" % place,
                    "filter del %s pref 21 handle 2: protocol all u32" % place,
                    tags=["ghost"],
                )
            if self.chance(0.05):
                self.add(
                    "tc",
                    "filter add %s pref 22 handle 3: protocol all u32 divisor 4" % place,
                    tags=["table"],
                )
                if self.chance(0.7):
                    line = "filter add %s pref 22 protocol all u32 ht 3:1: match u32 0 0"
                    line += " action mirred egress redirect dev %s"
                    target = self.target()
                    tags = ["table"] + self.wide(hook, target)
                    self.add("tc", line % (place, target), tags=tags)
                if self.chance(0.3):
                    line = "filter add %s pref 22 protocol all u32 link 3: match u32 0 0"
                    self.add("tc", line % place, tags=["table"])


def generate(seed, limit=lambda options: options):
    """The pod of a seed, the same for every version of Python. ``limit``: see `podrun.possible`."""
    return Generator(seed, limit).pod()
