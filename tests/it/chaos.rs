//! Chaos: for a bounded time a seeded hand kills modules, the keeper and the daemon, edits files, and replaces programs. What must
//! never happen is watched from outside, with the eyes of `/proc`. `CHAOS_SEED=S` repeats a life as far as real time allows,
//! `CHAOS_SECONDS=N` makes it longer.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use trueup::keeper::{find, marks};

use crate::stage::{Own, Stage, alive, free_port, kill, shell, wait_until};

/// In every run of the tests.
const SECONDS: u64 = 12;

/// Services that may be killed.
const VICTIMS: [&str; 4] = ["one", "two", "talks", "sleeps"];

struct Life {
    stage: Stage,
    daemon: Option<Own>,
    dice: u64,
    ports: BTreeMap<&'static str, u16>,
    deeds: BTreeMap<&'static str, u32>,
}

#[expect(clippy::disallowed_methods, reason = "a knob of the test itself")]
fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

impl Life {
    fn new(seed: u64) -> Self {
        let ports = ["one", "two", "talks", "guest"].map(|name| (name, free_port()));
        let life = Self {
            stage: Stage::new(),
            daemon: None,
            dice: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            ports: ports.into(),
            deeds: BTreeMap::new(),
        };
        life.stage.hub();
        life.mailbox("one", 0);
        life.mailbox("two", 0);
        let talks =
            "  readiness: { notify: {} }\n  liveness: { notify: {}, period: 2s }\n  dependsOn: [ { service: one } ]\n";
        life.stage.write(
            "talks.yaml",
            &format!(
                "apiVersion: trueup/v1\nkind: Service\nmetadata: {{ name: talks }}\nspec:\n  command: [trueup, demo, mailbox, --row, \
                 row-talks, --notify]\n  port: {}\n{talks}",
                life.ports["talks"]
            ),
        );
        life.stage.write("sleeps.yaml", &shell("sleeps", "exec sleep 10000", ""));
        // Nobody touches this one: whatever happens around it, it runs on, and nothing that it says is lost.
        let counts = "i=0; while :; do i=$((i+1)); echo number $i; sleep 0.01; done";
        life.stage.write("counts.yaml", &shell("counts", counts, "  logs: { maxSize: 100MiB }\n"));
        life
    }

    fn mailbox(&self, name: &'static str, value: u64) {
        let level = ["info", "warn", "error", "trace"][usize::try_from(value % 4).expect("small")];
        self.stage.mailbox(name, self.ports[name], &format!("  env: {{ LOG_LEVEL: {level} }}\n"));
    }

    fn roll(&mut self, sides: u64) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        (self.dice >> 11) % sides
    }

    /// The processes of each service: leaders of groups that carry our mark.
    fn running(&self) -> BTreeMap<String, Vec<u32>> {
        let id = marks::state_id(&fs::canonicalize(self.stage.path(".trueup")).expect("a state folder"));
        let mut running: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for (pid, stat) in find::all() {
            if !stat.alive() || stat.group != pid {
                continue;
            }
            let mark = find::mark(pid).unwrap_or_default();
            if let Some((unit, _)) = mark.strip_prefix(&id).and_then(|m| m.strip_prefix('/')?.split_once('/')) {
                running.entry(unit.to_owned()).or_default().push(pid);
            }
        }
        running
    }

    /// What must hold at every moment.
    fn watch(&self, counts: u32) {
        let running = self.running();
        for (unit, pids) in &running {
            // A process may have ended between two looks at it; one that is there twice stays.
            let twins = || self.running().get(unit).map_or(0, Vec::len) > 1;
            assert!(pids.len() <= 1 || !(twins() && twins()), "{unit} runs as {pids:?}");
        }
        assert_eq!(running.get("counts"), Some(&vec![counts]), "nobody touched it");
    }

    fn keeper(&self) -> Option<u64> {
        let pid = fs::read_to_string(self.stage.path(".trueup/keeper.lock")).ok()?.trim().parse().ok()?;
        let name = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        name.contains("keeper").then_some(pid)
    }

    fn act(&mut self) {
        let deed = match self.roll(8) {
            0 | 1 => {
                let victim = VICTIMS[usize::try_from(self.roll(4)).expect("small")];
                let signal = ["KILL", "TERM", "SEGV"][usize::try_from(self.roll(3)).expect("small")];
                if let Some(pid) = self.running().get(victim).and_then(|pids| pids.first()) {
                    kill(u64::from(*pid), signal);
                }
                "a module was killed"
            }
            2 => {
                if let Some(pid) = self.keeper() {
                    kill(pid, "KILL");
                }
                "the keeper was killed"
            }
            3 => {
                drop(self.daemon.take());
                "the daemon was killed"
            }
            4 => {
                let (name, value) = (["one", "two"][usize::try_from(self.roll(2)).expect("small")], self.roll(4));
                self.mailbox(name, value);
                "a file was edited"
            }
            5 => {
                self.mailbox("guest", 0);
                "a service was added"
            }
            6 => {
                drop(fs::remove_file(self.stage.tree("guest.yaml")));
                "a service was removed"
            }
            _ => {
                // Both at once, the worst of it.
                drop(self.daemon.take());
                if let Some(pid) = self.keeper() {
                    kill(pid, "KILL");
                }
                "keeper and daemon were killed"
            }
        };
        *self.deeds.entry(deed).or_default() += 1;
        if self.daemon.is_none() {
            self.daemon = Some(self.stage.daemon());
        }
    }
}

#[test]
#[expect(clippy::print_stdout, reason = "the seed of a failure must be seen")]
#[expect(clippy::disallowed_methods, reason = "a story in real time")]
fn whatever_is_killed_nothing_runs_twice_and_no_word_is_lost() {
    let seed = number("CHAOS_SEED", u64::from(std::process::id()));
    let seconds = number("CHAOS_SECONDS", SECONDS);
    println!("CHAOS_SEED={seed} CHAOS_SECONDS={seconds}");
    let mut life = Life::new(seed);
    life.stage.once(&["--timeout", "30s"]).code(0);
    let counts = u32::try_from(life.stage.pid("counts")).expect("a pid");
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(seconds) {
        life.act();
        let calm = Instant::now() + Duration::from_millis(life.roll(400));
        loop {
            life.watch(counts);
            if Instant::now() >= calm {
                break;
            }
        }
    }
    println!("{:?}", life.deeds);
    drop(fs::remove_file(life.stage.tree("guest.yaml")));
    // Peace: everything comes back to what the files say, and stays there.
    wait_until("everything to be in sync", || {
        let answer = life.stage.once(&["--timeout", "20s"]);
        answer.code == 0 && answer.summary()["inSync"] == true && !life.running().contains_key("guest")
    });
    life.watch(counts);
    assert_eq!(life.running().len(), 5, "{:?}", life.running());
    drop(life.daemon.take());
    let log = life.stage.run(&["logs", "counts"]).code(0).out;
    let said: Vec<&str> = log.lines().collect();
    // A keeper that is killed between writing a piece and taking it out of the pipe writes it twice; none is ever missing.
    let mut next = 1;
    for line in &said {
        let n: u64 =
            line.rsplit(' ').next().and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("half a line: {line:?}"));
        assert!(n <= next, "{} is missing before {n}", next);
        next = next.max(n + 1);
    }
    assert!(next > 100, "it said {next} things");
    assert!(alive(u64::from(counts)));
}
