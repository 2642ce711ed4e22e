//! The log reader on real files: rotation, tails, parts, several units, a reader that goes away.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use super::unit::UnitLog;
use crate::cli::interrupt::{Interrupts, Stop, cancel};
use crate::cli::render::screen::Screen;
use crate::cli::render::tests::{Captured, captured};
use crate::cli::tests::Pretend;
use crate::model::exit::Exit;

/// A state folder with log files.
struct State {
    dir: tempfile::TempDir,
}

fn raw(second: u32, tag: &str, text: &str) -> String {
    format!("2026-11-21T02:{:02}:{:02}.000000Z stdout {tag} {text}\n", second / 60, second % 60)
}

impl State {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a folder") }
    }
    fn logs(&self) -> PathBuf {
        self.dir.path().join("logs")
    }
    fn file(&self, unit: &str, name: &str) -> PathBuf {
        let folder = self.logs().join(unit);
        fs::create_dir_all(&folder).expect("a folder");
        folder.join(name)
    }
    fn write(&self, unit: &str, name: &str, text: &str) {
        fs::write(self.file(unit, name), text).expect("written");
    }
    fn append(&self, unit: &str, text: &str) {
        let file = fs::OpenOptions::new().create(true).append(true).open(self.file(unit, "current.log"));
        file.expect("opened").write_all(text.as_bytes()).expect("appended");
    }
    /// What the keeper does: 1 becomes 2, current becomes 1.
    fn rotate(&self, unit: &str) {
        for number in (1..9).rev() {
            let from = self.file(unit, &format!("{number}.log"));
            if from.exists() {
                fs::rename(from, self.file(unit, &format!("{}.log", number + 1))).expect("renamed");
            }
        }
        fs::rename(self.file(unit, "current.log"), self.file(unit, "1.log")).expect("renamed");
        self.write(unit, "current.log", "");
    }
    fn run(&self, words: &[&str]) -> (Exit, String, String) {
        let (mut screen, out, err) = captured();
        let exit = self.run_on(words, &mut screen);
        (exit, out.text(), err.text())
    }
    fn run_on(&self, words: &[&str], screen: &mut Screen) -> Exit {
        let state = self.dir.path().to_str().expect("a UTF-8 path");
        let all: Vec<&str> = ["trueup", "--state", state, "logs"].into_iter().chain(words.iter().copied()).collect();
        let (_trigger, cancel) = cancel();
        crate::cli::run(all, &Pretend::default(), screen, Interrupts::Given(cancel))
    }
}

fn drain(log: &mut UnitLog) -> Vec<String> {
    let mut texts = Vec::new();
    while let Some(record) = log.next().expect("readable") {
        texts.push(String::from_utf8_lossy(&record.text).into_owned());
    }
    texts
}

#[test]
fn files_are_read_from_old_to_new_and_parts_are_joined_across_them() {
    let state = State::new();
    state.write("vault", "2.log", &raw(1, "F", "one"));
    state.write("vault", "1.log", &(raw(2, "F", "two") + &raw(3, "P", "thr")));
    state.write("vault", "current.log", &(raw(4, "F", "ee") + &raw(5, "F", "four")));
    let (exit, out, err) = state.run(&["vault"]);
    assert_eq!((exit, out.as_str(), err.as_str()), (Exit::Done, "one\ntwo\nthree\nfour\n", ""));
}

#[test]
fn units_are_merged_by_time_and_named() {
    let state = State::new();
    state.write("vault", "current.log", &(raw(1, "F", "v1") + &raw(4, "F", "v4")));
    state.write("clerk", "current.log", &(raw(2, "F", "c2") + &raw(3, "F", "c3") + "not in the format\n"));
    let expected = "vault | v1\nclerk | c2\nclerk | c3\nclerk | not in the format\nvault | v4\n";
    assert_eq!(state.run(&["vault", "service/clerk"]).1, expected);
    assert_eq!(state.run(&[]).1, expected, "no name means all");
    let stamped = state.run(&["clerk", "--timestamps", "-n", "2"]).1;
    assert_eq!(stamped, "2026-11-21T02:00:03.000000Z c3\n not in the format\n");
    let json = state.run(&["clerk", "-o", "json", "-n", "2"]).1;
    let first = r#"{"type":"log","unit":"clerk","at":"2026-11-21T02:00:03.000000Z","stream":"stdout","text":"c3"}"#;
    assert_eq!(json.lines().next(), Some(first));
}

#[test]
fn the_tail_is_exact_whatever_the_sizes() {
    let state = State::new();
    // Lines of very different lengths, so that block edges fall everywhere, over three files.
    let mut expected = Vec::new();
    for (file, name) in ["2.log", "1.log", "current.log"].iter().enumerate() {
        let mut text = String::new();
        for line in 0..400 {
            let body = format!("{file}-{line}-{}", "x".repeat((line * 37) % 900));
            if line % 7 == 0 {
                text.push_str(&raw(1, "P", "part "));
                expected.push(format!("part {body}"));
            } else {
                expected.push(body.clone());
            }
            text.push_str(&raw(1, "F", &body));
        }
        state.write("vault", name, &text);
    }
    for want in [0, 1, 2, 7, 8, 399, 400, 401, 800, 1_199, 1_200, 5_000] {
        let mut log = UnitLog::open(&state.logs(), "vault", Some(want)).expect("readable");
        let texts = drain(&mut log);
        assert_eq!(texts, expected[expected.len().saturating_sub(want)..], "last {want}");
    }
}

#[test]
fn following_survives_rotation_and_loses_nothing() {
    let state = State::new();
    state.append("vault", &raw(1, "F", "a"));
    let mut log = UnitLog::open(&state.logs(), "vault", None).expect("readable");
    assert_eq!(drain(&mut log), ["a"]);
    // Written after the last look, before the rotation; then two rotations between two looks; a half line at the end.
    state.append("vault", &raw(2, "F", "b"));
    state.rotate("vault");
    state.append("vault", &raw(3, "F", "c"));
    state.rotate("vault");
    state.append("vault", &raw(4, "F", "d"));
    state.append("vault", "2026-11-21T02:00:05.000000Z stdout F ha");
    log.refresh().expect("readable");
    assert_eq!(drain(&mut log), ["b", "c", "d"]);
    state.append("vault", "lf\n");
    log.refresh().expect("readable");
    assert_eq!(drain(&mut log), ["half"]);
    // Our file is gone altogether: what is left is newer than it.
    state.append("vault", &raw(6, "F", "e"));
    state.rotate("vault");
    fs::remove_file(state.file("vault", "1.log")).expect("removed");
    state.append("vault", &raw(7, "F", "f"));
    log.refresh().expect("readable");
    assert!(drain(&mut log).ends_with(&["f".to_owned()]));
}

#[test]
fn a_rotation_under_way_hides_no_file() {
    let state = State::new();
    for (file, text) in [("current.log", "d"), ("2.log", "b"), ("3.log", "a")] {
        state.write("vault", file, &raw(1, "F", text));
    }
    assert_eq!(state.run(&["vault"]).1, "a\nb\nd\n", "1.log is not there for a moment");
    fs::rename(state.file("vault", "current.log"), state.file("vault", "1.log")).expect("renamed");
    assert_eq!(state.run(&["vault"]).1, "a\nb\nd\n", "nor is current.log");
}

#[test]
fn a_file_that_was_emptied_in_place_is_read_again() {
    let state = State::new();
    state.append("vault", &raw(1, "F", "long line before"));
    let mut log = UnitLog::open(&state.logs(), "vault", None).expect("readable");
    drain(&mut log);
    state.write("vault", "current.log", "");
    log.refresh().expect("readable");
    state.append("vault", &raw(2, "F", "new"));
    log.refresh().expect("readable");
    assert_eq!(drain(&mut log), ["new"]);
}

#[test]
fn since_leaves_out_what_is_older() {
    let state = State::new();
    // The pretend clock stands at 02:10:00.
    state.write("vault", "current.log", &(raw(60, "F", "old") + &raw(599, "F", "young")));
    assert_eq!(state.run(&["vault", "--since", "1m"]).1, "young\n");
    assert_eq!(state.run(&["vault", "--since", "1h"]).1, "old\nyoung\n");
    assert_eq!(state.run(&["vault", "--since", "60"]).0, Exit::Usage);
}

#[test]
fn a_name_without_output_is_an_error_with_a_hint() {
    let state = State::new();
    assert_eq!(state.run(&[]).0, Exit::Done, "nothing at all is no mistake");
    state.write("vault", "current.log", "");
    let (exit, out, err) = state.run(&["valt"]);
    assert_eq!((exit, out.as_str()), (Exit::Error, ""));
    assert_eq!(err, "error: there is no output of 'valt'\n  help: did you mean 'vault'?\n");
    assert_eq!(state.run(&["hub/home"]).0, Exit::Usage);
    assert_eq!(state.run(&["../../etc"]).0, Exit::Usage, "a path is no name");
}

#[test]
fn hostile_output_is_harmless() {
    let state = State::new();
    state.write("vault", "current.log", &raw(1, "F", "\u{1b}]0;title\u{7}\u{1b}[2J\u{1b}[31mred\u{8}\u{1b}[0m"));
    let mut bytes = b"2026-11-21T02:00:02.000000Z stderr F ".to_vec();
    bytes.extend_from_slice(&[0xff, 0x00, b'x', b'\n']);
    fs::write(state.file("clerk", "current.log"), bytes).expect("written");
    assert_eq!(state.run(&["vault"]).1, "red\\u{8}\n");
    assert_eq!(state.run(&["clerk"]).1, "\\xff\\u{0}x\n");
}

/// A writer whose reader is gone.
struct Gone;

impl Write for Gone {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_reader_that_goes_away_is_no_mistake() {
    let state = State::new();
    state.write("vault", "current.log", &raw(1, "F", "x").repeat(10_000));
    let err = Captured::default();
    let mut screen = Screen::plain(Box::new(Gone), Box::new(err.clone()));
    assert_eq!(state.run_on(&["vault"], &mut screen), Exit::Done);
    let mut screen = Screen::plain(Box::new(Gone), Box::new(err.clone()));
    assert_eq!(state.run_on(&["vault", "-f"], &mut screen), Exit::Done);
    assert_eq!(err.text(), "");
}

/// Waits until the screen shows all of these; the pause only keeps the loop from spinning.
async fn until_shown(out: &Captured, texts: &[&str]) {
    let all = async {
        while !texts.iter().all(|text| out.text().contains(text)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let done = tokio::time::timeout(Duration::from_secs(20), all).await;
    done.unwrap_or_else(|_| panic!("not shown: {texts:?} in {:?}", out.text()));
}

/// Runs `logs -f`; writes when the first text is on the screen, and leaves when the others are.
fn followed(state: &State, words: &[&str], first: &str, write: impl FnOnce(), others: &[&str]) -> (String, String) {
    let (mut screen, out, err) = captured();
    let (trigger, cancel) = cancel();
    let root = state.dir.path().to_str().expect("a UTF-8 path");
    let words: Vec<&str> = ["trueup", "--state", root, "logs", "-f"].into_iter().chain(words.iter().copied()).collect();
    let cli = <crate::cli::args::Cli as clap::Parser>::try_parse_from(words).expect("words");
    let place = crate::cli::place(&cli.global).expect("a place");
    let crate::cli::args::Command::Logs(args) = cli.command else { panic!("logs") };
    let wiring = Pretend::default();
    let desk = crate::cli::Desk { place: &place, wiring: &wiring, cancel: &cancel };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let drive = async {
            if first == "no output" {
                until_shown(&err, &[first]).await;
            } else {
                until_shown(&out, &[first]).await;
            }
            write();
            until_shown(&out, others).await;
            trigger.stop(Stop::Interrupt);
        };
        let (exit, ()) = tokio::join!(super::follow(&args, desk, &mut screen), drive);
        assert_eq!(exit.expect("followed"), Exit::Done);
    });
    (out.text(), err.text())
}

#[test]
fn follow_shows_the_end_then_what_comes_and_new_units_too() {
    let state = State::new();
    state.write("vault", "current.log", &(0..30).map(|n| raw(n, "F", &n.to_string())).collect::<String>());
    let write = || {
        state.append("clerk", &raw(90, "F", "hello"));
        state.append("vault", &raw(91, "F", "last"));
        state.rotate("vault");
        state.append("vault", &raw(92, "F", "rotated"));
    };
    let (text, _) =
        followed(&state, &[], "vault | 29\n", write, &["clerk | hello\n", "vault | last\n", "vault | rotated\n"]);
    assert!(text.starts_with("vault | 20\nvault | 21\n"), "{text}");
}

#[test]
fn what_is_followed_can_be_sifted() {
    let state = State::new();
    state.write("vault", "current.log", &(0..30).map(|n| raw(n, "F", &n.to_string())).collect::<String>());
    let write = || state.append("vault", &(raw(90, "F", "no") + &raw(91, "F", "27 again")));
    let (text, _) = followed(&state, &["vault", "--grep", "7"], "27\n", write, &["27 again\n"]);
    assert_eq!(text, "7\n17\n27\n27 again\n");
}

#[test]
fn follow_waits_for_a_unit_that_has_no_output_yet() {
    let state = State::new();
    let write = || state.append("late", &raw(1, "F", "here at last"));
    let (out, err) = followed(&state, &["late"], "no output", write, &["last"]);
    assert_eq!(out, "here at last\n");
    assert_eq!(err, "no output of 'late' yet, waiting for it\n");
}

#[test]
fn only_matching_lines_are_shown_and_the_last_ones_are_the_last_that_match() {
    let state = State::new();
    for second in 0..50 {
        state.append("vault", &raw(second, "F", &format!("v{second} status={}", 200 + second % 3)));
    }
    // The words of a line stand in two parts.
    state.append("clerk", &raw(60, "P", "status"));
    state.append("clerk", &raw(61, "F", "=201 joined"));
    let out = |words: &[&str]| state.run(words).1;
    assert_eq!(out(&["vault", "--grep", "status=201", "-n", "2"]), "v46 status=201\nv49 status=201\n");
    assert_eq!(out(&["vault", "--grep", "v4[78]"]), "v47 status=202\nv48 status=200\n");
    assert_eq!(out(&["--grep", "=201", "-n", "1"]), "vault | v49 status=201\nclerk | status=201 joined\n");
    assert_eq!(out(&["vault", "--grep", "nothing like it"]), "");
    assert_eq!(out(&["vault", "--grep", "v49", "-o", "json"]).lines().count(), 1);
    let (exit, _, said) = state.run(&["vault", "--grep", "(open"]);
    assert_eq!(exit, Exit::Usage);
    assert!(said.contains("unclosed group"), "{said}");
}

#[test]
fn what_was_removed_is_shown_by_name_only() {
    let state = State::new();
    state.append("vault", &raw(1, "F", "v1"));
    state.append("gone", &raw(2, "F", "g1"));
    state.append("kept", &raw(3, "F", "k1"));
    let manifests = state.dir.path().join("manifests");
    let words = |more: &[&'static str]| {
        let mut all = vec!["--manifests".to_owned(), manifests.to_str().expect("UTF-8").to_owned()];
        all.extend(more.iter().map(|word| (*word).to_owned()));
        all
    };
    let run = |more: &[&'static str]| {
        let all = words(more);
        state.run(&all.iter().map(String::as_str).collect::<Vec<_>>())
    };
    assert_eq!(run(&[]).1.lines().count(), 3, "without manifests nobody knows what was removed");
    fs::create_dir(&manifests).expect("made");
    fs::write(manifests.join("a.yaml"), "kind: Service\nmetadata: { name: vault }\n").expect("written");
    fs::create_dir(state.dir.path().join("run")).expect("made");
    fs::write(state.dir.path().join("run/kept.json"), "{}").expect("written");
    let (_, out, err) = run(&[]);
    assert_eq!(out, "vault | v1\nkept  | k1\n");
    assert!(err.contains("not shown: gone (is no longer declared"), "{err}");
    let (_, out, err) = run(&["gone"]);
    assert_eq!(out, "g1\n");
    assert!(err.contains("gone is no longer declared"), "{err}");
}
