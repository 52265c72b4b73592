"""Who acts in a world, by what its plan has switched on: until the faults end, or beyond."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from tests.simulation.actors.earlier_keys import run_earlier_keys
from tests.simulation.actors.enrolment import run_joining
from tests.simulation.actors.groups import run_group_changes, watch_groups
from tests.simulation.actors.hostile import run_hostile
from tests.simulation.actors.large_commands import run_large_commands
from tests.simulation.actors.operators import run_absences, run_group_cancels, run_last_words, run_operator, run_poster
from tests.simulation.actors.room import run_room_maker
from tests.simulation.actors.rotation import run_rotation
from tests.simulation.actors.thieves import run_thief
from tests.simulation.actors.upgrades import run_upgrades
from tests.simulation.checks.listings import run_listings
from tests.simulation.checks.overdue import run_silent_agent
from tests.simulation.checks.pruning import run_leavers
from tests.simulation.checks.readiness import run_drains, run_health_checks
from tests.simulation.forms.foreign import run_foreign_writer

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["start_actors"]


def start_actors(world: World, others: trio.Nursery, busy: trio.Nursery) -> None:
    """``busy``: those who end by themselves, with the faults or with their news; ``others``: those who are
    cancelled."""
    features, seconds = world.plan.features, world.plan.seconds
    for agent in world.agents:
        busy.start_soon(agent.work)
    for number in range(world.plan.hostile):
        busy.start_soon(run_hostile, world, number, seconds)
    busy.start_soon(run_operator, world, seconds)
    if features.rotates:
        busy.start_soon(run_rotation, world, seconds)
    if features.expires_late:
        busy.start_soon(run_absences, world, seconds)
    if features.last_words:
        busy.start_soon(run_last_words, world, seconds)
    if features.cancels_groups:
        busy.start_soon(run_group_cancels, world, seconds)
    if features.listings:
        busy.start_soon(run_listings, world, seconds)
    if features.global_ids:
        busy.start_soon(world.contested.run, seconds)
    if features.foreign_writers:
        busy.start_soon(run_foreign_writer, world, seconds)
    if features.large_commands:
        busy.start_soon(run_large_commands, world, seconds)
    if features.set_groups:
        others.start_soon(watch_groups, world)
        busy.start_soon(run_group_changes, world, seconds)
    if features.earlier_keys:
        busy.start_soon(run_earlier_keys, world, seconds)
    if features.changing_files:
        busy.start_soon(world.files.change, seconds)
    if features.small_shares:
        others.start_soon(run_room_maker, world)
    if features.full_quarantine:
        others.start_soon(world.fillers.run)
    if features.health_checks:
        others.start_soon(run_health_checks, world)
        busy.start_soon(run_drains, world, seconds)
    if features.upgrades:
        busy.start_soon(run_upgrades, world, seconds)
    if features.crowd:
        others.start_soon(world.crowd.come, seconds)
    if features.silent_agent:
        others.start_soon(run_silent_agent, world)
    if features.floods:
        busy.start_soon(world.floods.run, seconds)
    if features.at_once:
        others.start_soon(world.at_once.run, seconds)
    if features.small_quota:
        others.start_soon(world.quota.run_operator)
    if features.small_events:
        others.start_soon(world.event_quota.run_operator)
    if features.tails:
        others.start_soon(world.tail.run)
        others.start_soon(world.tail.watch)
    if features.prunes:
        busy.start_soon(run_leavers, world, seconds)
    if features.thieves:
        others.start_soon(run_thief, world, seconds)
    if features.enrols:
        busy.start_soon(run_joining, world, others, seconds)
    others.start_soon(run_poster, world, seconds)
