//! Stories: what people, editors and bad luck do to the pretend world, and what must be true afterwards whatever they did.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::earth::{Earth, Page};
use super::fate::{Fate, Side};
use super::world::{block_on, pretend};
use crate::engine::report::Report;
use crate::engine::{Bell, Engine, EngineError, Mode, Until, Verdict, run::Watcher};
use crate::model::id::Name;
use crate::model::output::{StepLine, Summary};
use crate::model::unit::Millis;
use crate::ports::store::Store;

/// Longer than any chain of pauses in a story takes to heal (the longest pause is five minutes).
const PATIENCE: Millis = Millis(3_600_000);

/// A world, a fate, and a ledger that outlives engines.
pub struct Story {
    pub earth: Rc<RefCell<Earth>>,
    pub fate: Rc<Fate>,
    store: Box<dyn Fn() -> Rc<dyn Store>>,
    seed: u64,
}

struct Silent;
impl Watcher for Silent {
    fn step(&mut self, _: &StepLine) {}
    fn report(&mut self, _: &Report) {}
}

/// The documents of a story, as text.
pub fn hub() -> String {
    "apiVersion: trueup/v1\nkind: Hub\nmetadata: { name: home }\nspec: {}\n".to_owned()
}

/// A service that listens on a port.
pub fn service(name: &str, manner: &str, port: &str, value: u64, depends_on: Option<&str>) -> String {
    let depends = depends_on.map(|d| format!("  dependsOn: [ {{ service: {d} }} ]\n")).unwrap_or_default();
    let policy = match manner {
        "once" => "  restart: { policy: never }\n",
        "hangs" => "  liveness: { tcp: {} }\n",
        _ => "",
    };
    format!(
        "apiVersion: trueup/v1\nkind: Service\nmetadata: {{ name: {name} }}\nspec:\n  command: [ sim, {manner} ]\n  \
         port: {port}\n  registersAs: row-{name}\n  env: {{ VALUE: \"{value}\" }}\n{policy}{depends}"
    )
}

impl Story {
    /// `store` opens the ledger anew, as a new process does.
    pub fn new(seed: u64, store: Box<dyn Fn() -> Rc<dyn Store>>) -> Self {
        let earth = Rc::new(RefCell::new(Earth::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)));
        Self { earth, fate: Rc::new(Fate::default()), store, seed }
    }

    /// The same earth once more, with another ledger (a copy of this one's file): from here on the two go apart.
    pub fn fork(&self, store: Box<dyn Fn() -> Rc<dyn Store>>) -> Self {
        let earth = Rc::new(RefCell::new(self.earth.borrow().clone()));
        Self { earth, fate: Rc::new(Fate::default()), store, seed: self.seed }
    }

    /// Writes a file of the tree.
    pub fn write(&self, name: &str, text: &str) {
        let mut earth = self.earth.borrow_mut();
        earth.tree.get_or_insert_with(BTreeMap::new).insert(name.to_owned(), Page::Text(text.to_owned()));
    }

    /// Runs a fresh engine until it is settled, doomed, out of time, or dead.
    ///
    /// # Errors
    /// What the engine ended with (a death or an injected failure).
    pub fn run(&self, mode: Mode, timeout: Millis) -> Result<(Verdict, Report, Summary), String> {
        self.go(&mut self.engine(), mode, timeout)
    }

    /// An engine that goes on from run to run, as the continuous mode's does, and its bell.
    pub fn engine(&self) -> (Engine, Rc<dyn Bell>) {
        // Whoever moves blobs lives in the process of the engine.
        self.earth.borrow_mut().blobs.die();
        self.earth.borrow_mut().town.wish = None;
        let (world, bell) = pretend(&self.earth, &self.fate, (self.store)());
        (Engine::new(world), bell)
    }

    /// Lets an engine run until it is settled, doomed or out of time.
    ///
    /// # Errors
    /// What the engine ended with.
    pub fn go(
        &self,
        (engine, bell): &mut (Engine, Rc<dyn Bell>),
        mode: Mode,
        timeout: Millis,
    ) -> Result<(Verdict, Report, Summary), String> {
        block_on(engine.converge(&**bell, mode, Until { timeout, only: &[] }, &mut Silent)).map_err(|e| e.to_string())
    }

    /// A run of a fresh engine after a person asked it for something.
    ///
    /// # Errors
    /// As [`Story::run`], and what the request ended with.
    pub fn ask(
        &self,
        request: &dyn Fn(&mut Engine) -> Result<(), EngineError>,
        mode: Mode,
        timeout: Millis,
    ) -> Result<(Verdict, Report, Summary), String> {
        let mut pair = self.engine();
        request(&mut pair.0).map_err(|error| error.to_string())?;
        self.go(&mut pair, mode, timeout)
    }

    /// Lives once with this death and these failures, then comes back to a kind world and converges.
    pub fn live(&self, die: Option<(u64, Side)>, fail_per_mille: u64) -> Result<(Verdict, Report, Summary), String> {
        self.fate.reborn(die, fail_per_mille, self.seed);
        let _ = self.run(Mode::default(), Millis(30_000));
        self.fate.reborn(None, 0, self.seed);
        self.earth.borrow_mut().settle();
        self.check()?;
        let result = self.run(Mode::default(), PATIENCE)?;
        self.check()?;
        Ok(result)
    }

    /// Lets time go by, with whatever happens in it and nobody looking.
    pub fn pass(&self, span: Millis) {
        let end = self.earth.borrow().now + span;
        loop {
            let mut earth = self.earth.borrow_mut();
            let left = end - earth.now;
            if left.0 == 0 {
                return;
            }
            earth.advance(left);
        }
    }

    /// How often a service was started.
    pub fn starts(&self, name: &str) -> u64 {
        let name = Name::new(name).ok();
        name.and_then(|name| self.earth.borrow().starts.get(&name).copied()).unwrap_or_default()
    }

    /// What must never happen did not.
    ///
    /// # Errors
    /// What did.
    pub fn check(&self) -> Result<(), String> {
        let broken = &self.earth.borrow().broken;
        if broken.is_empty() { Ok(()) } else { Err(broken.join("\n")) }
    }

    /// A tick after convergence has no steps and changes nothing.
    ///
    /// # Errors
    /// What it did.
    pub fn quiet(&self) -> Result<(), String> {
        let before = self.fingerprint();
        let (verdict, report, summary) = self.run(Mode::default(), Millis(1_000))?;
        if verdict != Verdict::Settled || summary.planned != 0 || summary.changed != 0 {
            return Err(format!("not quiet: {verdict:?} {summary:?} {:?} {:?}", report.later, report.waits));
        }
        if before != self.fingerprint() {
            return Err("a quiet tick touched a process".to_owned());
        }
        Ok(())
    }

    /// Who runs: unit to pid and what it was started with.
    pub fn fingerprint(&self) -> BTreeMap<String, (u32, String)> {
        let earth = self.earth.borrow();
        let ours = earth.procs.iter().filter_map(|(pid, p)| {
            let digest = p.digest.as_ref()?.to_string();
            Some((p.unit.as_ref()?.to_string(), (*pid, digest)))
        });
        ours.collect()
    }

    /// The pid of a service's process.
    pub fn pid(&self, name: &str) -> Option<u32> {
        self.earth.borrow().live(&Name::new(name).ok()?).first().copied()
    }
}
