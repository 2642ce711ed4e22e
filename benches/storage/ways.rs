//! The bare loop's ways to a database and to a bucket.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use rusqlite::{Connection, Row};
use sha2::{Digest as _, Sha256 as Hash};
use trueup::ports::blobs::Object;

use super::bare::{PIECE, hash, path, source};

/// One table, one row for an object, one connection that writes.
pub struct Database {
    file: PathBuf,
    writer: Mutex<Connection>,
}

impl Database {
    pub fn make(file: &Path) -> Self {
        let writer = connect(file);
        let schema = "PRAGMA page_size = 16384; PRAGMA journal_mode = WAL;
            CREATE TABLE blob (name BLOB PRIMARY KEY, bytes BLOB NOT NULL)";
        writer.execute_batch(schema).expect("a database");
        writer.pragma_update(None, "synchronous", "FULL").expect("waits for the disk");
        Self { file: file.to_owned(), writer: Mutex::new(writer) }
    }

    /// For one thread.
    pub fn reader(&self) -> Connection {
        connect(&self.file)
    }

    pub fn bring(&self, from: &Path, reader: &Connection, group: &[Object]) {
        let read = |object: &Object| {
            let bytes = fs::read(path(from, &object.name)).expect("reads");
            assert_eq!(Hash::digest(&bytes)[..], object.name.0);
            (object.name.0, bytes)
        };
        let bodies: Vec<([u8; 32], Vec<u8>)> = group.iter().map(read).collect();
        let mut writer = self.writer.lock().expect("nobody panics");
        let transaction = writer.transaction().expect("begins");
        for (name, bytes) in &bodies {
            let mut insert = transaction.prepare_cached("INSERT INTO blob VALUES (?1, ?2)").expect("a statement");
            insert.execute((name, bytes)).expect("inserts");
        }
        transaction.commit().expect("commits");
        drop(writer);
        drop(bodies);
        let mut select = reader.prepare_cached("SELECT bytes FROM blob WHERE name = ?1").expect("a statement");
        for object in group {
            let check = |row: &Row<'_>| {
                assert_eq!(Hash::digest(row.get_ref(0)?.as_blob()?)[..], object.name.0);
                Ok(())
            };
            select.query_row([object.name.0], check).expect("there");
        }
    }
}

fn connect(file: &Path) -> Connection {
    let connection = Connection::open(file).expect("a database");
    connection.busy_timeout(Duration::from_secs(10)).expect("is patient");
    connection
}

/// A connection to a server that asks for no signature.
pub struct Line {
    bucket: String,
    stream: BufReader<TcpStream>,
}

impl Line {
    /// `to` is server/bucket.
    pub fn dial(to: &str) -> Self {
        let (server, bucket) = to.split_once('/').expect("server/bucket");
        let stream = TcpStream::connect(server).expect("a server");
        stream.set_nodelay(true).expect("at once");
        Self { bucket: bucket.to_owned(), stream: BufReader::with_capacity(PIECE, stream) }
    }

    pub fn bring(&mut self, from: &Path, group: &[Object], buffer: &mut [u8]) {
        for object in group {
            self.ask("PUT", object, &format!("content-length: {}\r\n", object.size));
            let mut stream = self.stream.get_ref();
            assert_eq!(hash(source(from, object), buffer, Some(&mut stream)), object.name.0);
            let length = self.answer();
            std::io::copy(&mut self.stream.by_ref().take(length), &mut std::io::sink()).expect("reads");
        }
        for object in group {
            self.ask("GET", object, "");
            let length = self.answer();
            assert_eq!(hash(self.stream.by_ref().take(length), buffer, None), object.name.0);
        }
    }

    fn ask(&self, verb: &str, object: &Object, more: &str) {
        let (text, bucket) = (object.name.to_string(), &self.bucket);
        let head = format!("{verb} /{bucket}/{}/{} HTTP/1.1\r\nhost: x\r\n{more}\r\n", &text[..2], &text[2..]);
        self.stream.get_ref().write_all(head.as_bytes()).expect("asks");
    }

    /// The head of an answer that says yes: how long its body is.
    fn answer(&mut self) -> u64 {
        let (mut length, mut text) = (0, String::new());
        self.stream.read_line(&mut text).expect("answers");
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        loop {
            text.clear();
            self.stream.read_line(&mut text).expect("answers");
            let Some((name, value)) = text.trim_end().split_once(':') else { return length };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().expect("a length");
            }
        }
    }
}
