//! The pretend storage: an index that outlives us, and a mover that does not. It moves one object at each look.

use std::collections::BTreeMap;

use super::earth::Earth;
use super::fate::Lot;
use super::world::Pretend;
use crate::model::id::Name;
use crate::ports::PortError;
use crate::ports::blobs::{Standing, Tally};
use crate::ports::storage::{Finding, Health, Intent, Motion, Status, Storage, Told};

/// What is true of the pretend blobs.
#[derive(Clone, Debug, Default)]
pub struct Blobs {
    /// Objects by backend.
    pub objects: BTreeMap<Name, u64>,
    pub active: Option<Name>,
    pub target: Option<Name>,
    /// Backends that refuse everything, and why.
    pub refusing: BTreeMap<Name, String>,
    /// How often the active backend changed.
    pub flips: u64,
    /// What the mover of this life was told.
    told: Option<Intent>,
    news: Vec<Finding>,
}

impl Blobs {
    /// Whoever moved blobs is dead; what was moved is moved.
    pub fn die(&mut self) {
        self.told = None;
        self.news.clear();
    }

    /// One object, or the last word.
    fn step(&mut self) {
        let Some((target, told)) = self.target.clone().zip(self.told.as_ref()) else { return };
        if told.settings.suspended || self.refusing.contains_key(&target) {
            return;
        }
        let known = |name: &Name| told.places.contains_key(name);
        let from = self.objects.iter().find(|(name, left)| **name != target && **left > 0 && known(name));
        match from.map(|(name, _)| name.clone()) {
            Some(from) => {
                *self.objects.entry(from).or_default() -= 1;
                *self.objects.entry(target).or_default() += 1;
            }
            None if self.objects.iter().all(|(name, left)| *name == target || *left == 0) => {
                let from = self.active.replace(target.clone()).unwrap_or_else(|| target.clone());
                self.target = None;
                self.flips += 1;
                let objects = self.objects.get(&target).copied().unwrap_or_default();
                self.news.push(Finding::Migrated {
                    from,
                    to: target,
                    objects,
                    bytes: objects,
                    took: Default::default(),
                });
            }
            None => {}
        }
    }

    fn status(&self) -> Status {
        let tally = |objects: &u64| Tally { objects: *objects, bytes: *objects, ..Tally::default() };
        let places = self.told.iter().flat_map(|told| &told.places);
        let health = places.map(|(name, place)| match self.refusing.get(name) {
            Some(why) => (name.clone(), Health::Refused(why.clone())),
            None => (name.clone(), Health::Proven(place.digest.clone())),
        });
        Status {
            standing: Standing {
                owner: "pretend".to_owned(),
                active: self.active.clone(),
                target: self.target.clone(),
                tallies: self.objects.iter().map(|(name, objects)| (name.clone(), tally(objects))).collect(),
                blobs: self.objects.values().sum(),
                ..Standing::default()
            },
            health: health.collect(),
            motion: if self.target.is_some() { Motion::Moving } else { Motion::Idle },
            busy: false,
            progress: None,
            troubled: Vec::new(),
        }
    }
}

fn blobs<T>(pretend: &Pretend, act: impl FnOnce(&mut Blobs) -> T) -> T {
    let earth: &mut Earth = &mut pretend.earth.borrow_mut();
    act(&mut earth.blobs)
}

impl Storage for Pretend {
    fn status(&self) -> Result<Status, PortError> {
        if self.fate.deal("storage.status") != Lot::Go {
            return Err(PortError::Retry("fate: the index could not be read".to_owned()));
        }
        Ok(blobs(self, |blobs| {
            blobs.step();
            blobs.status()
        }))
    }
    fn tell(&self, intent: &Intent) -> bool {
        if self.fate.deal("storage.tell") != Lot::Go {
            return false;
        }
        blobs(self, |blobs| blobs.told.replace(intent.clone()).as_ref() != Some(intent))
    }
    fn activate(&self, place: &Name) -> Result<(), PortError> {
        self.fate.effect("storage.activate", || {
            blobs(self, |blobs| blobs.active.get_or_insert_with(|| place.clone()).clone());
            Ok(())
        })
    }
    fn migrate(&self, target: &Name) -> Result<(), PortError> {
        self.fate.effect("storage.migrate", || {
            blobs(self, |blobs| blobs.target = Some(target.clone()));
            Ok(())
        })
    }
    fn told(&self) -> Result<Vec<Told>, PortError> {
        if self.fate.deal("storage.told") != Lot::Go {
            return Ok(Vec::new());
        }
        let at = self.earth.borrow().wall();
        Ok(blobs(self, |blobs| std::mem::take(&mut blobs.news)).into_iter().map(|what| Told { at, what }).collect())
    }
}
