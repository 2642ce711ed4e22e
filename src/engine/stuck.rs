//! Notes whose event never arrived: counted now and then, a vault at a time, and not in every tick.

use std::collections::BTreeMap;

use super::Engine;
use crate::kinds::connection::inputs::{Inputs, Unusable};
use crate::kinds::connection::plan::Stuck;
use crate::kinds::connection::spec::ConnectionSpec;
use crate::kinds::notes::{self, MOST_AT_ONCE, MOST_PAGES, PAGE, PATIENCE, StuckNote};
use crate::kinds::trigger::{Address, Vault};
use crate::model::id::Name;
use crate::model::time::{Tick, Timestamp};
use crate::model::unit::Millis;

/// How often the notes of a vault are looked through, when no connection wants it more often.
const USUAL: Millis = Millis::secs(300);
const MOST_OFTEN: Millis = Millis::secs(1);

/// When each vault was last looked through.
#[derive(Debug, Default)]
pub(super) struct Rounds(BTreeMap<Address, Tick>);

impl Rounds {
    /// What was done may have changed what is stuck there.
    pub(super) fn again(&mut self, at: &Address) {
        self.0.remove(at);
    }
}

/// A connection at a vault.
struct Watched<'a> {
    name: &'a Name,
    trigger: &'a str,
    after: Option<Millis>,
}

/// How often a vault is to be looked through for this connection.
pub(super) fn pace(spec: &ConnectionSpec) -> Millis {
    spec.rearm.as_ref().map_or(USUAL, |rearm| Millis(rearm.after.0 / 2).max(MOST_OFTEN).min(USUAL))
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
        let now = self.world.clock.now();
        for (at, vault) in vaults {
            let Vault::Present(triggers) = vault else { continue };
            let mut watched = Vec::new();
            let mut pace_of_all = USUAL;
            let mut port = None;
            for (name, inputs) in inputs {
                let Some(inputs) = inputs.as_ref().ok().filter(|inputs| inputs.at == *at) else { continue };
                let (Some(wire), Some(spec)) = (&inputs.wire, specs.get(name)) else { continue };
                if triggers.contains_key(&wire.trigger.name) {
                    pace_of_all = pace_of_all.min(pace(spec));
                    port = Some(inputs.vault_port);
                    let after = spec.rearm.as_ref().map(|rearm| rearm.after);
                    watched.push(Watched { name, trigger: &wire.trigger.name, after });
                }
            }
            let due = self.rounds.0.get(at).is_none_or(|last| (now - *last) >= pace_of_all);
            let Some(port) = port.filter(|_| due) else { continue };
            self.rounds.0.insert(at.clone(), now);
            // What cannot be read now is looked for the next time; until then the old count stands.
            if let Some(found) = self.search(at, port, &watched).await {
                for (watched, stuck) in watched.iter().zip(found) {
                    match stuck.notes {
                        0 => drop(self.memory.stuck.remove(watched.name)),
                        _ => drop(self.memory.stuck.insert(watched.name.clone(), stuck)),
                    }
                }
            }
        }
    }

    async fn search(&self, at: &Address, port: u16, watched: &[Watched<'_>]) -> Option<Vec<Stuck>> {
        let bearer = self.admin_token(at).ok()?;
        let wall = self.world.clock.wall();
        let mut found = vec![Stuck::default(); watched.len()];
        let by_trigger: BTreeMap<&str, usize> =
            watched.iter().enumerate().map(|(index, watched)| (watched.trigger, index)).collect();
        for number in 0..MOST_PAGES {
            let reply = self.world.peers.call(notes::page(port, at, &bearer, number)).await.ok()?;
            let page = notes::read_page(&reply)?;
            for (id, metadata) in &page {
                for (place, since) in notes::stuck_triggers(metadata) {
                    let Some(index) = by_trigger.get(place) else { continue };
                    count(&mut found[*index], id, since, watched[*index].after, wall);
                }
            }
            if page.len() < PAGE {
                break;
            }
            if number + 1 == MOST_PAGES {
                found.iter_mut().for_each(|stuck| stuck.more = true);
            }
        }
        for stuck in &mut found {
            // In the order in which they were sent.
            stuck.ripe.sort_by_key(|note| note.since);
            stuck.ripe.truncate(MOST_AT_ONCE);
        }
        Some(found)
    }
}

fn count(stuck: &mut Stuck, id: &str, since: Timestamp, after: Option<Millis>, now: Timestamp) {
    let age = Millis(u64::try_from(now.0 - since.0).unwrap_or_default());
    if age < after.unwrap_or(PATIENCE) {
        return;
    }
    stuck.notes += 1;
    if after.is_some() {
        stuck.ripe.push(StuckNote { id: id.to_owned(), since });
    }
}
