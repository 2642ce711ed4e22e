//! The list of schema changes. `PRAGMA user_version` says how many of them a ledger has seen.
//!
//! Entries are only ever appended: a ledger of any age must find the ones that it has not seen, and those it has seen must
//! be what it saw. A test holds the text of every entry that was released.

use rusqlite::{Connection, Transaction, TransactionBehavior};

/// The schema changes, oldest first. Every one runs in one transaction with the new `user_version`.
pub(super) const MIGRATIONS: &[&str] = &[
    "CREATE TABLE setting (
        name TEXT NOT NULL PRIMARY KEY,
        value TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE owned (
        resource TEXT NOT NULL PRIMARY KEY,
        generation INTEGER NOT NULL,
        digest TEXT NOT NULL,
        document TEXT NOT NULL,
        source TEXT NOT NULL,
        base TEXT NOT NULL,
        record TEXT NOT NULL
    ) STRICT;

    CREATE TABLE journal (
        seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
        step TEXT NOT NULL UNIQUE,
        resource TEXT NOT NULL,
        action TEXT NOT NULL,
        reason TEXT NOT NULL,
        source TEXT NOT NULL,
        begun INTEGER NOT NULL,
        finished INTEGER,
        outcome TEXT,
        message TEXT
    ) STRICT;
    CREATE INDEX journal_of_resource ON journal (resource, seq);
    CREATE INDEX journal_open ON journal (seq) WHERE finished IS NULL;

    CREATE TABLE event (
        seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
        at INTEGER NOT NULL,
        resource TEXT NOT NULL,
        reason TEXT NOT NULL,
        cause TEXT NOT NULL,
        message TEXT NOT NULL
    ) STRICT;
    CREATE INDEX event_of_resource ON event (resource, seq);

    CREATE TABLE condition (
        resource TEXT NOT NULL PRIMARY KEY,
        conditions TEXT NOT NULL
    ) STRICT;",
    "CREATE TABLE override (
        resource TEXT NOT NULL PRIMARY KEY,
        wish TEXT NOT NULL,
        reason TEXT NOT NULL,
        since INTEGER NOT NULL,
        until INTEGER NOT NULL
    ) STRICT;",
];

/// How many entries of a list this ledger has seen.
pub(in crate::adapters) fn version(connection: &Connection) -> rusqlite::Result<usize> {
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    // A negative version is nobody's: it is treated as newer than everything.
    Ok(usize::try_from(version).unwrap_or(usize::MAX))
}

/// Brings a ledger up to the end of the list. One that is there already is not written to.
pub(in crate::adapters) fn migrate(connection: &Connection, list: &[&str]) -> rusqlite::Result<()> {
    if version(connection)? >= list.len() {
        return Ok(());
    }
    let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
    // Asked again inside: another process may have been quicker.
    for (index, change) in list.iter().enumerate().skip(version(&transaction)?) {
        transaction.execute_batch(change)?;
        transaction.pragma_update(None, "user_version", super::number(index + 1))?;
    }
    transaction.commit()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::digest::Digest;

    /// One line per released entry. A line never changes; a new entry appends one.
    const RELEASED: [&str; 2] = ["7c0ffe0d59e639ec445a32deb948f654", "2a936006d26087cd8b49a24e7386efea"];

    #[test]
    fn released_entries_never_change() {
        let digests: Vec<Digest> = MIGRATIONS.iter().map(|text| Digest::of(text.as_bytes())).collect();
        let digests: Vec<&str> = digests.iter().map(Digest::as_str).collect();
        assert_eq!(digests, RELEASED);
    }

    #[test]
    fn only_what_was_not_seen_runs_and_a_bad_entry_leaves_nothing() {
        let connection = Connection::open_in_memory().expect("memory");
        let list = ["CREATE TABLE a (x)", "CREATE TABLE b (x)", "CREATE TABLE c (x); nonsense"];
        migrate(&connection, &list[..1]).expect("first");
        migrate(&connection, &list[..2]).expect("second alone");
        migrate(&connection, &list[..2]).expect("nothing to do");
        assert!(migrate(&connection, &list).is_err());
        assert_eq!(version(&connection).expect("version"), 2);
        let tables: i64 =
            connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).expect("count");
        assert_eq!(tables, 2);
    }
}
