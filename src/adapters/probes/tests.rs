//! Probes against real servers and real commands.

use std::cell::Cell;
use std::future::Future;
use std::path::PathBuf;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// Far beyond what anything here takes; reached only when something is broken.
const DEADLINE: Duration = Duration::from_secs(20);

fn run<T>(story: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, story)
}

/// Probes, and a way to wait for what they say.
struct Bench {
    probes: TokioProbes,
    woken: Rc<Notify>,
    wakes: Rc<Cell<u32>>,
    name: Name,
}

impl Bench {
    fn new() -> Self {
        let (woken, wakes) = (Rc::new(Notify::new()), Rc::new(Cell::new(0)));
        let (notify, count) = (Rc::clone(&woken), Rc::clone(&wakes));
        let wake = Rc::new(move || {
            count.set(count.get() + 1);
            notify.notify_one();
        });
        Self { probes: TokioProbes::new(wake), woken, wakes, name: Name::new("vault").expect("a name") }
    }

    /// Waits until the verdict on process 1 is as wanted.
    async fn until(&self, probe: &Probe, wanted: impl Fn(&Verdict) -> bool) -> Verdict {
        let wait = async {
            loop {
                let verdict = self.probes.watch(&self.name, 1, Millis(0), probe);
                if wanted(&verdict) {
                    return verdict;
                }
                self.woken.notified().await;
            }
        };
        let last = || self.probes.watch(&self.name, 1, Millis(0), probe);
        timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("the verdict stayed {:?}", last()))
    }

    async fn first(&self, probe: &Probe) -> Verdict {
        self.until(probe, |verdict| *verdict != Verdict::Pending).await
    }
}

fn probe(ask: Ask) -> Probe {
    let (delay, period, timeout) = (Millis(0), Millis(10), Millis(2_000));
    Probe {
        role: Role::Readiness,
        ask,
        delay,
        period,
        timeout,
        success_threshold: 1,
        failure_threshold: 3,
        patience: Millis(60_000),
    }
}

fn http(port: u16) -> Probe {
    probe(Ask::Http { port, path: "/health".to_owned(), headers: BTreeMap::new() })
}

fn shell(script: &str) -> Probe {
    let argv = ["sh", "-c", script].map(str::to_owned).to_vec();
    let env = BTreeMap::from([("PATH".to_owned(), Secret::new("/usr/bin:/bin".to_owned()))]);
    probe(Ask::Exec { program: "/bin/sh".into(), argv, dir: "/".into(), env, confinement: Box::default() })
}

/// A server that answers each connection with these bytes and closes it. Ends with the returned handle.
async fn serve(listener: TcpListener, answer: Vec<u8>) -> tokio::task::JoinHandle<()> {
    tokio::task::spawn_local(async move {
        loop {
            let Ok((mut stream, _)) = listener.accept().await else { return };
            let answer = answer.clone();
            tokio::task::spawn_local(async move {
                let mut asked = Vec::new();
                while !asked.ends_with(b"\r\n\r\n") {
                    match stream.read_buf(&mut asked).await {
                        Ok(0) | Err(_) => return,
                        Ok(_) => {}
                    }
                }
                let text = String::from_utf8_lossy(&asked).to_ascii_lowercase();
                assert!(text.starts_with("get /health http/1.1\r\n") && text.contains("connection: close"), "{text}");
                let _ = stream.write_all(&answer).await;
            });
        }
    })
}

async fn server(answer: &str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let port = listener.local_addr().expect("bound").port();
    serve(listener, answer.as_bytes().to_vec()).await;
    port
}

fn gone(pid: u32) -> bool {
    // A zombie still has a folder in /proc; its state is then Z.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.is_empty() || stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'))
}

#[test]
fn a_status_decides() {
    run(async {
        for (status, good) in [(200, true), (204, true), (302, true), (399, true), (400, false), (503, false)] {
            let port = server(&format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n")).await;
            let wanted = if good { Verdict::Good } else { Verdict::Bad(format!("answered {status}")) };
            assert_eq!(Bench::new().first(&http(port)).await, wanted);
        }
    });
}

#[test]
fn a_module_is_seen_to_come_and_to_go() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let port = listener.local_addr().expect("bound").port();
        drop(listener);
        for probe in [http(port), probe(Ask::Tcp { port })] {
            let bench = Bench::new();
            assert_eq!(bench.first(&probe).await, Verdict::Bad(format!("nothing listens on port {port}")));
            assert_eq!(bench.wakes.get(), 1, "the same verdict again wakes nobody");
            let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("the port is still free");
            let server = serve(listener, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec()).await;
            assert_eq!(bench.until(&probe, |v| *v == Verdict::Good).await, Verdict::Good);
            server.abort();
            bench.until(&probe, |v| matches!(v, Verdict::Bad(_))).await;
            assert_eq!(bench.wakes.get(), 3);
        }
    });
}

#[test]
fn answers_that_are_none_are_bad_and_say_why() {
    run(async {
        for (answer, why) in [
            ("SSH-2.0-x\r\n", "the answer is not HTTP"),
            ("", "the connection was closed before the answer was complete"),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok",
                "the connection was closed before the answer was complete",
            ),
        ] {
            let port = server(answer).await;
            assert_eq!(Bench::new().first(&http(port)).await, Verdict::Bad(why.to_owned()), "{answer:?}");
        }
        let mut header = http(server("HTTP/1.1 200 OK\r\n\r\n").await);
        if let Ask::Http { headers, .. } = &mut header.ask {
            headers.insert("X-Good".to_owned(), "a\nb".to_owned());
        }
        let Verdict::Bad(why) = Bench::new().first(&header).await else { panic!("a line break in a header") };
        assert!(why.contains("X-Good"), "{why}");
    });
}

#[test]
fn a_server_that_hangs_is_bad_after_the_timeout() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let port = listener.local_addr().expect("bound").port();
        let probe = Probe { timeout: Millis(30), ..http(port) };
        assert_eq!(Bench::new().first(&probe).await, Verdict::Bad("no answer within 30 ms".to_owned()));
    });
}

#[test]
fn a_body_without_end_is_cut_off() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let port = listener.local_addr().expect("bound").port();
        tokio::task::spawn_local(async move {
            let (mut stream, _) = listener.accept().await.expect("a probe");
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.expect("it listens");
            while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
        });
        let answer = web::get(port, "/", [], DEADLINE).await.expect("an answer");
        assert_eq!((answer.status, answer.body.len()), (200, web::BODY_LIMIT));
    });
}

#[test]
fn a_command_is_good_when_it_ends_with_zero() {
    run(async {
        assert_eq!(Bench::new().first(&shell("exit 0")).await, Verdict::Good);
        let Verdict::Bad(why) = Bench::new().first(&shell("exit 7")).await else { panic!("exit 7") };
        assert!(why.contains("exit status: 7"), "{why}");
        let mut nothing = shell("");
        if let Ask::Exec { program, .. } = &mut nothing.ask {
            *program = PathBuf::from("/nowhere/at/all");
        }
        let Verdict::Bad(why) = Bench::new().first(&nothing).await else { panic!("no program") };
        assert!(why.starts_with("/nowhere/at/all cannot be run"), "{why}");
    });
}

/// A probe command that notes its own pid and that of a grandchild, and hangs.
fn hanging(dir: &Path) -> Probe {
    let file = dir.join("pids");
    shell(&format!("sleep 60 & echo $$ $! > {0}.new; mv {0}.new {0}; wait", file.display()))
}

async fn pids(dir: &Path) -> Vec<u32> {
    let wait = async {
        loop {
            if let Ok(text) = std::fs::read_to_string(dir.join("pids")) {
                return text.split_whitespace().map(|pid| pid.parse().expect("a pid")).collect();
            }
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(DEADLINE, wait).await.expect("the command notes its pids")
}

async fn until_gone(pid: u32, zombie_counts: bool) {
    let there = || if zombie_counts { Path::new(&format!("/proc/{pid}")).exists() } else { !gone(pid) };
    let wait = async {
        while there() {
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("process {pid} is still there"));
}

#[test]
fn a_command_that_hangs_is_killed_with_its_group_and_reaped() {
    run(async {
        let dir = tempfile::tempdir().expect("a folder");
        let bench = Bench::new();
        // Long periods: one attempt is all there is in the life of this test.
        let probe = Probe { timeout: Millis(300), period: Millis(60_000), ..hanging(dir.path()) };
        let started = bench.first(&probe);
        let (verdict, pids) = tokio::join!(started, pids(dir.path()));
        assert_eq!(verdict, Verdict::Bad("no answer within 300 ms".to_owned()));
        bench.probes.drop_probe(&bench.name);
        until_gone(pids[0], true).await;
        until_gone(pids[1], false).await;
    });
}

#[test]
fn a_dropped_probe_takes_its_command_with_it() {
    run(async {
        let dir = tempfile::tempdir().expect("a folder");
        let bench = Bench::new();
        let probe = Probe { timeout: Millis(60_000), ..hanging(dir.path()) };
        assert_eq!(bench.probes.watch(&bench.name, 1, Millis(0), &probe), Verdict::Pending);
        let pids = pids(dir.path()).await;
        bench.probes.drop_probe(&bench.name);
        until_gone(pids[0], true).await;
        until_gone(pids[1], false).await;
        assert_eq!(bench.wakes.get(), 0);
    });
}

#[test]
fn another_process_or_another_probe_starts_anew() {
    run(async {
        let bench = Bench::new();
        let good = shell("exit 0");
        bench.first(&good).await;
        assert_eq!(bench.probes.watch(&bench.name, 1, Millis(0), &good), Verdict::Good);
        assert_eq!(bench.probes.watch(&bench.name, 2, Millis(0), &good), Verdict::Pending);
        bench.first(&good).await;
        let slower = Probe { period: Millis(11), ..good };
        assert_eq!(bench.probes.watch(&bench.name, 1, Millis(0), &slower), Verdict::Pending);
    });
}

#[test]
fn the_delay_and_the_patience_count_from_the_start_of_the_process() {
    run(async {
        let bench = Bench::new();
        let late = Probe { delay: Millis(60_000), ..shell("exit 0") };
        assert_eq!(bench.probes.watch(&bench.name, 1, Millis(60_000), &late), Verdict::Pending);
        assert_eq!(bench.first(&late).await, Verdict::Good, "its delay was over when it was first looked at");
        let name = Name::new("young").expect("a name");
        bench.probes.watch(&name, 1, Millis(100), &late);
        timeout(DEADLINE, bench.probes.settle(Millis(100))).await.expect("the time is over");
        assert_eq!(bench.probes.watch(&name, 1, Millis(200), &late), Verdict::Pending);
        bench.probes.drop_probe(&name);
        // What has failed all its life is at its end for whoever comes later, too.
        let starts = Probe { role: Role::Startup, ..shell("exit 1") };
        for (pid, age, over) in [(2, Millis(59_000), false), (3, Millis(60_000), true)] {
            bench.probes.watch(&bench.name, pid, age, &starts);
            timeout(DEADLINE, bench.probes.settle(Millis(60_000))).await.expect("it answers");
            assert_eq!(bench.probes.exhausted(&bench.name, Role::Startup), over, "{age}");
            bench.probes.drop_probe(&bench.name);
        }
    });
}

#[test]
fn settle_waits_for_one_answer_of_each_and_no_longer() {
    run(async {
        let bench = Bench::new();
        timeout(DEADLINE, bench.probes.settle(Millis(60_000)))
            .await
            .expect("without probes there is nothing to wait for");
        let other = Name::new("other").expect("a name");
        bench.probes.watch(&bench.name, 1, Millis(0), &shell("exit 0"));
        bench.probes.watch(&other, 1, Millis(0), &shell("sleep 0.05; exit 1"));
        timeout(DEADLINE, bench.probes.settle(Millis(60_000))).await.expect("both answer");
        assert_eq!(bench.probes.watch(&bench.name, 1, Millis(0), &shell("exit 0")), Verdict::Good);
        assert!(matches!(bench.probes.watch(&other, 1, Millis(0), &shell("sleep 0.05; exit 1")), Verdict::Bad(_)));
        bench.probes.watch(&other, 1, Millis(0), &Probe { delay: Millis(60_000), ..shell("exit 0") });
        timeout(DEADLINE, bench.probes.settle(Millis(20))).await.expect("the time is over");
    });
}

#[test]
fn thresholds_count_answers_in_a_row() {
    let probe = Probe { success_threshold: 2, failure_threshold: 3, ..shell("") };
    let mut known = Known::new();
    let bad = || Err("no".to_owned());
    let mut step = |answer, wanted: &str| {
        known.take(answer, &probe, Duration::ZERO);
        assert_eq!(format!("{:?}", known.verdict), wanted);
    };
    step(Ok(()), "Pending");
    step(bad(), "Bad(\"no\")");
    step(Ok(()), "Bad(\"no\")");
    step(Ok(()), "Good");
    step(bad(), "Good");
    step(bad(), "Good");
    step(Ok(()), "Good");
    step(bad(), "Good");
    step(bad(), "Good");
    step(bad(), "Bad(\"no\")");
    step(Ok(()), "Bad(\"no\")");
    step(Ok(()), "Good");
}

#[test]
fn attempts_are_dense_at_first_and_follow_the_period_in_the_end() {
    let ms = Duration::from_millis;
    for (age, period, wanted) in [
        (0, 5_000, 5),
        (400, 5_000, 20),
        (9_000, 5_000, 100),
        (60_000, 5_000, 600),
        (3_600_000, 5_000, 5_000),
        (3_600_000, 20, 100),
    ] {
        assert_eq!(pause(false, ms(age), ms(period), None), ms(wanted), "age {age}, period {period}");
    }
    assert_eq!(pause(true, ms(1), ms(5_000), None), ms(5_000));
    assert_eq!(pause(true, ms(1), ms(0), None), FIRST_PAUSE);
    // Few are hurried, many are not, and none more than its age allows.
    for (age, starting, wanted) in [(10, 1, 1), (10, 4, 2), (10, 100, 5), (1_000, 1, 10), (1_000, 1_000, 50)] {
        assert_eq!(pause(false, ms(age), ms(5_000), Some(starting)), ms(wanted), "age {age}, {starting} starting");
    }
}
