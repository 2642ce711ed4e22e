//! The list of schema changes of the database of tokens; `PRAGMA user_version` says how many of them a file has seen.
//!
//! Entries are only ever appended. A test holds the text of every entry that was released.

/// The schema changes, oldest first.
///
/// Times are milliseconds. Scopes and pins are lists with one space between, as in the claims. `book` has one row: how many tokens there
/// are and how many of them are revoked, counted by triggers, so that nobody has to count them to keep a bound; and `clock`, the newest wall time that is believed.
pub(super) const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE signing_keys (
        kid TEXT NOT NULL PRIMARY KEY,
        algorithm TEXT NOT NULL,
        public_key_pem TEXT NOT NULL,
        private_key_pem TEXT,
        created_at INTEGER NOT NULL,
        retired_at INTEGER,
        keep_until INTEGER,
        CHECK ((retired_at IS NULL) = (private_key_pem IS NOT NULL)),
        CHECK ((retired_at IS NULL) = (keep_until IS NULL))
    ) STRICT, WITHOUT ROWID;
    CREATE UNIQUE INDEX signing_keys_active ON signing_keys (algorithm) WHERE retired_at IS NULL;

    CREATE TABLE tokens (
        jti TEXT NOT NULL PRIMARY KEY,
        subject TEXT NOT NULL,
        client_id TEXT NOT NULL,
        audience TEXT NOT NULL,
        scopes TEXT NOT NULL,
        vault_scope TEXT NOT NULL,
        permissions TEXT,
        created_via TEXT NOT NULL,
        kid TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        expires_at INTEGER NOT NULL,
        revoked_at INTEGER
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX tokens_by_age ON tokens (created_at DESC, jti DESC);
    CREATE INDEX tokens_of_subject ON tokens (subject, created_at DESC, jti DESC);
    CREATE INDEX tokens_revoked ON tokens (expires_at, jti) WHERE revoked_at IS NOT NULL;
    CREATE INDEX tokens_of_key ON tokens (kid, expires_at);
    CREATE INDEX tokens_by_end ON tokens (expires_at);

    CREATE TABLE grants (
        subject TEXT NOT NULL,
        client_id TEXT NOT NULL,
        scopes TEXT NOT NULL,
        granted_at INTEGER NOT NULL,
        PRIMARY KEY (subject, client_id)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE book (
        id INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
        tokens INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    INSERT INTO book (id) VALUES (1);
    CREATE TRIGGER token_added AFTER INSERT ON tokens BEGIN
        UPDATE book SET tokens = tokens + 1;
    END;
    CREATE TRIGGER token_removed AFTER DELETE ON tokens BEGIN
        UPDATE book SET tokens = tokens - 1;
    END;
",
    "
    ALTER TABLE book ADD COLUMN clock INTEGER;
    UPDATE book SET clock = (SELECT max(created_at) FROM
        (SELECT created_at FROM tokens UNION ALL SELECT created_at FROM signing_keys));
",
    "
    ALTER TABLE book ADD COLUMN revoked INTEGER NOT NULL DEFAULT 0;
    UPDATE book SET revoked = (SELECT count(*) FROM tokens WHERE revoked_at IS NOT NULL);
    CREATE TRIGGER token_revoked AFTER UPDATE OF revoked_at ON tokens
        WHEN OLD.revoked_at IS NULL AND NEW.revoked_at IS NOT NULL BEGIN
        UPDATE book SET revoked = revoked + 1;
    END;
    CREATE TRIGGER revoked_removed AFTER DELETE ON tokens WHEN OLD.revoked_at IS NOT NULL BEGIN
        UPDATE book SET revoked = revoked - 1;
    END;
",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::digest::Digest;

    /// One line per released entry. A line never changes; a new entry appends one.
    const RELEASED: [&str; 3] =
        ["50814305f35b8d3fa0dff3518b183c63", "0c6ac4dba3c241dbf357a0c2c5c6cd52", "6cc29fdde86271cdaf3524162a60fcb1"];

    #[test]
    fn released_entries_never_change() {
        let digests: Vec<Digest> = MIGRATIONS.iter().map(|text| Digest::of(text.as_bytes())).collect();
        let digests: Vec<&str> = digests.iter().map(Digest::as_str).collect();
        assert_eq!(digests, RELEASED);
    }
}
