//! The messages of a mailbox. What was delivered is on the disk before it is acknowledged, and is told apart from what came before;
//! what was merely posted is kept in memory.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

/// The oldest posted message goes when one more comes: nobody empties a demonstration.
const MOST_POSTED: usize = 1_000;
/// A delivery is never dropped to make room; beyond this none is taken.
const MOST_DELIVERED: usize = 200_000;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Message {
    /// Given by the mailbox.
    #[serde(default)]
    pub(super) id: u64,
    #[serde(default)]
    pub(super) channel: Option<String>,
    pub(super) content: String,
    #[serde(flatten, skip_deserializing)]
    pub(super) delivery: Option<Delivery>,
}

/// What is known of a message that was delivered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Delivery {
    pub(super) note_id: String,
    pub(super) idempotency_key: Option<String>,
    pub(super) trigger: Option<String>,
    pub(super) event: Option<String>,
    /// Deliveries are numbered as they come, those that come again as well.
    #[serde(default)]
    pub(super) arrival: u64,
    /// How often it came.
    #[serde(default)]
    pub(super) times: u64,
}

impl Delivery {
    /// What makes two deliveries the same.
    fn key(&self) -> String {
        self.idempotency_key.as_ref().map_or_else(|| format!("note {}", self.note_id), |key| format!("key {key}"))
    }
}

/// A line of the file.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    New { id: u64, channel: Option<String>, content: String, delivered: Delivery },
    Again { again: u64, arrival: u64 },
}

/// What came of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    New,
    Duplicate,
    Full,
}

#[derive(Default)]
pub(super) struct Messages {
    /// `None` keeps them in memory only.
    file: Option<File>,
    all: BTreeMap<u64, Message>,
    /// By what makes two deliveries the same.
    keys: HashMap<String, u64>,
    last: u64,
    arrivals: u64,
    posted: usize,
}

impl Messages {
    /// What an earlier process took. Lines that were cut off are passed over: nobody was told that they are kept.
    pub(super) fn load(path: Option<&Path>) -> io::Result<Self> {
        let mut messages = Self::default();
        let Some(path) = path else { return Ok(messages) };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        for line in text.lines() {
            match serde_json::from_str(line) {
                Ok(Line::New { id, channel, content, delivered }) => messages.keep(id, channel, content, delivered),
                Ok(Line::Again { again, arrival }) => messages.count(again, arrival),
                Err(_) => {}
            }
        }
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        if !text.is_empty() && !text.ends_with('\n') {
            file.write_all(b"\n")?;
        }
        messages.file = Some(file);
        Ok(messages)
    }

    pub(super) fn all(&self) -> Vec<&Message> {
        self.all.values().collect()
    }

    pub(super) fn post(&mut self, message: Message) -> Message {
        self.last += 1;
        let message = Message { id: self.last, delivery: None, ..message };
        if self.posted >= MOST_POSTED {
            let oldest = self.all.values().find(|message| message.delivery.is_none()).map(|message| message.id);
            oldest.and_then(|oldest| self.all.remove(&oldest));
        } else {
            self.posted += 1;
        }
        self.all.insert(message.id, message.clone());
        message
    }

    /// Takes a delivery. It is on the disk when this returns.
    ///
    /// # Errors
    /// When it could not be written: then it is not taken.
    pub(super) fn deliver(
        &mut self,
        channel: Option<String>,
        content: String,
        delivery: Delivery,
    ) -> io::Result<Taken> {
        let arrival = self.arrivals + 1;
        if let Some(known) = self.keys.get(&delivery.key()).copied() {
            self.write(&Line::Again { again: known, arrival })?;
            self.count(known, arrival);
            return Ok(Taken::Duplicate);
        }
        if self.keys.len() >= MOST_DELIVERED {
            return Ok(Taken::Full);
        }
        let id = self.last + 1;
        let delivered = Delivery { arrival, times: 1, ..delivery };
        self.write(&Line::New {
            id,
            channel: channel.clone(),
            content: content.clone(),
            delivered: delivered.clone(),
        })?;
        self.keep(id, channel, content, delivered);
        Ok(Taken::New)
    }

    fn write(&mut self, line: &Line) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let line = serde_json::to_string(line)? + "\n";
        file.write_all(line.as_bytes())?;
        file.sync_data()
    }

    fn keep(&mut self, id: u64, channel: Option<String>, content: String, delivery: Delivery) {
        self.arrivals = self.arrivals.max(delivery.arrival);
        self.last = self.last.max(id);
        self.keys.insert(delivery.key(), id);
        self.all.insert(id, Message { id, channel, content, delivery: Some(delivery) });
    }

    fn count(&mut self, id: u64, arrival: u64) {
        self.arrivals = self.arrivals.max(arrival);
        if let Some(delivery) = self.all.get_mut(&id).and_then(|message| message.delivery.as_mut()) {
            delivery.times += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(note: &str, key: Option<&str>) -> Delivery {
        let idempotency_key = key.map(str::to_owned);
        Delivery { note_id: note.to_owned(), idempotency_key, trigger: None, event: None, arrival: 0, times: 0 }
    }

    #[test]
    fn deliveries_are_taken_once_and_counted_and_survive_a_cut_off_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("mailbox/messages.jsonl");
        let mut messages = Messages::load(Some(&path)).expect("a file");
        let mut take = |note, key| messages.deliver(None, "x".to_owned(), delivery(note, key)).expect("taken");
        assert_eq!((take("a", None), take("a", None), take("b", None)), (Taken::New, Taken::Duplicate, Taken::New));
        assert_eq!((take("a", Some("k")), take("c", Some("k"))), (Taken::New, Taken::Duplicate));
        let posted = Message { id: 0, channel: None, content: "hello".to_owned(), delivery: None };
        assert_eq!(messages.post(posted).id, 4);
        assert_eq!(messages.all().len(), 4);
        drop(messages);

        let text = fs::read_to_string(&path).expect("a file");
        fs::write(&path, text + "{\"id\":9,\"cha").expect("a torn line");
        let mut again = Messages::load(Some(&path)).expect("a file");
        let seen: Vec<_> =
            again.all().iter().filter_map(|m| m.delivery.as_ref().map(|d| (d.arrival, d.times))).collect();
        assert_eq!(seen, [(1, 2), (3, 1), (4, 2)]);
        assert_eq!(again.deliver(None, "x".to_owned(), delivery("b", None)).expect("taken"), Taken::Duplicate);
        assert_eq!(again.deliver(None, "x".to_owned(), delivery("d", None)).expect("taken"), Taken::New);
        assert_eq!(Messages::load(Some(&path)).expect("a file").all().len(), 4);
    }
}
