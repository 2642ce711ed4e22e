//! A module that prints without end is nobody else's trouble, and a full disk costs lines and no module.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::stage::{Stage, alive, kill, shell, wait_until};

/// The keeper of a stage, by its own log folder's lock file.
fn keeper_pid(stage: &Stage) -> u64 {
    let one = stage.pid("calm");
    let stat = fs::read_to_string(format!("/proc/{one}/stat")).expect("its stat");
    let after = stat.rsplit(')').next().expect("fields");
    after.split_whitespace().nth(1).and_then(|parent| parent.parse().ok()).expect("a parent")
}

/// Resident memory in KiB.
fn resident(pid: u64) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}

/// How long after it was written each line of `calm` was stamped, in milliseconds: the line says when it was written.
fn delays(stage: &Stage) -> Vec<i64> {
    let out = stage.run(&["logs", "calm", "-o", "json"]).code(0);
    let millis = |text: &str| text.parse::<jiff::Timestamp>().ok().map(|at| at.as_millisecond());
    let delay = |line: &serde_json::Value| Some(millis(line["at"].as_str()?)? - millis(line["text"].as_str()?)?);
    out.typed("log").iter().filter_map(delay).collect()
}

#[test]
#[expect(clippy::disallowed_methods, clippy::print_stdout, reason = "a story in real time, with figures to be read")]
fn a_module_that_prints_without_end_delays_no_other_and_fills_no_memory() {
    let stage = Stage::new();
    stage.hub();
    let calm = "while :; do date -u +%Y-%m-%dT%H:%M:%S.%NZ; sleep 0.05; done";
    stage.write("calm.yaml", &shell("calm", calm, ""));
    stage.once(&[]).code(0);
    let keeper = keeper_pid(&stage);
    wait_until("some quiet lines", || delays(&stage).len() > 20);
    let before = resident(keeper);
    let quiet = delays(&stage).len();
    stage.write("loud.yaml", &shell("loud", "exec yes 'a line of a module that prints without end'", ""));
    stage.once(&[]).code(0);
    let loud = stage.pid("loud");
    // So much of it that whatever is kept in memory would be seen there.
    let printed = || {
        fs::read_to_string(format!("/proc/{loud}/io"))
            .ok()
            .and_then(|io| io.lines().find_map(|l| l.strip_prefix("wchar: ").and_then(|n| n.parse::<u64>().ok())))
    };
    let begun = Instant::now();
    wait_until("a quarter of a gigabyte to be printed", || printed().is_some_and(|bytes| bytes > 256 << 20));
    let rate = printed().unwrap_or(0) as f64 / 1e6 / begun.elapsed().as_secs_f64();
    wait_until("more lines of the other", || delays(&stage).len() > quiet + 20);
    let mut noisy = delays(&stage).split_off(quiet);
    noisy.sort_unstable();
    let (middle, worst) = (noisy[noisy.len() / 2], noisy[noisy.len() - 1]);
    let pid = stage.pid("calm");
    let killed = Instant::now();
    kill(pid, "KILL");
    wait_until("the other to be restarted", || {
        !alive(pid) && stage.get("calm")["pid"].as_u64().is_some_and(|p| p != pid)
    });
    let restart = killed.elapsed();
    let after = resident(keeper);
    println!(
        "{rate:.0} MB/s; delay {middle} ms, at worst {worst} ms; restart seen after {restart:?}; {before} -> {after} KiB"
    );
    assert!(middle < 250 && worst < 2_000, "lines are late: {noisy:?}");
    assert!(restart < Duration::from_secs(5), "restarted late: {restart:?}");
    assert!(after < before + (32 << 10), "the keeper grew from {before} to {after} KiB");
    let kept: u64 = fs::read_dir(stage.path(".trueup/logs/loud"))
        .expect("its logs")
        .flatten()
        .filter_map(|entry| entry.metadata().ok().map(|meta| meta.len()))
        .sum();
    assert!(kept <= 6 * (10 << 20) + (1 << 20), "bounded on the disk too: {kept}");
}

#[test]
fn bytes_that_are_no_text_and_lines_without_end_are_safe() {
    let stage = Stage::new();
    stage.hub();
    let script = "head -c 3000000 /dev/zero | tr '\\\\0' x; echo; printf '\\\\000\\\\377\\\\033[2J\\\\n'; echo after; exec sleep 1000";
    stage.write("calm.yaml", &shell("calm", &script.replace("\\\\", "\\"), "  logs: { maxSize: 8MiB }\n"));
    stage.once(&[]).code(0);
    let last = || stage.run(&["logs", "calm", "-o", "json", "-n", "3"]).code(0).typed("log");
    wait_until("the last line", || last().last().is_some_and(|line| line["text"] == "after"));
    let lines = last();
    let binary = lines[lines.len() - 2]["text"].as_str().expect("a text").to_owned();
    assert!(binary.contains("\\xff"), "{binary:?}");
    let all = stage.run(&["logs", "calm"]).code(0).out;
    assert!(!all.contains('\u{1b}') && !all.contains('\0'), "a terminal sees no control characters");
    assert_eq!(all.bytes().filter(|byte| *byte == b'x').count() - 2, 3_000_000 - 1, "nothing of the long line is lost");
    assert!(resident(keeper_pid(&stage)) < 64 << 10);
}

#[test]
#[expect(clippy::print_stderr, reason = "a skipped story says so")]
fn a_full_disk_costs_lines_and_no_module_and_the_loss_is_counted() {
    let possible = Command::new("unshare").args(["-rm", "mount", "-t", "tmpfs", "none", "/mnt"]).output();
    if !possible.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: this machine lets nobody mount a small file system");
        return;
    }
    let stage = Stage::new();
    stage.hub();
    stage.write("calm.yaml", &shell("calm", "n=0; while :; do n=$((n+1)); echo line $n; sleep 0.02; done", ""));
    let script = "
        exec 2>&1
        mkdir -p .trueup/logs && chmod 700 .trueup && mount -t tmpfs -o size=256k none .trueup/logs
        trueup reconcile --once >/dev/null
        pid=$(trueup get calm -o json | grep -o '\"pid\":[0-9]*' | head -1)
        wait_for() { n=0; until eval \"$1\"; do n=$((n+1)); [ $n -gt 400 ] && break; sleep 0.05; done; }
        wait_for 'grep -q line .trueup/logs/calm/current.log'
        dd if=/dev/zero of=.trueup/logs/filler bs=1k 2>/dev/null
        wait_for 'grep -rqs dropped .trueup/keeper.log'
        sleep 1
        rm .trueup/logs/filler
        wait_for 'grep -q lost .trueup/logs/calm/current.log'
        sleep 0.2
        echo '== pids'; [ \"$pid\" = \"$(trueup get calm -o json | grep -o '\"pid\":[0-9]*' | head -1)\" ] && echo same $pid
        echo '== log'; grep -A2 -B1 lost .trueup/logs/calm/current.log
        trueup down >/dev/null
    ";
    let bin = std::path::Path::new(env!("CARGO_BIN_EXE_trueup")).parent().expect("a folder");
    let output = Command::new("unshare")
        .args(["-rm", "/bin/sh", "-c", script])
        .current_dir(stage.dir.path())
        .env_clear()
        .env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", bin.display()))
        .output()
        .expect("unshare runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("same \"pid\":"), "the module goes on:\n{said}");
    assert!(said.contains("bytes of output were lost here"), "{said}");
    let lost = said.split("== log").nth(1).expect("the log").lines().filter(|line| line.contains(" F line ")).count();
    assert!(lost >= 2, "lines before and after:\n{said}");
}
