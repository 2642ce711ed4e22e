//! The list of schema changes of the blob index; `PRAGMA user_version` says how many of them an index has seen.
//!
//! Entries are only ever appended. A test holds the text of every entry that was released.

/// The schema changes, oldest first.
///
/// Places are small numbers. A name is the 32 bytes of its hash, a key is packed (`key.rs`), times are milliseconds. What lies where is
/// counted by triggers, so that every writer of any version keeps the tallies right and no verb can forget to; they also hold that bytes
/// which a row relies on are no spare. `book` has one row.
pub(super) const MIGRATIONS: &[&str] = &["
    CREATE TABLE place (
        id INTEGER NOT NULL PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        objects INTEGER NOT NULL DEFAULT 0,
        bytes INTEGER NOT NULL DEFAULT 0,
        troubled INTEGER NOT NULL DEFAULT 0,
        spares INTEGER NOT NULL DEFAULT 0
    ) STRICT;

    CREATE TABLE object (
        id INTEGER NOT NULL PRIMARY KEY,
        name BLOB NOT NULL UNIQUE,
        size INTEGER NOT NULL,
        place INTEGER NOT NULL REFERENCES place (id),
        created INTEGER NOT NULL,
        verified INTEGER,
        fault TEXT,
        detail TEXT,
        since INTEGER
    ) STRICT;
    CREATE INDEX object_at ON object (place, name) WHERE fault IS NULL;
    CREATE INDEX object_verified ON object (place, verified);
    CREATE INDEX object_troubled ON object (name) WHERE fault IS NOT NULL;

    CREATE TABLE blob (
        key BLOB NOT NULL PRIMARY KEY,
        object INTEGER NOT NULL REFERENCES object (id),
        created INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX blob_of_object ON blob (object);

    CREATE TABLE spare (
        place INTEGER NOT NULL REFERENCES place (id),
        name BLOB NOT NULL,
        size INTEGER NOT NULL,
        why TEXT NOT NULL,
        since INTEGER NOT NULL,
        PRIMARY KEY (place, name)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX spare_since ON spare (place, why, since);

    CREATE TABLE migration (
        id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
        source INTEGER NOT NULL REFERENCES place (id),
        target INTEGER NOT NULL REFERENCES place (id),
        begun INTEGER NOT NULL,
        ended INTEGER,
        outcome TEXT NOT NULL DEFAULT 'running',
        moved INTEGER NOT NULL DEFAULT 0,
        moved_bytes INTEGER NOT NULL DEFAULT 0,
        written INTEGER NOT NULL DEFAULT 0,
        abandoned INTEGER NOT NULL DEFAULT 0,
        last_flip INTEGER
    ) STRICT;

    CREATE TABLE abandoned (
        seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
        at INTEGER NOT NULL,
        key TEXT NOT NULL,
        name TEXT NOT NULL,
        size INTEGER NOT NULL,
        place TEXT NOT NULL,
        created INTEGER NOT NULL,
        fault TEXT NOT NULL,
        detail TEXT NOT NULL
    ) STRICT;

    CREATE TABLE book (
        id INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
        owner TEXT NOT NULL,
        active INTEGER REFERENCES place (id),
        target INTEGER REFERENCES place (id),
        migration INTEGER REFERENCES migration (id),
        lease INTEGER NOT NULL DEFAULT 0,
        blobs INTEGER NOT NULL DEFAULT 0,
        settled INTEGER,
        fallbacks INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    INSERT INTO book (id, owner) VALUES (1, lower(hex(randomblob(16))));

    CREATE TABLE note (
        name TEXT NOT NULL PRIMARY KEY,
        value TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;

    CREATE TRIGGER object_added AFTER INSERT ON object BEGIN
        UPDATE place SET objects = objects + 1, bytes = bytes + new.size,
            troubled = troubled + (new.fault IS NOT NULL) WHERE id = new.place;
        DELETE FROM spare WHERE place = new.place AND name = new.name;
    END;
    CREATE TRIGGER object_changed AFTER UPDATE OF place, size, fault ON object
        WHEN old.place <> new.place OR old.size <> new.size OR (old.fault IS NULL) <> (new.fault IS NULL) BEGIN
        UPDATE place SET objects = objects - 1, bytes = bytes - old.size,
            troubled = troubled - (old.fault IS NOT NULL) WHERE id = old.place;
        UPDATE place SET objects = objects + 1, bytes = bytes + new.size,
            troubled = troubled + (new.fault IS NOT NULL) WHERE id = new.place;
        DELETE FROM spare WHERE place = new.place AND name = new.name;
    END;
    CREATE TRIGGER object_removed AFTER DELETE ON object BEGIN
        UPDATE place SET objects = objects - 1, bytes = bytes - old.size,
            troubled = troubled - (old.fault IS NOT NULL) WHERE id = old.place;
    END;
    CREATE TRIGGER spare_added AFTER INSERT ON spare BEGIN
        UPDATE place SET spares = spares + 1 WHERE id = new.place;
    END;
    CREATE TRIGGER spare_removed AFTER DELETE ON spare BEGIN
        UPDATE place SET spares = spares - 1 WHERE id = old.place;
    END;
    CREATE TRIGGER blob_added AFTER INSERT ON blob BEGIN
        UPDATE book SET blobs = blobs + 1;
    END;
    CREATE TRIGGER blob_removed AFTER DELETE ON blob BEGIN
        UPDATE book SET blobs = blobs - 1;
    END;
"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::digest::Digest;

    /// One line per released entry. A line never changes; a new entry appends one.
    const RELEASED: [&str; 1] = ["6fc7727f9788376bb193d7cdb53e81b5"];

    #[test]
    fn released_entries_never_change() {
        let digests: Vec<Digest> = MIGRATIONS.iter().map(|text| Digest::of(text.as_bytes())).collect();
        let digests: Vec<&str> = digests.iter().map(Digest::as_str).collect();
        assert_eq!(digests, RELEASED);
    }
}
