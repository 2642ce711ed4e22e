//! What is seen of all connections and vaults, once a tick.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::inputs::{Inputs, Unusable};
use super::plan::{AtSink, Stuck};
use super::record::Place;
use crate::kinds::trigger::{Address, Vault};
use crate::model::id::Name;
use crate::ports::bearers::Holdings;
use crate::ports::deliveries::Tally;
use crate::ports::hub::Wiring;
use crate::ports::probes::Ask;

/// All of them.
#[derive(Clone, Debug)]
pub struct Seen {
    /// What each declared connection comes to.
    pub inputs: BTreeMap<Name, Result<Inputs, Unusable>>,
    /// What the hub is told of connections that are owned, and that no document declares at this moment.
    pub kept: BTreeMap<Name, Wiring>,
    /// Every trigger that they want now, and whose it is.
    pub wished: BTreeMap<Place, Name>,
    /// Services that are declared or owned.
    pub services: BTreeSet<Name>,
    /// What each vault that matters says.
    pub vaults: BTreeMap<Address, Vault>,
    /// Tokens, or why nothing is known of them.
    pub holdings: Result<Rc<Holdings>, String>,
    /// The live tokens of each connection.
    pub own: BTreeMap<Name, Vec<String>>,
    /// Whether sinks have what they were told.
    pub at_sink: BTreeMap<Name, AtSink>,
    /// How events stand.
    pub tallies: BTreeMap<Name, Tally>,
    /// Notes whose event never arrived.
    pub stuck: BTreeMap<Name, Stuck>,
    /// The commands that make and remove each vault, or why there is none.
    pub commands: BTreeMap<Name, Commands>,
    /// This process has only begun to look: a vault may not know our keys yet.
    pub young: bool,
    /// Connections that are to get another token.
    pub renew: BTreeSet<Name>,
}

/// How a vault is made and removed.
#[derive(Clone, Debug)]
pub struct Commands {
    pub create: Result<Ask, String>,
    pub remove: Result<Ask, String>,
}
