//! The list of schema changes of the database of events; `PRAGMA user_version` says how many of them a file has seen.
//!
//! Entries are only ever appended. A test holds the text of every entry that was released.

/// The schema changes, oldest first.
///
/// Times are milliseconds. Stages: 0 waiting, 1 dead, 2 delivered, 3 discarded. A body is kept while its event waits or is dead. `tally` is kept
/// by triggers, so that nobody has to count events to keep a bound.
pub(super) const MIGRATIONS: &[&str] = &["
    CREATE TABLE event (
        seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
        connection TEXT NOT NULL,
        key TEXT NOT NULL,
        note TEXT,
        what TEXT,
        content_type TEXT NOT NULL,
        bytes INTEGER NOT NULL,
        stage INTEGER NOT NULL DEFAULT 0 CHECK (stage BETWEEN 0 AND 3),
        accepted INTEGER NOT NULL,
        since INTEGER NOT NULL,
        due INTEGER NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        status INTEGER,
        trouble TEXT,
        settled INTEGER,
        CHECK ((stage = 0) = (settled IS NULL)),
        UNIQUE (connection, key)
    ) STRICT;
    CREATE INDEX event_of ON event (connection, stage, seq);
    CREATE INDEX event_settled ON event (stage, settled, seq);

    CREATE TABLE body (
        seq INTEGER NOT NULL PRIMARY KEY REFERENCES event (seq) ON DELETE CASCADE,
        body BLOB NOT NULL
    ) STRICT;

    CREATE TABLE tally (
        connection TEXT NOT NULL,
        stage INTEGER NOT NULL,
        events INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        PRIMARY KEY (connection, stage)
    ) STRICT, WITHOUT ROWID;
    CREATE TRIGGER event_added AFTER INSERT ON event BEGIN
        INSERT INTO tally VALUES (NEW.connection, NEW.stage, 1, NEW.bytes)
            ON CONFLICT DO UPDATE SET events = events + 1, bytes = bytes + NEW.bytes;
    END;
    CREATE TRIGGER event_removed AFTER DELETE ON event BEGIN
        UPDATE tally SET events = events - 1, bytes = bytes - OLD.bytes
            WHERE connection = OLD.connection AND stage = OLD.stage;
    END;
    CREATE TRIGGER event_moved AFTER UPDATE OF stage ON event WHEN OLD.stage != NEW.stage BEGIN
        UPDATE tally SET events = events - 1, bytes = bytes - OLD.bytes
            WHERE connection = OLD.connection AND stage = OLD.stage;
        INSERT INTO tally VALUES (NEW.connection, NEW.stage, 1, NEW.bytes)
            ON CONFLICT DO UPDATE SET events = events + 1, bytes = bytes + NEW.bytes;
        DELETE FROM body WHERE seq = NEW.seq AND NEW.stage >= 2;
    END;

    CREATE TABLE pulse (
        id INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
        beats INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    INSERT INTO pulse (id) VALUES (1);
"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::digest::Digest;

    /// One line per released entry. A line never changes; a new entry appends one.
    const RELEASED: [&str; 1] = ["a795ce520f4ad1c43292a49cfc204ba1"];

    #[test]
    fn released_entries_never_change() {
        let digests: Vec<Digest> = MIGRATIONS.iter().map(|text| Digest::of(text.as_bytes())).collect();
        let digests: Vec<&str> = digests.iter().map(Digest::as_str).collect();
        assert_eq!(digests, RELEASED);
    }
}
