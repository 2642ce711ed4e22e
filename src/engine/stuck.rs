//! Notes whose event never arrived: counted now and then, a few pages at a time, and not in every tick.

use std::collections::BTreeMap;

use super::Engine;
use crate::kinds::connection::inputs::{Inputs, Unusable};
use crate::kinds::connection::plan::Stuck;
use crate::kinds::connection::spec::ConnectionSpec;
use crate::kinds::notes::{self, MOST_AT_ONCE, PAGE, PATIENCE, StuckNote};
use crate::kinds::trigger::{Address, Vault};
use crate::model::id::Name;
use crate::model::time::{Tick, Timestamp};
use crate::model::unit::Millis;
use crate::ports::PortError;

/// How often the notes of a vault are looked through, when no connection wants it more often.
const USUAL: Millis = Millis::secs(300);
const MOST_OFTEN: Millis = Millis::secs(1);
/// Pages that are read in one look; the others follow in the next ones.
const PAGES: usize = 4;
/// A look that took so long reads no further page.
const ENOUGH: Millis = Millis(500);
/// While a vault is looked through, the next look comes after this.
pub(super) const GOING_ON: Millis = Millis::secs(1);

/// How far each vault was looked through.
#[derive(Debug, Default)]
pub(super) struct Rounds(BTreeMap<Address, Round>);

#[derive(Debug, Default)]
struct Round {
    /// When the last one that was whole began; `None` before the first.
    last: Option<Tick>,
    /// When this one began; `None` between two.
    begun: Option<Tick>,
    /// The page that is read next.
    page: usize,
    /// What this one found so far, by trigger.
    found: BTreeMap<String, Stuck>,
}

impl Rounds {
    /// What was done may have changed what is stuck there.
    pub(super) fn again(&mut self, at: &Address) {
        self.0.remove(at);
    }

    /// A vault is being looked through.
    pub(super) fn is_going_on(&self) -> bool {
        self.0.values().any(|round| round.begun.is_some())
    }
}

/// A connection at a vault.
struct Watched<'a> {
    name: &'a Name,
    after: Option<Millis>,
    /// What is older was given up by everybody.
    oldest: Millis,
}

/// How often a vault is to be looked through for this connection.
pub(super) fn pace(spec: &ConnectionSpec) -> Millis {
    spec.rearm_after().map_or(USUAL, |after| Millis(after.0 / 2).max(MOST_OFTEN).min(USUAL))
}

impl Engine {
    /// Looks through the vaults whose time has come.
    pub(super) async fn look_for_stuck(
        &mut self,
        inputs: &BTreeMap<Name, Result<Inputs, Unusable>>,
        specs: &BTreeMap<&Name, &ConnectionSpec>,
        vaults: &BTreeMap<Address, Vault>,
    ) {
        self.memory.stuck.retain(|name, _| inputs.contains_key(name));
        self.rounds.0.retain(|at, _| vaults.contains_key(at));
        let now = self.world.clock.now();
        for (at, vault) in vaults {
            let Vault::Present(triggers) = vault else { continue };
            let mut watched: BTreeMap<&str, Watched<'_>> = BTreeMap::new();
            let (mut often, mut port) = (USUAL, None);
            for (name, inputs) in inputs {
                let Some(inputs) = inputs.as_ref().ok().filter(|inputs| inputs.at == *at) else { continue };
                let (Some(wire), Some(spec)) = (&inputs.wire, specs.get(name)) else { continue };
                if triggers.contains_key(&wire.trigger.name) {
                    often = often.min(pace(spec));
                    port = Some(inputs.vault_port);
                    let (after, oldest) = (spec.rearm_after(), spec.retry.max_age);
                    watched.insert(&wire.trigger.name, Watched { name, after, oldest });
                }
            }
            let Some(port) = port else { continue };
            let round = self.rounds.0.entry(at.clone()).or_default();
            if round.begun.is_none() {
                if round.last.is_some_and(|last| (now - last) < often) {
                    continue;
                }
                *round = Round { last: round.last, begun: Some(now), ..Round::default() };
            }
            self.read_on(at, port, &watched).await;
        }
    }

    /// Reads some pages; with the last one, what was found counts.
    async fn read_on(&mut self, at: &Address, port: u16, watched: &BTreeMap<&str, Watched<'_>>) {
        let Ok(bearer) = self.admin_token(at) else { return };
        let (begun, wall) = (self.world.clock.now(), self.world.clock.wall());
        for _ in 0..PAGES {
            let Some(round) = self.rounds.0.get(at) else { return };
            let answer = self.world.peers.call(notes::page(port, at, &bearer, round.page)).await;
            let now = self.world.clock.now();
            if matches!(answer, Err(PortError::Unsure(_))) {
                self.slow.note(at, true, now);
            }
            let page = answer.ok().and_then(|reply| notes::read_page(&reply));
            let Some(round) = self.rounds.0.get_mut(at) else { return };
            // What cannot be read now is looked for the next time; until then the old count stands.
            let Some(page) = page else {
                *round = Round { last: round.begun, ..Round::default() };
                return;
            };
            for (id, metadata) in &page {
                for (trigger, since) in notes::stuck_triggers(metadata) {
                    let Some(watched) = watched.get(trigger) else { continue };
                    count(round.found.entry(trigger.to_owned()).or_default(), id, since, watched, wall);
                }
            }
            round.page += 1;
            if page.len() < PAGE {
                let found = std::mem::take(&mut round.found);
                *round = Round { last: round.begun, ..Round::default() };
                self.note_stuck(watched, found);
                return;
            }
            if (now - begun) >= ENOUGH {
                return;
            }
        }
    }

    fn note_stuck(&mut self, watched: &BTreeMap<&str, Watched<'_>>, mut found: BTreeMap<String, Stuck>) {
        for (trigger, watched) in watched {
            match found.remove(*trigger).filter(|stuck| stuck.notes > 0) {
                None => drop(self.memory.stuck.remove(watched.name)),
                Some(mut stuck) => {
                    // In the order in which they were sent.
                    stuck.ripe.sort_by_key(|note| note.since);
                    stuck.ripe.truncate(MOST_AT_ONCE);
                    self.memory.stuck.insert(watched.name.clone(), stuck);
                }
            }
        }
    }
}

fn count(stuck: &mut Stuck, id: &str, since: Timestamp, watched: &Watched<'_>, now: Timestamp) {
    let age = Millis(u64::try_from(now.0 - since.0).unwrap_or_default());
    if age < watched.after.unwrap_or(PATIENCE) {
        return;
    }
    stuck.notes += 1;
    if watched.after.is_some() && age < watched.oldest {
        stuck.ripe.push(StuckNote { id: id.to_owned(), since });
    }
}
