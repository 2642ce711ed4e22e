//! What happens after a note has changed: triggers that want it send it to their webhooks, a few at a time, once per note.
//!
//! The marks on the note are the only memory of that. A delivery that fails, or whose process ends, leaves its note pending.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;

use super::super::fetch::Fetch;
use super::super::say;
use super::note::Note;
use super::predicate::{is_marked, matches, pending, rendered};
use super::store::{Vault, now};
use super::triggers::Trigger;

/// How long a webhook may take when its trigger does not say.
const PATIENCE_MS: u64 = 60_000;
/// More deliveries do not wait; the notes beyond stay without a mark.
const MOST_WAITING: usize = 200_000;

/// What happened to a note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Created,
    Updated,
}

impl Event {
    fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
        }
    }
}

/// The deliveries of all vaults of this process.
pub(super) struct Hooks {
    slots: Semaphore,
    waiting: AtomicUsize,
    fetch: Fetch,
    /// While this file exists there are no triggers.
    forget_while: Option<PathBuf>,
}

impl Hooks {
    pub(super) fn new(concurrency: usize, forget_while: Option<PathBuf>) -> Self {
        Self {
            slots: Semaphore::new(concurrency.max(1)),
            waiting: AtomicUsize::new(0),
            fetch: Fetch::new(),
            forget_while,
        }
    }

    /// Whether the triggers are forgotten just now.
    pub(super) fn forgets(&self) -> bool {
        self.forget_while.as_ref().is_some_and(|file| file.exists())
    }

    /// To be called after the change is committed. Returns at once.
    pub(super) fn dispatch(self: &Arc<Self>, vault: &Arc<Vault>, event: Event, note: &Note) {
        let triggers = vault.triggers();
        if triggers.is_empty() || self.forgets() {
            return;
        }
        for trigger in triggers.iter().filter(|trigger| trigger.events.iter().any(|one| one == event.name())) {
            if !matches(trigger, note) {
                continue;
            }
            if self.waiting.fetch_add(1, Ordering::SeqCst) >= MOST_WAITING {
                self.waiting.fetch_sub(1, Ordering::SeqCst);
                say(&format!("[trigger:{}] too much waits; note {} is passed over", trigger.name, note.id));
                continue;
            }
            tokio::spawn(deliver(self.clone(), vault.clone(), trigger.clone(), event, note.id.clone()));
        }
    }

    /// Claims the note, sends it, and writes down what came of it.
    async fn handle(
        self: &Arc<Self>,
        vault: &Arc<Vault>,
        trigger: &Trigger,
        event: Event,
        id: &str,
    ) -> Result<(), String> {
        let name = &trigger.name;
        let mut claimed = None;
        let change = vault.change(id, |note| {
            if is_marked(name, &note.metadata) {
                return false;
            }
            claimed = Some(note.clone());
            note.metadata.insert(pending(name), json!(now()));
            true
        });
        let after = change.map_err(|error| format!("failed to claim note {id}: {error}"))?;
        let (Some(after), Some(note)) = (after, claimed) else { return Ok(()) };
        self.dispatch(vault, Event::Updated, &after);

        let answer = self.send(trigger, event, &note).await;
        let answer =
            answer.map_err(|why| format!("webhook failed for note {id}; it stays {}: {why}", pending(name)))?;
        let applied = vault.change(id, |fresh| {
            apply(name, &note, fresh, &answer);
            true
        });
        match applied.map_err(|error| format!("failed to apply the answer to note {id}: {error}"))? {
            Some(done) => self.dispatch(vault, Event::Updated, &done),
            None => return Err(format!("note {id} went while it was delivered")),
        }
        Ok(())
    }

    async fn send(&self, trigger: &Trigger, event: Event, note: &Note) -> Result<Map<String, Value>, String> {
        let skipped = |why: &str| Ok(Map::from_iter([("skipped_reason".to_owned(), json!(why))]));
        let mode = trigger.action.get("send").and_then(Value::as_str).unwrap_or("json");
        let body = match mode {
            // A demo vault keeps no audio.
            "attachment" => return skipped("no audio attachment found"),
            "content" if note.content.trim().is_empty() => return skipped("note has no content to synthesize"),
            "content" => json!({ "input": note.content }),
            _ => payload(&trigger.name, event, note),
        };
        let patience = trigger.action.get("timeout").and_then(Value::as_u64).unwrap_or(PATIENCE_MS);
        let patience = Duration::from_millis(patience);
        let answer =
            self.fetch.post(trigger.webhook(), trigger.bearer(), body.to_string().into_bytes(), patience).await?;
        if !(200..300).contains(&answer.status) {
            return Err(format!("the webhook answered {}", answer.status));
        }
        if mode == "content" || answer.body.is_empty() {
            return Ok(Map::new());
        }
        match serde_json::from_slice(&answer.body) {
            Ok(Value::Object(answer)) => Ok(answer),
            Ok(Value::Null) | Err(_) => Err("the webhook's answer is no JSON".to_owned()),
            Ok(_) => Ok(Map::new()),
        }
    }
}

/// Boxed: what is delivered changes a note, and so brings further deliveries about.
fn deliver(
    hooks: Arc<Hooks>,
    vault: Arc<Vault>,
    trigger: Trigger,
    event: Event,
    id: String,
) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move {
        // Nobody closes them.
        let slot = hooks.slots.acquire().await;
        hooks.waiting.fetch_sub(1, Ordering::SeqCst);
        if let Err(why) = hooks.handle(&vault, &trigger, event, &id).await {
            say(&format!("[trigger:{}] {why}", trigger.name));
        }
        drop(slot);
    })
}

/// What a webhook is sent: the note as it was before the claim.
fn payload(trigger: &str, event: Event, note: &Note) -> Value {
    json!({
        "trigger": trigger,
        "event": event.name(),
        "note": {
            "id": note.id,
            "content": note.content,
            "path": note.path,
            "tags": note.tags,
            "metadata": note.metadata,
            "attachments": note.attachments,
            "createdAt": note.created_at,
            "updatedAt": note.updated_at,
        },
    })
}

/// Does to the note what the webhook's answer says. `claimed` is the note as it was before the claim.
fn apply(trigger: &str, claimed: &Note, fresh: &mut Note, answer: &Map<String, Value>) {
    if let Some(reason) = answer.get("skipped_reason").filter(|reason| reason.as_str() != Some("") && !reason.is_null())
    {
        // What others wrote into the metadata meanwhile is lost, as it is in the real one.
        fresh.metadata = claimed.metadata.clone();
        fresh.metadata.insert(format!("{trigger}_skipped_reason"), reason.clone());
    } else {
        if let Some(attachments) = answer.get("attachments").and_then(Value::as_array) {
            fresh.attachments.extend(attachments.iter().cloned());
        }
        if let Some(content) = answer.get("content").and_then(Value::as_str) {
            content.clone_into(&mut fresh.content);
        }
        fresh.metadata.shift_remove(&pending(trigger));
        if let Some(metadata) = answer.get("metadata").and_then(Value::as_object) {
            fresh.metadata.extend(metadata.clone());
        }
    }
    fresh.metadata.insert(rendered(trigger), json!(now()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(metadata: &Value) -> Note {
        let note = json!({ "id": "n", "content": "old", "metadata": metadata, "createdAt": "", "updatedAt": "then" });
        serde_json::from_value(note).expect("a note")
    }

    fn applied(answer: &Value) -> Note {
        let claimed = note(&json!({ "a": 1 }));
        let mut fresh = note(&json!({ "a": 1, "t_pending_at": "x", "meanwhile": true }));
        apply("t", &claimed, &mut fresh, answer.as_object().expect("an object"));
        fresh
    }

    #[test]
    fn an_answer_is_applied_and_marked_and_leaves_the_time_of_the_note_alone() {
        let plain = applied(&json!({ "ok": true }));
        assert_eq!((plain.content.as_str(), plain.updated_at.as_str()), ("old", "then"));
        let keys: Vec<_> = plain.metadata.keys().map(String::as_str).collect();
        assert_eq!(keys, ["a", "meanwhile", "t_rendered_at"]);
        let full = applied(&json!({ "content": "new", "metadata": { "a": 2 }, "attachments": [{ "path": "p" }] }));
        assert_eq!((full.content.as_str(), &full.metadata["a"], full.attachments.len()), ("new", &json!(2), 1));
        let skipped = applied(&json!({ "skipped_reason": "no", "content": "new" }));
        assert_eq!((skipped.content.as_str(), &skipped.metadata["t_skipped_reason"]), ("old", &json!("no")));
        let keys: Vec<_> = skipped.metadata.keys().map(String::as_str).collect();
        assert_eq!(keys, ["a", "t_skipped_reason", "t_rendered_at"]);
    }

    #[test]
    fn a_webhook_is_sent_the_note_as_it_was() {
        let sent = payload("t", Event::Created, &note(&json!({ "a": 1 })));
        assert_eq!((&sent["trigger"], &sent["event"]), (&json!("t"), &json!("created")));
        assert_eq!((&sent["note"]["metadata"], &sent["note"]["attachments"]), (&json!({ "a": 1 }), &json!([])));
        assert_eq!((&sent["note"]["path"], &sent["note"]["updatedAt"]), (&Value::Null, &json!("then")));
    }
}
