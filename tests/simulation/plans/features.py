"""What a seed's world has besides: each of these is in a part of the seeds, with a check of its own. Chance decides
apart for them, so that a further one changes no other seed's world."""

from __future__ import annotations

from random import Random
from typing import Final

from attrs import evolve, frozen

__all__ = ["Features", "choose_features", "with_needed"]


@frozen
class Features:
    """What is switched on."""

    thieves: bool = False  # hold a token of an agent, until its key changes
    wrong_clocks: bool = False  # agents' clocks are wrong by up to an hour
    scans: bool = False  # agents ask for vulnerability scans
    rotates: bool = False  # the operator changes the key of the tokens, and revokes the one before
    limits_change: bool = False  # reloads, each with other limits
    later_version: bool = False  # supervisor and workers say what the other end doesn't know
    enrols: bool = False  # agents join while everything goes on
    many_posts: bool = False  # a local program posts often, and gives up soon
    presence: bool = False  # agents go and come back after faults, and that is told
    large_commands: bool = False  # many commands at once, more than one reply holds, some of which none holds
    small_shares: bool = False  # a few refused events fill an agent's share of the quarantine
    set_groups: bool = False  # agents change their groups
    payload_files: bool = False  # what is refused for good goes into files of the quarantine
    upgrades: bool = False  # another version comes onto the nodes, one after the other, and goes again
    slow_disk: bool = False  # a write takes a while, in which others gather
    reports_again: bool = False  # agents report on a command a second time, something else
    last_words: bool = False  # the operator sends to all agents when faults end, and nothing comes after it
    held_claims: bool = False  # what agents are sent is held up, and their copies ask another worker
    struck_at_delivery: bool = False  # a node is told to stop, or without power, just when one is to be recorded
    removes_amid_faults: bool = False  # the operator removes agents while the registry doesn't always answer
    dies_with_rights: bool = False  # a worker does, just when it has claimed, or has the right to deliver
    revokes_copies: bool = False  # a key of the tokens is revoked while agents and their copies poll with such
    set_back: bool = False  # a clock is, just when commands have looked overdue, and nothing comes after them
    only_reloads: bool = False  # and requests that come slowly: nothing by which one isn't served
    settled_groups: bool = False  # after the faults agents leave groups, and ask for their files
    fails_last: bool = False  # commands can't be looked up while the last of them are sent
    changing_files: bool = False  # agents' files are replaced while they are read, in pieces
    earlier_keys: bool = False  # somebody has the key that an agent had before, and tries to log in
    small_bodies: bool = False  # bodies come in small pieces, and all of them are in the budget of bodies
    tool_killed: bool = False  # the operator's tool is, in the middle of what it does
    short_times: bool = False  # requests have little time
    route_limits: bool = False  # requests of an agent are limited
    prunes: bool = False  # what is old goes, of embedded stores, and a day is some seconds
    crowd: bool = False  # many agents log in at once, and each key takes a while
    small_quota: bool = False  # documents of embedded stores have little room, until an operator gives more
    small_room: bool = False  # few bodies have room, in memory and in files
    crossed_notes: bool = False  # one worker notes deliveries late, and agents' groups change twice meanwhile
    struck_once_answered: bool = False  # the power goes a moment after a call, once what it answered is known
    struck_after_operator: bool = False  # likewise, of what an operator does
    dies_with_claims: bool = False  # the only worker does, with what it has just claimed, and nothing comes after it
    expires_late: bool = False  # commands whose time is over can't be ended
    small_events: bool = False  # stateless events have little room, until an operator gives more, or the oldest go
    tails: bool = False  # an operator follows what embedded stores take, all the time
    refused_twice: bool = False  # a document has two events that are refused, in one request or in two
    cancels_groups: bool = False  # the operator cancels groups' commands: before, while or after they come
    only_hangs: bool = False  # workers hang, one at a time, while others serve, and there is no other fault
    floods: bool = False  # an agent asks far more often than it may, by the rates that all have
    silent_agent: bool = False  # it takes commands and reports on none, and a clock is ahead until faults end
    engine_busy: bool = False  # it has too much to do, and says so
    at_once: bool = False  # agents send several requests at once, also a second poll and log-ins
    total_limits: bool = False  # requests of all agents together are limited, by rates and in flight
    full_quarantine: bool = False  # others' events have filled all of it, until an operator drops them
    health_checks: bool = False  # balancers ask whether nodes are ready, which an operator drains now and then

    reports_begun: bool = False  # agents say that they have begun with a command, and later how it ended, or never
    many_forms: bool = False  # agents write their events in other forms than ours, and such as can't be used
    foreign_writers: bool = False  # another program writes into an indexer's agents and commands what isn't any
    global_ids: bool = False  # documents have the ids that agents say, and may be another agent's
    listings: bool = False  # the operator looks at all agents, a group's, and an agent's commands
    hard_starts: bool = False  # workers die, fail or hang while they start, nodes are stopped while they reload
    short_waits: bool = False  # peers that do nothing have little time
    leaves_at_claim: bool = False  # agents leave just when something is claimed for their polls
    refusing_indices: bool = False  # an indexer's index is blocked or closed for a while, or large calls are refused

    @property
    def reloads(self) -> bool:
        """Whether nodes do, whatever the faults are."""
        return self.rotates or self.upgrades or self.small_quota or self.small_events


#: The share of the seeds that have each.
_SHARES: Final = {
    "thieves": 0.3,
    "wrong_clocks": 0.2,
    "scans": 0.4,
    "rotates": 0.25,
    "limits_change": 0.4,
    "later_version": 0.2,
    "enrols": 0.3,
    "many_posts": 0.25,
    "presence": 0.04,
}
#: Likewise, of those that came later: what else is chosen by ``choose_features``' chance stays as it is.
_LATER_SHARES: Final = {
    "large_commands": 0.2,
    "small_shares": 0.2,
    "set_groups": 0.25,
    "upgrades": 0.2,
    "payload_files": 0.25,
    "slow_disk": 0.3,
    "reports_again": 0.2,
    "last_words": 0.3,
    "held_claims": 0.3,
    "struck_at_delivery": 0.3,
    "removes_amid_faults": 0.2,
    "dies_with_rights": 0.2,
    "revokes_copies": 0.08,
    "set_back": 0.1,
    "settled_groups": 0.08,
    "only_reloads": 0.08,
    "fails_last": 0.1,
    "changing_files": 0.15,
    "earlier_keys": 0.15,
    "small_bodies": 0.15,
    "route_limits": 0.15,
    "short_times": 0.15,
    "tool_killed": 0.15,
    "crowd": 0.06,
    "small_room": 0.15,
    "small_quota": 0.2,
    "prunes": 0.2,
    "crossed_notes": 0.15,
    "struck_once_answered": 0.3,
    "dies_with_claims": 0.15,
    "only_hangs": 0.06,
    "expires_late": 0.15,
    "small_events": 0.15,
    "tails": 0.3,
    "refused_twice": 0.2,
    "cancels_groups": 0.2,
    "health_checks": 0.25,
    "engine_busy": 0.2,
    "floods": 0.12,
    "silent_agent": 0.12,
    "hard_starts": 0.25,
    "at_once": 0.25,
    "full_quarantine": 0.12,
    "total_limits": 0.12,
    "reports_begun": 0.25,
    "many_forms": 0.35,
    "foreign_writers": 0.35,
    "global_ids": 0.15,
    "short_waits": 0.2,
    "leaves_at_claim": 0.15,
    "listings": 0.3,
    "refusing_indices": 0.35,
    "struck_after_operator": 0.25,
}


def choose_features(rng: Random, seed: int) -> Features:
    chosen = {name: rng.random() < share for name, share in _SHARES.items()}
    later = {name: Random(f"{name} {seed}").random() < share for name, share in _LATER_SHARES.items()}
    return Features(**chosen, **later)


def with_needed(features: Features, stores: str) -> Features:
    """What features need besides, and what would hide what they are for."""
    if features.dies_with_rights:
        features = evolve(features, many_posts=True)
    if features.full_quarantine:
        features = evolve(features, small_shares=True)
    if features.at_once:
        features = _with_at_once(features)
    if features.floods:
        features = evolve(features, route_limits=False)
    if features.revokes_copies:
        features = evolve(features, rotates=True)
    if features.settled_groups:
        features = evolve(features, set_groups=True)
    if features.crossed_notes:  # a version before notes what it is told, and others take an agent's commands
        features = evolve(features, set_groups=True, upgrades=False, thieves=False)
    if features.only_hangs:
        features = evolve(features, many_posts=True)
    if features.expires_late:  # of an indexer it is requests that fail, whatever they are for
        has_fault = stores != "indexer" and not (features.only_hangs or features.only_reloads)
        features = evolve(features, expires_late=has_fault)
    if features.prunes:  # an earlier version keeps no ages
        features = evolve(features, prunes=stores == "embedded" and not features.upgrades)
    if features.prunes:  # who was away for some of its days would have no documents any more
        features = evolve(features, removes_amid_faults=False)
    if features.small_quota:
        features = evolve(features, small_quota=stores == "embedded" and not features.upgrades)
    if features.at_once or features.small_quota or features.prunes or features.upgrades:
        features = evolve(features, global_ids=False)  # bodies that make the same, and shares, are of agents' own ids
    if stores != "indexer":
        features = evolve(features, foreign_writers=False, refusing_indices=False)
    if stores != "embedded":
        features = evolve(features, small_events=False, tails=False)
    if features.presence:  # what is told needs room
        features = evolve(features, small_events=False)
    if features.crowd:  # which goes at once, too, and that is told of all of it together
        features = evolve(features, short_times=True, presence=False)
    if features.only_reloads or features.only_hangs:
        features = evolve(features, hard_starts=False)
    if features.held_claims or features.only_reloads:  # by what is held up for longer
        features = evolve(features, short_waits=False)
    if features.short_waits:
        features = evolve(features, short_times=True)
    if features.small_room:
        features = evolve(features, small_bodies=True)
    if features.set_back:  # memory stores have a clock of their own
        features = evolve(features, set_back=stores != "memory")
    if features.set_back:
        features = evolve(features, last_words=True, limits_change=False, held_claims=False, fails_last=False)
    if features.fails_last:  # it is their own polls that last on
        features = evolve(features, last_words=True, limits_change=False, presence=False)
    if features.dies_with_claims:
        features = evolve(features, dies_with_claims=stores == "embedded" and not features.set_back)
    if features.dies_with_claims:
        features = evolve(features, last_words=True, limits_change=False, fails_last=False)
    if features.small_shares or features.small_events:  # bodies are small: too many for such rates, once they pile up
        features = evolve(features, total_limits=False)
    if features.small_shares or features.small_events or features.total_limits:  # such events are longer
        features = evolve(features, many_forms=False)
    return features


def _with_at_once(features: Features) -> Features:
    """Several bodies of an agent at once are what a share of the events is for, those most that gather while others are
    written; and where what nothing ends is waited for, a second poll ends it."""
    waits = (features.set_back, features.fails_last, features.dies_with_claims, features.crossed_notes)
    waits = (*waits, features.dies_with_rights, features.revokes_copies)
    if any(waits):
        return evolve(features, at_once=False)
    is_small = features.small_events or features.tails
    return evolve(features, small_events=is_small, slow_disk=features.slow_disk or is_small)
