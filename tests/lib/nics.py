# SPDX-License-Identifier: Apache-2.0
"""Rounds in a pod with several NICs, whose filters and redirects others change meanwhile.

    eth0         clsact, with more foreign redirects than fit one datagram of a list
    net1, net2   an `ingress` each, which share a block
    net3         an `ingress` that goes when it is left without content

A TAP that was in use, or another's, when it was last looked at is never deleted; nor is a foreign
filter, nor a redirect to a TAP that stays; and no redirect is left dead. Again, what can be lost is
what changes between the last look and the delete. After each round a cleanup that is left alone
removes every dead redirect from the uplinks; in a shared block they are somebody else's.
"""

import collections

import nlraw
from lib import rivals, rounds
from lib.rivals import Rival, add_foreign, add_redirect, delete_priority
from nlraw import link, tc, uapi
from nlraw.connection import Connection

NICS = ("eth0", "net1", "net2", "net3")
BLOCK = 22

# More than fit one datagram, and the priority that they have.
CROWD, CROWDED = 100, 900

# The priority of the foreign filters that are there from the beginning.
STAYS = 5

# The places, and whether dead redirects are removed there.
PLACES = {"eth0 in": True, "eth0 out": False, "block": False, "net3": True}

# Where the redirect to each TAP is; each in chain 0, but for the last.
ROUTES = (("eth0 in", 0), ("block", 0), ("net3", 0), ("net3", 5), ("block", 7), ("eth0 in", 3))


class Entry:
    """A foreign filter, by its number, or a redirect to a TAP, by its place and priority.

    ``since`` is when it began to be made, and when that was done.
    """

    def __init__(self, place, chain, priority, number=None, tap=None, ifindex=None):
        self.place, self.chain, self.priority = place, chain, priority
        self.number, self.tap, self.ifindex = number, tap, ifindex
        self.since = (0.0, 0.0)

    def __repr__(self):
        return "Entry(%s)" % ", ".join("%s=%r" % pair for pair in sorted(vars(self).items()))

    @property
    def key(self):
        return self.place, self.chain, self.priority


class Seen:
    """The foreign filters, redirects and TAPs of a namespace at one time.

    Filters are known by their number, and redirects by their priority, which no other has. The
    kernel lists u32 filters of one priority in several chains together, and on both sides of a
    clsact.
    """

    def __init__(self, connection, places):
        self.foreign, self.keys = set(), set()
        self.redirects = collections.defaultdict(set)
        for place, (ifindex, parent) in places.items():
            (reply,) = connection.ask(tc.dump_filters(ifindex, parent, place))
            for found in tc.filters(reply.answer()):
                if found.is_filter and found.priority not in (STAYS, CROWDED):
                    self._add(place, found)
        (reply,) = connection.ask(link.dump())
        self.links = {found.ifindex: found.ifname for found in link.links(reply.answer())}

    def _add(self, place, found):
        self.keys.add((place, found.chain, found.priority))
        number = rivals.number_of(found)
        if number is not None:
            self.foreign.add(number)
        targets = {action.redirect for action in found.actions()} - {None}
        if targets:
            self.redirects[found.priority] |= targets

    def what_became_of(self, entry):
        targets = self.redirects.get(entry.priority, ())
        return "live" if entry.ifindex in targets else "dead" if 0 in targets else "gone"

    def dead(self):
        return {priority for priority, targets in self.redirects.items() if 0 in targets}


class Nics(rounds.Ground):
    """Rounds on several NICs. A second rival changes filters and redirects meanwhile."""

    uplinks = NICS

    def __init__(self, pod, times, chance, path=None):
        super().__init__(pod, times, chance, path)
        pod.batch(*["link add %s type veth peer name far_%s" % (nic, nic) for nic in NICS[1:]])
        pod.tc("qdisc", "add", "dev", "eth0", "clsact")
        for nic in ("net1", "net2"):
            pod.tc("qdisc", "add", "dev", nic, "ingress_block", str(BLOCK), "ingress")
        indexes = {name: found["ifindex"] for name, found in pod.links().items()}
        self._net3 = indexes["net3"]
        root = uapi.TC_H_INGRESS_HANDLE
        self._places = {
            "eth0 in": (indexes["eth0"], root | uapi.TC_H_MIN_INGRESS),
            "eth0 out": (indexes["eth0"], root | uapi.TC_H_MIN_EGRESS),
            "block": (uapi.TCM_IFINDEX_MAGIC_BLOCK, BLOCK),
            "net3": (self._net3, root),
        }
        crowd = [
            add_redirect(self._places["eth0 in"], 0, CROWDED, indexes["peer0"])
            for _ in range(CROWD)
        ]
        stay = [add_foreign(self._places[name], 0, STAYS, 7) for name in list(PLACES)[:3]]
        for reply in self.connection.change(*crowd + stay):
            reply.answer()
        self.before = pod.state()
        self.gardener = Rival(pod, "play_tc")
        self._entries, self._unused, self._priorities = [], [], iter(())
        self._acts, self._made, self._indexes = [], [], {}

    # ------------------------------------------------------------ what there is

    def furnish(self):
        """Have orphans with redirects, and a plan for the second rival; return the names."""
        size = self.chance.choice((1, 2, 2, 3, 4))
        self.case = "%d orphan%s on several NICs" % (size, "s" * (size > 1))
        names = ["tap%d_urunc" % each for each in range(size)]
        self.add_orphans(names)
        self._priorities = iter(self.chance.sample(range(10, CROWDED), 40))
        self._entries = [self._new(*route) for route in self._routes(names)]
        requests = [tc.create_ingress(self._net3, "net3")]
        requests += [self._request(entry) for entry in self._entries]
        for reply in self.connection.change(*requests):
            reply.answer()
        self._plan(names)
        return names

    def _routes(self, names):
        indexes = self._indexes = {name: self._find(name) for name in names}
        for each, name in enumerate(names):
            place, chain = ROUTES[each] if each else self.chance.choice(ROUTES)
            yield place, chain, name, indexes[name]
        if self.chance.random() < 0.3:  # several redirects to one
            name = self.chance.choice(names)
            yield self.chance.choice(("block", "net3")), 0, name, indexes[name]

    def _find(self, name):
        (reply,) = self.connection.ask(link.find(name))
        return link.only(reply).ifindex

    def _new(self, place, chain, tap, ifindex):
        priority = next(self._priorities)
        if self.chance.random() < 0.5:
            priority += CROWDED  # listed after the crowd
        return Entry(place, chain, priority, tap=tap, ifindex=ifindex)

    def _request(self, entry):
        return add_redirect(self._places[entry.place], *entry.key[1:], entry.ifindex)

    # ------------------------------------------------------------ what the second rival does

    def _plan(self, names):
        """Choose its acts: each a delay, a kind and arguments. `_made` is what each makes."""
        self._acts, self._made = [], []
        self._unused = list(self._entries)
        self.chance.shuffle(self._unused)
        count = self.chance.choice((0, 1, 2, 3, 5))
        for number in range(count):
            delay = self.chance.uniform(0, 2.0 * self.lead() / count)
            kind, place, chain, priority, more, made = self._act(names, 100 + number)
            arguments = [self._places[place], chain, priority] + more
            if kind == "requeue":
                del arguments[1]
            self._acts.append((delay, kind, arguments))
            self._made.append(made)

    def _act(self, names, number):
        """One act; a redirect is acted on once at most."""
        kind = self.chance.choice(
            ("foreign", "foreign", "redirect", "redirect", "weed", "requeue")
            + ("join", "beside", "replace", "unredirect") * bool(self._unused)
        )
        place, chain = self.chance.choice(list(PLACES)), self.chance.choice((0, 0, 0, 4))
        priority = next(self._priorities)
        redirects = {each.key for each in self._entries}
        foreign = [each for each in self._made if each is not None and each.number]
        foreign = [each for each in foreign if each.key not in redirects]
        if kind == "redirect":
            name = self.chance.choice(names)
            made = Entry(place, chain, priority, tap=name)
            return kind, place, chain, priority, [name], made
        if kind == "weed" and foreign:
            taken = self.chance.choice(foreign)
            self._made[self._made.index(taken)] = None
            return ("delete",) + taken.key + ([], None)
        if kind in ("join", "beside", "replace", "unredirect"):
            place, chain, priority = self._take(kind).key
            if kind == "unredirect":
                return "delete", place, chain, priority, [], None
            if kind == "beside":  # the kernel lists these together with the redirect's
                place, chain = (place, chain + 1) if place != "eth0 in" else ("eth0 out", 0)
        elif kind == "requeue":
            self._let_go("net3")
            place, chain = "net3", 0
        made = Entry(place, chain, priority, number=number)
        if kind not in ("replace", "requeue"):
            kind = "foreign"
        return kind, place, chain, priority, [number], made

    def _take(self, kind):
        """A redirect to act on. One that this deletes is not looked for any more."""
        entry = self._unused.pop()
        if kind in ("replace", "unredirect"):
            self._entries.remove(entry)
        return entry

    def _let_go(self, place):
        """Look no more for what is at a place, which the rival itself deletes."""
        self._entries = [each for each in self._entries if each.place != place]
        self._unused = [each for each in self._unused if each.place != place]
        self._made = [each if each and each.place != place else None for each in self._made]

    # ------------------------------------------------------------ a round

    def begin(self, kind):
        ours = super().begin(kind)
        self.gardener.begin(*self._acts)
        return ours

    def wait_until_set(self):
        super().wait_until_set()
        self.gardener.wait_until_set()

    def judge(self, act, deletes):
        super().judge(act, deletes)
        counts = self.outcome.counts
        for made, (began, done, ifindex) in zip(self._made, self.gardener.end()):
            counts["others'", "done" if done else "too late"] += 1
            if made is not None and done:
                made.since = (began, done)
                made.ifindex = made.ifindex or ifindex
                self._entries.append(made)
        with Connection(self.namespace) as connection:
            seen = Seen(connection, self._places)
            accepted = set()  # dead redirects that may stay
            for entry in self._entries:
                if entry.number is not None:
                    counts["foreign", self._judge_foreign(entry, deletes, seen)] += 1
                    continue
                counts["redirect", self._judge_redirect(entry, act, deletes, seen)] += 1
                if seen.what_became_of(entry) == "dead" and not PLACES[entry.place]:
                    accepted.add(entry.priority)
            self._clean_up_undisturbed(connection, seen, accepted)

    def _judge_foreign(self, entry, deletes, seen):
        if entry.number in seen.foreign:
            return "kept"
        if _is_excused(entry.since, deletes):
            return "lost in the window"
        return self.is_wrong("a foreign filter was lost", entry, deletes)

    def _judge_redirect(self, entry, act, deletes, seen):
        """What became of a redirect: it stays with its TAP, and goes with it."""
        state, is_there = seen.what_became_of(entry), entry.ifindex in seen.links
        with_links = [each for each in deletes if each.has_links]
        # filters in chains go in a datagram of their own, if an `ingress` may go then
        first = [each for each in deletes if not each.has_links] if entry.chain else []
        is_made_again = act.kind in ("recreate", "reuse") and act.tap == entry.tap
        if is_made_again or entry.ifindex != self._indexes[entry.tap]:
            # the rival deleted the former TAP of that name, or made one, which is gone in the end
            if state != "gone" or not 0 < act.done < entry.since[0]:
                return "with a rival's TAP"
        elif state == "live" and is_there:
            return "live"
        elif not is_there:
            if state == "gone":
                return "gone with its TAP"
            if _is_excused(entry.since, with_links):
                return "dead in the window"
            return self.is_wrong("a redirect was left dead", entry, act, deletes)
        if _is_excused(entry.since, deletes):
            return "lost in the window"
        is_renamed = act.kind == "rename" and act.tap == entry.tap
        if first and (self.report.outcome == "failed" or is_renamed):
            return "gone before its TAP was kept"
        return self.is_wrong("a redirect was lost", entry, act, deletes, self.report)

    def _clean_up_undisturbed(self, connection, seen, accepted):
        """Clean up once more: the uplinks have no dead redirect then. Take away what is left."""
        report = nlraw.cleanup(netns=self.pod.path, uplink=NICS)
        self.outcome.counts["last run", report.outcome] += 1
        last = Seen(connection, self._places)
        left = [name for name in last.links.values() if name.endswith("_urunc")]
        dead, lost = last.dead() - accepted, seen.foreign - last.foreign
        if left or dead or lost:
            self.is_wrong("after the last run: left, dead, lost", left, dead, lost, report)
        requests = [
            delete_priority(self._places[place], chain, priority)
            for place, chain, priority in last.keys
        ]
        connection.change(*requests + [rivals.delete_ingress(self._net3)])

    def finish(self):
        after = self.pod.state()
        if after != self.before:
            differ = [part for part in after if after[part] != self.before[part]]
            self.is_wrong("the pod is not as before", [after[part] for part in differ])


def _is_excused(since, deletes):
    """True if what was made then can have been missed, and so lost, by a deletion."""
    return any(each.confirmed < since[1] and since[0] < each.ended for each in deletes)
