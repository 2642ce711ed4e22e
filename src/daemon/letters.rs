//! The events of a state folder behind the commands, straight on the database. No daemon is needed; one that runs is woken, and looks.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};

use super::build::read_ledger;
use super::deliveries::DATABASE;
use super::{socket, tree};
use crate::adapters::clock::SystemClock;
use crate::adapters::deliveries::Delivered;
use crate::cli::engine::{Letters, LettersQuery, Place, Which};
use crate::cli::exit::Failure;
use crate::model::delivery_output::{DeliveryDetail, DeliveryLine};
use crate::model::exit::Exit;
use crate::model::id::Name;
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

    fn replay(&self, which: Which<'_>) -> Result<Vec<String>, Failure> {
        self.change(which, |pick| Act::Replay { pick, at: SystemClock.wall() })
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
