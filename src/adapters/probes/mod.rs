//! Probes, one tokio task each. They run on the engine's thread (`spawn_local`: a `LocalSet` or a
//! `LocalRuntime`), so looking at a verdict is reading a cell.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::rc::Rc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Command;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};

use super::web::{self, Fault};
use crate::keeper::confined::{self, Confined};
use crate::model::id::Name;
use crate::model::secret::Secret;
use crate::model::seldom::Seldom;
use crate::model::time::Tick;
use crate::model::unit::Millis;
use crate::ports::Answer;
use crate::ports::keeper::Confinement;
use crate::ports::probes::{Ask, Probe, Probes, Role, Verdict};

/// The pause between attempts on a module that is starting, when many are. A refused connection costs some 50 microseconds, so
/// this is at most one percent of a core for each.
const FIRST_PAUSE: Duration = Duration::from_millis(5);

/// The shortest pause, when few are: whoever waits for one module waits for nothing else.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);

/// What each starting module adds to the pause of all: together they cost at most a tenth of a core.
const PAUSE_FOR_EACH: Duration = Duration::from_micros(500);

/// Attempts on a starting module come at least this often while it is [`YOUNG`]: nobody who waits for it notices 100 ms then.
const YOUNG_PAUSE: Duration = Duration::from_millis(100);

/// While a process is this young, its probe is dense. Later the pause grows to the period: it may never become ready.
const YOUNG: Duration = Duration::from_secs(10);

/// After an attempt that could not be made, for want of something here, the next one comes so soon at the latest.
const LOCAL_PAUSE: Duration = Duration::from_secs(1);

/// Calls back when a verdict changed. It must not call the probes itself.
pub type Wake = Rc<dyn Fn()>;

/// Probes by unit on the current thread's tokio runtime.
pub struct TokioProbes {
    wake: Wake,
    running: RefCell<BTreeMap<(Name, Role), Running>>,
    /// Told whenever a probe has an answer or is gone.
    answers: Rc<Notify>,
    /// How many probes still wait for their first good answer.
    starting: Rc<Cell<u32>>,
    local: Rc<Local>,
}

/// Attempts that could not be made.
struct Local {
    begun: Instant,
    seldom: RefCell<Seldom>,
}

impl Local {
    fn failed(&self, why: &str) {
        let now = Tick(u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX));
        if let Some(count) = self.seldom.borrow_mut().happened(now) {
            tracing::warn!(why, count, "probes could not be tried; what they found before still counts");
        }
    }
}

/// One probe that waits for its first good answer.
struct Starting(Rc<Cell<u32>>);

impl Starting {
    fn new(all: &Rc<Cell<u32>>) -> Self {
        all.set(all.get() + 1);
        Self(Rc::clone(all))
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// A probe at work. Dropping it ends its task and whatever command that has running.
struct Running {
    pid: u32,
    probe: Probe,
    known: Rc<RefCell<Known>>,
    task: AbortHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a probe has found out.
struct Known {
    verdict: Verdict,
    answered: bool,
    good_in_a_row: u32,
    bad_in_a_row: u32,
    exhausted: bool,
}

impl TokioProbes {
    pub fn new(wake: Wake) -> Self {
        let local = Rc::new(Local { begun: Instant::now(), seldom: RefCell::default() });
        Self { wake, running: RefCell::default(), answers: Rc::default(), starting: Rc::default(), local }
    }

    fn start(&self, pid: u32, age: Millis, probe: &Probe) -> Running {
        let known = Rc::new(RefCell::new(Known::new()));
        let (task_probe, task_known) = (probe.clone(), Rc::clone(&known));
        let (wake, answers) = (Rc::clone(&self.wake), Rc::clone(&self.answers));
        let (starting, local) = (Rc::clone(&self.starting), Rc::clone(&self.local));
        let task = tokio::task::spawn_local(async move {
            attempts(&task_probe, age.into(), &task_known, &*wake, &answers, (&starting, &local)).await;
        });
        Running { pid, probe: probe.clone(), known, task: task.abort_handle() }
    }
}

impl Probes for TokioProbes {
    fn watch(&self, name: &Name, pid: u32, age: Millis, probe: &Probe) -> Verdict {
        let mut running = self.running.borrow_mut();
        let key = (name.clone(), probe.role);
        if let Some(old) = running.get(&key).filter(|old| old.pid == pid && old.probe == *probe) {
            return old.known.borrow().verdict.clone();
        }
        running.insert(key, self.start(pid, age, probe));
        Verdict::Pending
    }

    fn exhausted(&self, name: &Name, role: Role) -> bool {
        self.running.borrow().get(&(name.clone(), role)).is_some_and(|one| one.known.borrow().exhausted)
    }

    fn run<'a>(&'a self, ask: &'a Ask, at_most: Millis) -> Answer<'a, Result<(), String>> {
        Box::pin(async move { attempt(ask, at_most).await.map_err(|why| why.to_string()) })
    }

    fn drop_probe(&self, name: &Name) {
        for role in [Role::Startup, Role::Readiness, Role::Liveness] {
            self.running.borrow_mut().remove(&(name.clone(), role));
        }
        self.answers.notify_waiters();
    }

    fn settle(&self, at_most: Millis) -> Answer<'_, ()> {
        let all_answered = || self.running.borrow().values().all(|one| one.known.borrow().answered);
        Box::pin(async move {
            let settled = async {
                // On one thread nothing can be answered between the look and the wait.
                while !all_answered() {
                    self.answers.notified().await;
                }
            };
            // Cut off by time is as good as settled: whoever asks looks at the verdicts next.
            let _ = timeout(at_most.into(), settled).await;
        })
    }
}

impl Known {
    fn new() -> Self {
        Self { verdict: Verdict::Pending, answered: false, good_in_a_row: 0, bad_in_a_row: 0, exhausted: false }
    }

    /// Takes one answer in; says whether something that is looked at changed. Thresholds as in Kubernetes, except that a module that was
    /// never good is said to be bad from its first bad answer on, so that people see what it is waiting for.
    fn take(&mut self, answer: Result<(), String>, probe: &Probe, age: Duration) -> bool {
        self.answered = true;
        let before = self.exhausted;
        let verdict = match answer {
            Ok(()) => {
                self.bad_in_a_row = 0;
                self.good_in_a_row = self.good_in_a_row.saturating_add(1);
                (self.good_in_a_row >= probe.success_threshold).then_some(Verdict::Good)
            }
            Err(why) => {
                self.good_in_a_row = 0;
                self.bad_in_a_row = self.bad_in_a_row.saturating_add(1);
                let stays = self.verdict == Verdict::Good && self.bad_in_a_row < probe.failure_threshold;
                (!stays).then_some(Verdict::Bad(why))
            }
        };
        self.exhausted = match probe.role {
            Role::Startup => self.bad_in_a_row > 0 && age >= Duration::from(probe.patience),
            Role::Readiness | Role::Liveness => self.bad_in_a_row >= probe.failure_threshold,
        };
        let exhausted = self.exhausted != before;
        match verdict {
            Some(verdict) if verdict != self.verdict => {
                self.verdict = verdict;
                true
            }
            _ => exhausted,
        }
    }
}

/// Asks for ever. Ends by being aborted. `age` is that of the process now.
async fn attempts(
    probe: &Probe,
    age: Duration,
    known: &RefCell<Known>,
    wake: &dyn Fn(),
    answers: &Notify,
    (all_starting, local): (&Rc<Cell<u32>>, &Local),
) {
    let asked = Instant::now();
    sleep(Duration::from(probe.delay).saturating_sub(age)).await;
    let start = Instant::now();
    // A module that does not live is no reason to hurry.
    let mut was_good = probe.role == Role::Liveness;
    let mut starting = (!was_good).then(|| Starting::new(all_starting));
    loop {
        let answer = match attempt(&probe.ask, probe.timeout).await {
            Ok(()) => Ok(()),
            Err(Fault::Failed(why)) => Err(why),
            Err(Fault::Unasked(why)) => {
                // The module was not asked, so it has not failed.
                local.failed(&why);
                sleep(Duration::from(probe.period).clamp(YOUNG_PAUSE, LOCAL_PAUSE)).await;
                continue;
            }
        };
        let changed = known.borrow_mut().take(answer, probe, age + asked.elapsed());
        was_good |= known.borrow().verdict == Verdict::Good;
        if was_good || start.elapsed() >= YOUNG {
            starting = None;
        }
        answers.notify_waiters();
        if changed {
            wake();
        }
        if probe.role == Role::Startup && was_good {
            return;
        }
        let others = if matches!(probe.ask, Ask::Exec { .. }) { None } else { starting.as_ref().map(|s| s.0.get()) };
        sleep(pause(was_good, start.elapsed(), probe.period.into(), others)).await;
    }
}

/// How long to wait for the next attempt. A module that is starting is asked so often that its readiness is seen with at
/// most five percent of delay, and less when few are starting (`starting`; a command is never hurried, it costs a process).
/// After [`YOUNG`] the share falls to one percent, and the pause grows up to the period.
fn pause(was_good: bool, age: Duration, period: Duration, starting: Option<u32>) -> Duration {
    if was_good {
        // A period of zero would be a busy loop.
        return period.max(FIRST_PAUSE);
    }
    if age >= YOUNG {
        return (age / 100).min(period).max(YOUNG_PAUSE);
    }
    let usual = (age / 20).clamp(FIRST_PAUSE, YOUNG_PAUSE);
    starting.map_or(usual, |n| SHORTEST_PAUSE.max(PAUSE_FOR_EACH * n).max(age / 100).min(usual))
}

async fn attempt(ask: &Ask, at_most: Millis) -> Result<(), Fault> {
    let at_most = Duration::from(at_most);
    match ask {
        Ask::Http { port, path, headers } => {
            let answer = web::get(*port, path, headers, at_most).await?;
            if (200..400).contains(&answer.status) {
                Ok(())
            } else {
                Err(Fault::Failed(format!("answered {}", answer.status)))
            }
        }
        Ask::Tcp { port } => match timeout(at_most, web::connect(*port)).await {
            // Closed the polite way: a reset would reach some servers as an error that they do not expect.
            Ok(connected) => connected.map(drop),
            Err(_) => Err(Fault::Failed(too_long(at_most))),
        },
        Ask::Exec { program, argv, dir, env, confinement } => {
            let (command, confined) = command(program, argv, dir, confinement)?;
            exec(program, command, confined, env, at_most).await
        }
    }
}

fn too_long(limit: Duration) -> String {
    format!("no answer within {} ms", limit.as_millis())
}

/// What to start: with rights and limits of its own it becomes itself by the same way as the service does.
fn command(
    program: &Path,
    argv: &[String],
    dir: &Path,
    confinement: &Confinement,
) -> Result<(Command, Option<Confined>), Fault> {
    if confinement.is_none() {
        let mut command = Command::new(program);
        if let Some(name) = argv.first() {
            command.arg0(name);
        }
        command.args(argv.iter().skip(1)).current_dir(dir).stdin(Stdio::null());
        return Ok((command, None));
    }
    let (command, confined) = confined::command(program, argv, dir, confinement)
        .map_err(|why| Fault::of(&why, format!("{} cannot be run: {why}", program.display())))?;
    Ok((command.into(), Some(confined)))
}

/// Runs a command in a process group of its own. The group is killed when the time is over and when the probe is dropped;
/// the process is reaped in both cases. Its output may hold secrets, so nobody reads it.
async fn exec(
    program: &Path,
    mut command: Command,
    confined: Option<Confined>,
    env: &BTreeMap<String, Secret>,
    at_most: Duration,
) -> Result<(), Fault> {
    let name = |name| if confined.is_some() { confined::held(name) } else { Cow::Borrowed(name) };
    command
        .env_clear()
        .envs(env.iter().map(|(key, value)| (name(key.as_str()).into_owned(), value.reveal())))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        // When this future is dropped, tokio kills and reaps the process; the guard kills the rest of its group.
        .kill_on_drop(true);
    let unrun = |error: io::Error| Fault::of(&error, format!("{} cannot be run: {error}", program.display()));
    let mut child = command.spawn().map_err(unrun)?;
    // Its end of the socket closes with it.
    drop(command);
    let mut group = Group(child.id());
    let ended = timeout(at_most, child.wait()).await;
    match ended {
        Ok(status) => {
            group.0 = None;
            let status = status.map_err(|error| format!("{} was lost: {error}", program.display()))?;
            // It may never have become the program.
            if let Some(why) = confined.and_then(|confined| confined.reason()) {
                return Err(Fault::Failed(format!("cannot be run: {why}")));
            }
            if status.success() {
                Ok(())
            } else {
                Err(Fault::Failed(format!("{} ended with {status}", program.display())))
            }
        }
        Err(_) => {
            drop(group);
            // The kill cannot be refused, so this is short.
            let _ = child.wait().await;
            Err(Fault::Failed(too_long(at_most)))
        }
    }
}

/// The process group of a running probe command; killed on drop. Its leader is not reaped before that, so the number is ours.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        let leader = self.0.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        if let Some(leader) = leader {
            // It may have ended by itself a moment ago.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests;
