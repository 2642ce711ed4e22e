//! What was put and not settled yet, and whose turn it is to settle it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::model::blob::Sha256;

/// Bodies that are complete and not settled, each as `T`. Known to one value of a backend only.
pub(super) struct Staging<T> {
    book: Mutex<Book<T>>,
    turn_over: Condvar,
}

struct Book<T> {
    /// Several threads may have put the same object.
    staged: BTreeMap<Sha256, Vec<T>>,
    /// Whoever settles one of these waits: it must not answer before the object is durable.
    settling: BTreeSet<Sha256>,
}

impl<T> Default for Staging<T> {
    fn default() -> Self {
        Self {
            book: Mutex::new(Book { staged: BTreeMap::new(), settling: BTreeSet::new() }),
            turn_over: Condvar::new(),
        }
    }
}

/// The right to settle some names; nobody else settles them meanwhile.
pub(super) struct Turn<'a, T> {
    of: &'a Staging<T>,
    names: &'a BTreeSet<Sha256>,
}

impl<T> Drop for Turn<'_, T> {
    fn drop(&mut self) {
        let mut book = self.of.book();
        for name in self.names {
            book.settling.remove(name);
        }
        self.of.turn_over.notify_all();
    }
}

impl<T> Staging<T> {
    fn book(&self) -> MutexGuard<'_, Book<T>> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, name: Sha256, body: T) {
        self.book().staged.entry(name).or_default().push(body);
    }

    pub(super) fn has(&self, name: &Sha256) -> bool {
        self.book().staged.contains_key(name)
    }

    /// Whether such a body is staged, or may be: what is being settled is not in the book.
    pub(super) fn may_have(&self, mut such: impl FnMut(&T) -> bool) -> bool {
        let book = self.book();
        !book.settling.is_empty() || book.staged.values().flatten().any(&mut such)
    }

    /// Waits for its turn, and takes what was staged under these names, the oldest first.
    pub(super) fn take<'a>(&'a self, names: &'a BTreeSet<Sha256>) -> (Turn<'a, T>, BTreeMap<Sha256, Vec<T>>) {
        let mut book = self.book();
        while names.iter().any(|name| book.settling.contains(name)) {
            book = self.turn_over.wait(book).unwrap_or_else(PoisonError::into_inner);
        }
        book.settling.extend(names);
        let staged = names.iter().filter_map(|name| book.staged.remove_entry(name)).collect();
        (Turn { of: self, names }, staged)
    }

    /// Everything, for whoever clears up at the end.
    pub(super) fn take_all(&self) -> Vec<T> {
        std::mem::take(&mut self.book().staged).into_values().flatten().collect()
    }
}
