//! A seeded hand kills the daemon again and again while it deletes and edits triggers, revokes tokens, stops and kills the vault and the
//! sink, and makes, edits and removes connections. What must hold is looked at when the last daemon has come to rest. `CONNECTION_KILLS=N`
//! kills more often, `CONNECTION_SEED=S` repeats a life as far as real time allows.

#![expect(clippy::disallowed_methods, reason = "real processes take real time")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::stage::{Own, kill, wait_until};
use crate::wiring_stage::Tree;

/// In every run of the tests.
const KILLS: u64 = 50;
/// However slow the machine is, so long it lasts for each of so many kills.
const SECONDS_FOR_50: u64 = 180;
const REARM: &str = "  rearm: { after: 1s }\n";

#[expect(clippy::disallowed_methods, reason = "a knob of the test itself")]
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

struct Life {
    tree: Tree,
    dice: u64,
    /// Values of what is edited: each edit is another one.
    edits: u64,
    vault_is_kept_still: bool,
    sink_is_kept_still: bool,
    deeds: BTreeMap<&'static str, u32>,
}

impl Life {
    fn new(seed: u64) -> Self {
        let tree = Tree::with_hub("  interval: 1s\n  prune: { maxCount: 20 }\n");
        let dice = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        Self { tree, dice, edits: 0, vault_is_kept_still: false, sink_is_kept_still: false, deeds: BTreeMap::new() }
    }

    fn roll(&mut self, sides: u64) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        (self.dice >> 11) % sides
    }

    fn daemon(&self) -> Own {
        let log =
            fs::File::options().create(true).append(true).open(self.tree.stage.path("daemon.out")).expect("a log");
        let mut command = self.tree.stage.command(&["reconcile", "-o", "json"]);
        let child = command.stdout(log.try_clone().expect("a log")).stderr(log).spawn();
        Own(child.expect("the daemon starts"))
    }

    /// A connection whose settings are others each time; which notes it wants stays.
    fn connect(&mut self, name: &str) {
        self.edits += 1;
        let timeout = 10 + self.edits;
        self.tree.connect(name, name, &format!("{REARM}  retry: {{ timeout: {timeout}s }}\n"));
    }

    /// Keeps a service still by its file, or lets it run.
    fn still(&self, file: &str, still: bool) {
        match file {
            "vault.yaml" => self.tree.write_vault(""),
            _ => self.tree.write_mailbox(""),
        }
        if still {
            let path = self.tree.stage.tree(file);
            let text = fs::read_to_string(&path).expect("the document");
            fs::write(path, text + "  suspend: true\n").expect("written");
        }
    }

    /// The process of a service, by the mark of the keeper.
    fn pid(&self, service: &str) -> Option<u64> {
        let text = fs::read_to_string(self.tree.stage.path(&format!(".trueup/run/{service}.json"))).ok()?;
        let mark: Value = serde_json::from_str(&text).ok()?;
        mark["pid"].as_u64().or_else(|| mark.as_object()?.values().find_map(|part| part["pid"].as_u64()))
    }

    fn ours(&self) -> Vec<Value> {
        if !self.tree.vault_answers("default") {
            return Vec::new();
        }
        let triggers = self.tree.try_triggers().unwrap_or_default();
        triggers.into_values().filter(|trigger| trigger["name"] != "conn_foreign").collect()
    }

    fn act(&mut self) {
        let deed = match self.roll(16) {
            0..4 => {
                let tag = ["alpha", "beta", "temp"][usize::try_from(self.roll(3)).expect("small")];
                let count = 1 + self.roll(4);
                for _ in 0..count {
                    let _ = self.tree.try_note(tag);
                }
                "notes were made"
            }
            4 | 5 => {
                let ours = self.ours();
                if let Some(one) = ours.get(usize::try_from(self.roll(3)).expect("small")) {
                    let _ = self.tree.try_delete(one["name"].as_str().expect("a name"));
                }
                "a trigger was deleted"
            }
            6 => {
                if let Some(mut one) = self.ours().pop() {
                    one["action"] = json!({ "webhook": "http://127.0.0.1:1/x", "auth": { "bearer": "x" } });
                    let _ = self.tree.try_put(&one);
                }
                "a trigger was edited"
            }
            7 | 8 => {
                let rows = self.tree.stage.run(&[
                    "token",
                    "list",
                    "--subject",
                    "connection",
                    "--revoked",
                    "false",
                    "-o",
                    "json",
                ]);
                let rows = if rows.code == 0 { rows.typed("token") } else { Vec::new() };
                if let Some(row) = rows.get(usize::try_from(self.roll(3)).expect("small")) {
                    self.tree.stage.run(&["token", "revoke", row["jti"].as_str().expect("an id")]);
                }
                "a token was revoked"
            }
            9 => {
                self.vault_is_kept_still = !self.vault_is_kept_still;
                self.still("vault.yaml", self.vault_is_kept_still);
                "the vault was stopped or started"
            }
            10 => {
                self.sink_is_kept_still = !self.sink_is_kept_still;
                self.still("mailbox.yaml", self.sink_is_kept_still);
                "the sink was stopped or started"
            }
            11 => {
                let service = ["vault", "mailbox"][usize::try_from(self.roll(2)).expect("small")];
                if let Some(pid) = self.pid(service) {
                    kill(pid, "KILL");
                }
                "a module was killed"
            }
            12 | 13 => {
                let name = ["alpha", "beta"][usize::try_from(self.roll(2)).expect("small")];
                self.connect(name);
                "a connection was edited"
            }
            _ => {
                match self.tree.stage.tree("temp.yaml").exists() {
                    true => self.tree.remove("temp.yaml"),
                    false => self.connect("temp"),
                }
                "a connection came or went"
            }
        };
        *self.deeds.entry(deed).or_default() += 1;
    }

    fn live(&mut self, kills: u64) {
        self.connect("alpha");
        self.connect("beta");
        let begun = self.tree.daemon();
        self.tree.pass();
        let foreign = json!({ "name": "conn_foreign", "events": ["created"], "when": { "tags": ["nobody"] },
            "action": { "webhook": "http://127.0.0.1:1/theirs", "send": "json", "auth": { "bearer": "theirs" } } });
        let foreign = self.tree.put_trigger(&foreign);
        drop(begun);
        let end = Instant::now() + Duration::from_secs(SECONDS_FOR_50 * kills / 50);
        let mut killed = 0;
        while killed < kills && Instant::now() < end {
            let daemon = self.daemon();
            let until = Instant::now() + Duration::from_millis(50 + self.roll(1_600));
            for _ in 0..1 + self.roll(3) {
                let pause = Duration::from_millis(self.roll(300));
                std::thread::park_timeout(pause.min(until.saturating_duration_since(Instant::now())));
                self.act();
            }
            std::thread::park_timeout(until.saturating_duration_since(Instant::now()));
            // SIGKILL.
            drop(daemon);
            killed += 1;
            // Sometimes things happen while nobody is there.
            if self.roll(3) == 0 {
                self.act();
            }
        }
        assert_eq!(killed, kills, "the machine is too busy for this");
        self.judge(&foreign);
    }

    fn judge(&mut self, foreign: &Value) {
        self.still("vault.yaml", false);
        self.still("mailbox.yaml", false);
        if self.tree.stage.tree("temp.yaml").exists() {
            self.tree.remove("temp.yaml");
        }
        let _daemon = self.tree.daemon();
        let tree = &self.tree;
        wait_until("a pass that comes to rest", || tree.stage.once(&["--timeout", "20s"]).code == 0);
        let triggers = tree.triggers();
        let names: Vec<&String> = triggers.keys().collect();
        assert_eq!(names.len(), 3, "one for each connection, and the foreign one: {names:?}");
        for name in ["conn_alpha_tu", "conn_beta_tu"] {
            assert_eq!(names.iter().filter(|one| one.starts_with(name)).count(), 1, "{names:?}");
        }
        assert_eq!(&triggers["conn_foreign"], foreign, "nobody touched it");
        let clients: Vec<String> = tree.tokens().iter().map(|row| row["client_id"].to_string()).collect();
        let wanted = ["\"connection/alpha/vault/vault/default\"", "\"connection/beta/vault/vault/default\""];
        assert_eq!(clients.iter().map(String::as_str).collect::<BTreeSet<_>>(), wanted.into());
        assert_eq!(clients.len(), 2, "no live orphans");

        // Whatever the vault had begun to send has come.
        let is_ours = |trigger: &str| names.iter().any(|name| *name == trigger && trigger != "conn_foreign");
        let marked = |end: &str| -> BTreeSet<(String, String)> {
            let mut marked = BTreeSet::new();
            for note in tree.all_notes() {
                let id = note["id"].as_str().expect("an id").to_owned();
                let keys = note["metadata"].as_object().expect("metadata").keys();
                marked.extend(keys.filter_map(|key| Some((id.clone(), key.strip_suffix(end)?.to_owned()))));
            }
            marked.retain(|(_, trigger)| is_ours(trigger));
            marked
        };
        wait_until("no note that is pending", || marked("_pending_at").is_empty());
        let sent = marked("_rendered_at");
        let arrived = || {
            let mut arrived: BTreeMap<(String, String), u32> = BTreeMap::new();
            for message in tree.messages() {
                let text = |field: &str| message[field].as_str().expect(field).to_owned();
                *arrived.entry((text("noteId"), text("trigger"))).or_default() += 1;
            }
            arrived
        };
        wait_until("every note that was sent", || {
            let arrived = arrived();
            sent.iter().all(|one| arrived.contains_key(one))
        });
        let twice: Vec<_> = arrived().into_iter().filter(|(_, times)| *times > 1).collect();
        assert_eq!(twice, [], "the same event had two keys");
        assert!(!sent.is_empty(), "nothing happened: {:?}", self.deeds);

        tree.remove("alpha.yaml");
        tree.remove("beta.yaml");
        wait_until("a pass that comes to rest", || tree.stage.once(&["--timeout", "20s"]).code == 0);
        assert_eq!(tree.triggers().into_values().collect::<Vec<_>>(), std::slice::from_ref(foreign));
        assert_eq!(tree.tokens(), [] as [Value; 0]);
        let left = tree.stage.run(&["get", "-o", "json"]).code(0).typed("resource");
        assert!(left.iter().all(|row| row["kind"] != "Connection"), "{left:?}");
        let ledger = rusqlite::Connection::open(tree.stage.path(".trueup/ledger.db")).expect("the ledger");
        let open: u64 = ledger
            .query_row("SELECT count(*) FROM journal WHERE finished IS NULL", [], |row| row.get(0))
            .expect("a count");
        assert_eq!(open, 0, "no step is open");
    }
}

#[test]
fn whenever_the_daemon_is_killed_the_next_one_makes_everything_as_it_should_be() {
    let seed = number("CONNECTION_SEED").unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock");
        u64::from(now.subsec_nanos()) ^ now.as_secs()
    });
    let kills = number("CONNECTION_KILLS").unwrap_or(KILLS);
    let mut life = Life::new(seed);
    let told = Told { seed };
    life.live(kills);
    drop(told);
}

/// Says the seed when the life ends badly.
struct Told {
    seed: u64,
}

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            #[expect(clippy::print_stderr, reason = "whoever repeats it needs the seed")]
            {
                eprintln!("CONNECTION_SEED={}", self.seed);
            }
        }
    }
}
