# SPDX-License-Identifier: Apache-2.0
"""What a cleanup does to a pod of `podgen`, according to design.md section 2 alone.

This file makes no system call and imports nothing of nlraw. `predict` takes a pod and what `ip`
and `tc` list in it. It returns what has to go, what stays and what is reported. `podrun` builds the
pods and compares.

Verdicts are predicted from what was done to a TAP (opened, held, released), not from its carrier.
TC state is predicted from the list before: the list after has to be that list without what goes.

Where the contract leaves a case open, both results are right, but the dry run, the report and the
state after have to agree. `OPEN` names these cases.
"""

import copy
from collections import namedtuple

from .podgen import IN_USE_STATES, U32, Chain, Tap, matches

OPEN = {
    "explicit-chain": "The last filter of a chain that somebody created explicitly goes. The kernel"
    " does not list who created a chain: the qdisc may be judged empty or not.",
    "egress-dead": "A dead redirect of the runtimes' shape on the egress side of an uplink's"
    " clsact. Runtimes put theirs on the ingress side; 2.2, 4 names no side.",
    "table-dead": "A dead match-all redirect in a u32 table that is not a root table. It sees only"
    " what another filter passes on.",
    "table-last": "The last u32 filter of a place goes, and somebody's empty u32 table is beside"
    " it. The kernel may take the table along; the order of the deletions decides (u32_delete()).",
    "classful": "A redirect to an orphan in a classful qdisc of another device. 2.2, 3 names"
    " ingress and clsact, and says that the search is as wide as the deletion.",
    "kept-tap-ingress": "--keep-in-use: the ingress of a kept TAP is emptied by the removal of a"
    " redirect to an orphan.",
    "kept-empty-ingress": "--keep-in-use: an empty ingress on an uplink, beside an orphan and a"
    " kept TAP. It may belong to either.",
    # not counted: "ignored" may name a matching uplink or not; "dev" of a filter in a shared block
    # is anything; what goes along with a qdisc of an orphan may be listed or not
}

# ---------------------------------------------------------------- what is listed

# links, routes: as `ip` lists them, less what lags. qdiscs: {(dev, kind, handle, parent): rest}.
# classes: {dev: text}. places: {place: Place}.
State = namedtuple("State", "links routes qdiscs classes places")


class Place:
    """What is attached at one place.

    ``chains``: the spots that are listed. ``priorities``: (spot, pref, protocol, kind). ``items``:
    filters and u32 tables, {(spot, pref, handle): content}, each where it was added.
    """

    def __init__(self, chains, priorities, items):
        self.chains = set(chains)
        self.priorities = set(priorities)
        self.items = items

    def fields(self):
        return {"chains": self.chains, "priorities": self.priorities, "items": self.items}

    def __eq__(self, other):
        return self.fields() == other.fields()

    __hash__ = None


def device_of(place):
    """The device of a place; the number of a block."""
    return place[0] if isinstance(place, tuple) else place


def is_table(content):
    return "ht_divisor" in content


def is_root_table(key):
    return int(key[2].rstrip(":"), 16) >= 0x800  # gen_new_htid() (net/sched/cls_u32.c)


def redirects(content):
    return [
        action["to_dev"]
        for action in content.get("actions", ())
        if action["kind"] == "mirred" and action["mirred_action"] == "redirect"
    ]


PLAIN_U32 = set("kind fh order key_ht bkt flowid not_in_hw match actions".split())


def has_runtime_shape(content, protocol):
    """True for a match-all filter whose only action is a mirred egress redirect, stolen."""
    actions = content.get("actions", ())
    return (
        content["kind"] == U32
        and protocol == "all"
        and set(content) <= PLAIN_U32  # no mark (CONFIG_CLS_U32_MARK), no link to a table
        and all(match.get("mask") == "0" for match in content.get("match", ()))
        and len(actions) == 1
        and actions[0]["kind"] == "mirred"
        and (actions[0]["mirred_action"], actions[0]["direction"]) == ("redirect", "egress")
        and actions[0]["control_action"] == {"type": "stolen"}
    )


def is_dead(content):
    return "*" in redirects(content)


# ---------------------------------------------------------------- the prediction

# An entry of `tc_removed`. dev is None for a filter in a shared block.
Removed = namedtuple("Removed", "dev object kind priority")


class Prediction:
    """What `cleanup` does to a pod, and what it reports."""

    def __init__(self):
        self.outcomes = set()  # those of the run that are right
        self.exit = 0
        self.verdicts = {}  # {TAP: (verdict, fresh)}
        self.optional_taps = set()  # may be left out of the report
        self.ignored = {}  # {link: kind}
        self.uplinks = []  # may be left out of the ignored links
        self.orphans = set()  # to be deleted
        self.dead = []  # (dev, kind, pref) of dead redirects that are reported when they are left
        self.uplink = None  # that of the report; None if the contract leaves it open
        self.filters = set()  # (place, key)
        self.qdiscs = set()  # keys of `State.qdiscs`, without what the orphans carry
        self.open = {}  # {("filter" or "table", place, key) or ("qdisc", key): name in OPEN}

    def changes(self):
        return bool(self.orphans or self.filters or self.qdiscs)


def predict(pod, before):
    """What a cleanup of the pod has to do, with ``before`` as the list of what is there."""
    found = Prediction()
    taps = _judge(pod, before, found)
    uplinks = _existing_uplinks(pod, before)
    found.uplinks = uplinks or []
    if uplinks is None:
        found.outcomes = {"skipped"}
        return found
    if len(uplinks) == 1 and len(pod.uplinks) == 1:
        found.uplink = uplinks[0]
    dead = _dead_redirects(before, uplinks)
    in_use = {name for name in taps if found.verdicts[name][0] == "in-use"}
    orphans = set(taps) - in_use
    if in_use:
        found.dead = [
            (place, before.places[place].items[key]["kind"], key[1])
            for place, key in dead
            if key[0][0] == "ingress"
        ]
    if in_use and not pod.options.keep_in_use:
        found.outcomes, found.exit = {"in-use"}, 3
        return found

    found.orphans = orphans
    for place, listed in before.places.items():
        for key, content in listed.items.items():
            if not set(redirects(content)) & orphans or device_of(place) in orphans:
                continue
            if isinstance(place, tuple):
                found.open["filter", place, key] = "classful"
            else:
                found.filters.add((place, key))
    for place, key in dead if not in_use else ():
        if place in orphans or (place, key) in found.filters:
            continue
        if key[0][0] == "egress":
            found.open["filter", place, key] = "egress-dead"
        elif not is_in_root_table(key):
            found.open["filter", place, key] = "table-dead"
        else:
            found.filters.add((place, key))
    for place in {place for place, _ in found.filters} | {each[1] for each in found.open}:
        _judge_tables(before, found, place)
    for key in before.qdiscs:
        _judge_ingress(pod, before, found, key, uplinks, in_use)
    found.outcomes = {"cleaned"} if found.changes() else {"clean"}
    if found.open and not found.changes():
        found.outcomes = {"clean", "cleaned"}
    if in_use and not found.changes():
        found.outcomes |= {"in-use"}  # --keep-in-use: 2.2 has no word for it
    return found


def _judge(pod, before, found):
    """Fill in the verdicts; return the names of the TAPs that a cleanup may not ignore."""
    exclude = pod.options.exclude or ()
    held = {tap.name: tap for tap in pod.facts(Tap)}
    taps = []
    for name, link in before.links.items():
        if not matches(name, pod.match):
            continue
        info = link.get("linkinfo", {})
        if info.get("info_kind") != "tun" or info["info_data"]["type"] != "tap":
            if not matches(name, exclude):
                found.ignored[name] = info.get("info_kind")
            continue
        is_stacked = any(other.get("link") == name for other in before.links.values())
        tap = held.get(name, Tap(name, "fresh", False, False))  # gone0, if it is left by `shrink`
        in_use = tap.state in IN_USE_STATES or is_stacked
        if tap.state == "carrier-off" and tap.multi_queue:
            in_use = True  # its queue is seen; of a single-queue TAP nothing is (section 3, 4)
        is_fresh = not in_use and tap.state == "fresh"
        found.verdicts[name] = ("in-use" if in_use else "orphan", is_fresh)
        if matches(name, exclude):
            found.optional_taps.add(name)
        else:
            taps.append(name)
    return taps


def _existing_uplinks(pod, before):
    """The named uplinks that exist; [] if none is required; None if that means "skipped"."""
    if pod.uplinks == ("none",):
        return []
    if pod.uplinks == ("auto",):
        defaults = [
            (route.get("metric", 0), route["dev"])
            for route in before.routes
            if route["dst"] == "default" and route.get("table", "main") == "main"
        ]
        return [min(defaults)[1]] if defaults else None
    return [name for name in pod.uplinks if name in before.links] or None


def _dead_redirects(before, uplinks):
    """Dead redirects of the runtimes' shape on the uplinks, as (place, key)."""
    return [
        (place, key)
        for place, listed in before.places.items()
        if place in uplinks
        for key, content in listed.items.items()
        if is_dead(content) and has_runtime_shape(content, protocol_of(listed, key))
    ]


def is_in_root_table(key):
    return int(key[2].split(":")[0], 16) >= 0x800


def _judge_tables(before, found, place):
    """Note the tables that somebody made and that may go with the last u32 filter."""
    may_go = {key for where, key in found.filters if where == place}
    may_go |= {each[2] for each in found.open if each[:2] == ("filter", place)}
    u32 = {key: each for key, each in before.places[place].items.items() if each["kind"] == U32}
    if all(key in may_go for key, each in u32.items() if not is_table(each)):
        for key, each in u32.items():
            if is_table(each) and not is_root_table(key):
                found.open["table", place, key] = "table-last"


def _judge_ingress(pod, before, found, key, uplinks, in_use):
    """Decide whether an ingress qdisc goes."""
    dev, kind = key[:2]
    if kind != "ingress" or dev in found.orphans or "ingress_block" in before.qdiscs[key]:
        return
    listed = before.places[dev]
    gone = {item for place, item in found.filters if place == dev}
    maybe = {each[2] for each in found.open if each[:2] == ("filter", dev)}
    tables = {each[2] for each in found.open if each[:2] == ("table", dev)}
    kept = [
        item
        for item, content in listed.items.items()
        if item not in gone and not (is_table(content) and is_root_table(item))
    ]
    explicit = {chain.spot for chain in pod.facts(Chain) if chain.place == dev} & listed.chains
    touched = {item[0] for item in gone | maybe}
    if set(kept) - tables or explicit - touched:
        return
    if kept:
        found.open["qdisc", key] = "table-last"
    elif gone:
        if explicit:
            found.open["qdisc", key] = "explicit-chain"
        elif dev in in_use:
            found.open["qdisc", key] = "kept-tap-ingress"
        else:
            found.qdiscs.add(key)
    elif dev in uplinks and found.orphans:
        if in_use:
            found.open["qdisc", key] = "kept-empty-ingress"
        else:
            found.qdiscs.add(key)


def protocol_of(listed, key):
    (found,) = [each[2] for each in listed.priorities if each[:2] == key[:2]]
    return found


# ---------------------------------------------------------------- the state after


# What goes besides the orphans. filters, tables: (place, key); qdiscs: keys of `State.qdiscs`.
Gone = namedtuple("Gone", "filters tables qdiscs")


def settle(found, after):
    """Decide the open cases by what really went."""
    filters, tables, qdiscs = set(found.filters), set(), set(found.qdiscs)
    for each in found.open:
        if each[0] == "qdisc":
            if each[1] not in after.qdiscs:
                qdiscs.add(each[1])
        elif each[1] not in after.places or each[2] not in after.places[each[1]].items:
            (filters if each[0] == "filter" else tables).add(each[1:])
    return Gone(filters, tables, qdiscs)


def expected_state(pod, before, found, gone):
    """The list of what is there without the orphans and what else is gone."""
    orphans = found.orphans
    links = {
        name: copy.deepcopy(link) for name, link in before.links.items() if name not in orphans
    }
    routes = [route for route in before.routes if route.get("dev") not in orphans]
    kept = {
        key: rest
        for key, rest in before.qdiscs.items()
        if key[0] not in orphans and key not in gone.qdiscs
    }
    blocks = {rest[side] for rest in kept.values() for side in BLOCK_SIDES if side in rest}
    emptied = {key[0] for key in gone.qdiscs}
    places = {}
    for place in before.places:
        is_there = place in blocks if isinstance(place, int) else device_of(place) not in orphans
        if is_there and place not in emptied:
            lost = {key for where, key in gone.filters | gone.tables if where == place}
            places[place] = _without(pod, before, place, lost, orphans)
    classes = {dev: text for dev, text in before.classes.items() if dev not in orphans}
    return State(links, routes, kept, classes, places)


BLOCK_SIDES = ("ingress_block", "egress_block")


def _without(pod, before, place, gone, orphans):
    """A place after some of its filters are gone."""
    listed = before.places[place]
    left = {key: content for key, content in listed.items.items() if key not in gone}
    priorities = set(listed.priorities)
    emptied = set()
    for spot, pref in {key[:2] for key in gone}:
        others = [key for key in left if key[:2] == (spot, pref)]
        if all(is_table(left[key]) and is_root_table(key) for key in others):
            # the priority goes, and its root table with it
            priorities = {each for each in priorities if each[:2] != (spot, pref)}
            left = {key: content for key, content in left.items() if key not in others}
            emptied.add(spot)
    emptied -= {each[0] for each in priorities}
    emptied -= {each.spot for each in pod.facts(Chain) if each.place == place}
    return Place(listed.chains - emptied, priorities, _retarget(left, orphans))


def _retarget(items, orphans):
    """What is left and leads to a deleted TAP leads to nothing."""
    items = copy.deepcopy(items)
    for content in items.values():
        for action in content.get("actions", ()):
            if action.get("to_dev") in orphans:
                action["to_dev"] = "*"
    return items


def removed(before, found, gone):
    """What `tc_removed` lists: (entries that must be there, entries that may be there)."""
    must, may = [], []
    for place, key in sorted(gone.filters, key=repr):
        content = before.places[place].items[key]
        is_block = isinstance(place, int)
        carriers = {
            each[0]
            for each, rest in before.qdiscs.items()
            if is_block and place in [rest.get(side) for side in BLOCK_SIDES]
        }
        entry = Removed(None if is_block else device_of(place), "filter", content["kind"], key[1])
        # a block that only orphans carry ends with them
        (may if is_block and carriers <= found.orphans else must).append(entry)
    must += [Removed(key[0], "qdisc", key[1], None) for key in sorted(gone.qdiscs)]
    for key in sorted(before.qdiscs):
        dev, kind, handle, parent = key
        if dev in found.orphans and handle != "0:":
            is_child = parent not in ("root", "ffff:fff1")  # goes with its parent
            (may if is_child else must).append(Removed(dev, "qdisc", kind, None))
    for place, listed in before.places.items():
        if place in found.orphans:  # goes with the qdisc that the orphan carries
            for key, content in listed.items.items():
                if set(redirects(content)) & found.orphans:
                    may.append(Removed(place, "filter", content["kind"], key[1]))
    return must, may
