//! The events of a state folder behind the commands, straight on the database. No daemon is needed; one that runs is woken, and looks.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::build::read_ledger;
use super::deliveries::DATABASE;
use super::{build, socket, tree};
use crate::adapters::clock::SystemClock;
use crate::adapters::deliveries::Delivered;
use crate::cli::engine::{ChangedEvents, Letters, LettersQuery, Place, Which};
use crate::cli::exit::Failure;
use crate::cli::names;
use crate::model::delivery_output::{DeliveryDetail, DeliveryLine};
use crate::model::exit::Exit;
use crate::model::id::{KindName, Name};
use crate::ports::clock::Clock;
use crate::ports::deliveries::{Act, Bounds, DeliveryStore, Done, LetterQuery, Pick, Stage, event_id, parse_event_id};
use crate::ports::letters as lines;

/// Ids that a shell is offered.
const MOST_OFFERED: usize = 200;

/// The events of one state folder. Nothing is opened before it is needed.
pub(super) struct Local {
    place: Place,
    looking: OnceCell<Option<Delivered>>,
}

impl Local {
    pub(super) fn new(place: &Place) -> Self {
        Self { place: place.clone(), looking: OnceCell::new() }
    }

    fn path(&self) -> PathBuf {
        self.place.state.join(DATABASE)
    }

    /// The state must be this tree's.
    fn admit(&self) -> Result<(), Failure> {
        match tree::foreign(&self.place, &*read_ledger(&self.place.state)?)? {
            Some(foreign) => Err(foreign.refuse()),
            None => Ok(()),
        }
    }

    /// For looking; `None` when there never was a durable connection.
    fn look(&self) -> Result<Option<&Delivered>, Failure> {
        if let Some(looking) = self.looking.get() {
            return Ok(looking.as_ref());
        }
        self.admit()?;
        let store = Delivered::look(&self.path(), Bounds::default()).map_err(broken)?;
        Ok(self.looking.get_or_init(|| store).as_ref())
    }

    /// What is to be replayed, by its connection: one event of each.
    fn meant(&self, which: Which<'_>) -> Result<BTreeMap<Name, u64>, Failure> {
        let mut meant = BTreeMap::new();
        let Some(store) = self.look()? else { return Ok(meant) };
        match which {
            Which::AllDead(connection) => {
                let (connection, stage) = (Some(connection.clone()), Some(Stage::Dead));
                let query = LetterQuery { connection, stage, before: None, limit: 1 };
                let dead = store.list(&query).map_err(broken)?;
                meant.extend(dead.into_iter().map(|letter| (letter.connection, letter.seq)));
            }
            Which::Ids(ids) => {
                for id in ids {
                    let found = store.find(seq(id)?).map_err(broken)?;
                    let open = found.filter(|(letter, _)| matches!(letter.stage, Stage::Waiting | Stage::Dead));
                    meant.extend(open.map(|(letter, _)| (letter.connection, letter.seq)));
                }
            }
        }
        Ok(meant)
    }

    /// Refuses what nobody would deliver; what is to be said when that is not known.
    fn deliverable(&self, which: Which<'_>) -> Result<Option<String>, Failure> {
        let mut meant = self.meant(which)?;
        if meant.is_empty() {
            return Ok(None);
        }
        let heads = names::heads(&build::manifests(&self.place)?);
        for head in heads.iter().filter(|head| head.kind == KindName::Connection.as_str()) {
            meant.retain(|name, _| name.as_str() != head.metadata.name);
        }
        // A file that cannot be read right now is no reason.
        let owned = read_ledger(&self.place.state)?.owned().map_err(anyhow::Error::from)?;
        let known = |name: &Name| owned.keys().any(|id| id.kind == KindName::Connection && id.name == *name);
        let Some((connection, seq)) = meant.into_iter().find(|(name, _)| !known(name)) else { return Ok(None) };
        if heads.is_empty() && !socket::answers(&self.place.state) {
            return Ok(Some(format!(
                "no manifest is here; events of '{connection}' wait until 'trueup reconcile' serves a durable connection of that name"
            )));
        }
        let id = event_id(seq);
        Err(Failure::new(
            Exit::Error,
            format!(
                "there is no connection '{connection}' any more, so nobody would deliver '{id}'; nothing was replayed"
            ),
        )
        .hint(format!("'trueup deliveries show {id}' shows its body; 'trueup deliveries discard' throws it away")))
    }

    fn change(&self, which: Which<'_>, act: fn(Pick) -> Act) -> Result<Vec<String>, Failure> {
        self.admit()?;
        if !self.path().exists() {
            return Ok(Vec::new());
        }
        let pick = match which {
            Which::AllDead(connection) => Pick::AllDead(connection.clone()),
            Which::Ids(ids) => Pick::Seqs(ids.iter().map(|id| seq(id)).collect::<Result<_, _>>()?),
        };
        let store = Delivered::open(&self.path(), Bounds::default()).map_err(broken)?;
        let done = store.write(&[act(pick)]).map_err(broken)?;
        // Its next look would find it too.
        socket::wake(&self.place.state);
        match done.into_iter().next() {
            Some(Done::Changed(changed)) => Ok(changed.iter().map(|row| event_id(row.seq)).collect()),
            _ => Ok(Vec::new()),
        }
    }
}

fn broken(why: String) -> Failure {
    Failure::new(Exit::Error, why)
}

fn seq(id: &str) -> Result<u64, Failure> {
    parse_event_id(id).ok_or_else(|| {
        Failure::new(Exit::Usage, format!("'{id}' is not the id of an event"))
            .hint("an id is like e000001a; 'trueup deliveries list' lists them")
    })
}

impl Letters for Local {
    fn list(&self, query: &LettersQuery<'_>) -> Result<Vec<DeliveryLine>, Failure> {
        let Some(store) = self.look()? else { return Ok(Vec::new()) };
        let mut letters = Vec::new();
        let stages: Vec<Option<Stage>> = match query.states {
            [] => vec![None],
            states => states.iter().map(|state| Stage::parse(state)).collect(),
        };
        for stage in stages {
            let connection: Option<Name> = query.connection.clone();
            let wanted = LetterQuery { connection, stage, before: None, limit: query.limit };
            letters.extend(store.list(&wanted).map_err(broken)?);
        }
        letters.sort_by_key(|letter| std::cmp::Reverse(letter.seq));
        letters.truncate(query.limit);
        Ok(letters.iter().map(lines::line).collect())
    }

    fn show(&self, id: &str) -> Result<DeliveryDetail, Failure> {
        let seq = seq(id)?;
        let found = match self.look()? {
            Some(store) => store.find(seq).map_err(broken)?,
            None => None,
        };
        let (letter, body) = found.ok_or_else(|| {
            Failure::new(Exit::Error, format!("there is no event '{id}'"))
                .hint("'trueup deliveries list --only all' lists them; what was delivered is forgotten after 24 hours")
        })?;
        Ok(lines::detail(&letter, body.as_deref()))
    }

    fn replay(&self, which: Which<'_>) -> Result<ChangedEvents, Failure> {
        let note = self.deliverable(which)?;
        let changed = self.change(which, |pick| Act::Replay { pick, at: SystemClock.wall() })?;
        Ok((changed, note))
    }

    fn discard(&self, which: Which<'_>) -> Result<Vec<String>, Failure> {
        self.change(which, |pick| Act::Discard { pick, at: SystemClock.wall() })
    }
}

/// Ids of events that wait or are dead, for shell completion; none when they cannot be read.
pub(super) fn offered(state: &Path) -> Vec<String> {
    let Ok(Some(store)) = Delivered::look(&state.join(DATABASE), Bounds::default()) else { return Vec::new() };
    let of = |stage| {
        let query = LetterQuery { stage: Some(stage), limit: MOST_OFFERED, ..LetterQuery::default() };
        store.list(&query).unwrap_or_default()
    };
    let both = [Stage::Dead, Stage::Waiting].into_iter().flat_map(of);
    both.take(MOST_OFFERED).map(|letter| event_id(letter.seq)).collect()
}
