//! A bucket behind a bad line, and a server that says no: every call ends right, or with an error that says what it is.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use trueup::adapters::blobs::s3::{Patience, S3};
use trueup::adapters::environment::Environment;
use trueup::model::blob::Sha256;
use trueup::model::secret::Secret;
use trueup::ports::blobs::{Backend, BackendError, Bucket, Placed, Put};

use crate::backends::{bytes, contract, object, put, read, store};
use crate::faulty::{Fault, Faulty};
use crate::s3 as server;

const MIB: usize = 1 << 20;

/// Does not keep a test waiting.
const HASTE: Patience = Patience {
    connect: Duration::from_secs(2),
    idle: Duration::from_millis(600),
    retries: 3,
    pause: Duration::from_millis(5),
    altogether: Duration::from_secs(5),
};

/// Waits for a server that works long on a busy machine.
const PATIENCE: Patience = Patience { idle: Duration::from_secs(20), altogether: Duration::from_secs(20), ..HASTE };

fn behind_a_bad_line(patience: Patience) -> (server::S3, Faulty, S3) {
    let server = server::S3::start();
    server.create_bucket("blobs");
    let line = Faulty::before(&server.endpoint);
    let backend = S3::open_with(&server.bucket("blobs", "", &line.endpoint), patience).expect("opened");
    (server, line, backend)
}

fn opened(bucket: &Bucket) -> S3 {
    S3::open_with(bucket, HASTE).expect("opened")
}

/// What every verb says.
fn refusals(backend: &dyn Backend) -> Vec<BackendError> {
    let there = bytes(1, 100);
    let name = object(&there).name;
    vec![
        put(backend, &there, Put::Replace).expect_err("put"),
        put(backend, &there, Put::IfAbsent).expect_err("put if absent"),
        put(backend, &bytes(1, 9 * MIB), Put::IfAbsent).expect_err("put of a large one"),
        read(backend, &name, None).expect_err("read"),
        backend.size(&name).expect_err("size"),
        backend.delete(&name).expect_err("delete"),
        backend.list(None, 10).expect_err("list"),
        backend.owner().expect_err("owner"),
        backend.claim("me").expect_err("claim"),
    ]
}

#[test]
fn a_single_fault_of_any_kind_is_made_good() {
    let (_server, line, backend) = behind_a_bad_line(HASTE);
    let faults = [
        Fault::CutBefore,
        Fault::CutRequest(50),
        Fault::LoseAnswer,
        Fault::CutAnswer(20),
        Fault::Refuse(500, None),
        Fault::Refuse(503, None),
        Fault::Slow,
        Fault::Stall,
    ];
    for (seed, fault) in (1_u64..).zip(faults) {
        // A stall takes its time.
        let hows = if fault == Fault::Stall { vec![Put::IfAbsent] } else { vec![Put::IfAbsent, Put::Replace] };
        for &how in &hows {
            let small = bytes(seed * 10 + u64::from(how == Put::Replace), 40_000);
            let name = object(&small).name;
            line.script(&[fault]);
            let placed =
                put(&backend, &small, how).unwrap_or_else(|error| panic!("{fault:?} on a put, {how:?}: {error}"));
            // Whoever loses an answer meets himself when he asks again.
            assert!(placed == Placed::Stored || how == Put::IfAbsent, "{fault:?}, {how:?}");
            line.script(&[fault]);
            assert!(read(&backend, &name, None) == Ok(small.clone()), "{fault:?} on a read");
            line.script(&[fault]);
            assert!(
                read(&backend, &name, Some(10..30_000)).as_deref() == Ok(&small[10..30_000]),
                "{fault:?} on a part"
            );
            line.script(&[fault]);
            assert_eq!(backend.size(&name), Ok(Some(40_000)), "{fault:?} on a size");
            line.script(&[fault]);
            assert!(backend.list(None, 100).is_ok_and(|list| list.iter().any(|found| found.name == name)), "{fault:?}");
            line.script(&[fault]);
            backend.claim("somebody").unwrap_or_else(|error| panic!("{fault:?} on a claim: {error}"));
            line.script(&[fault]);
            assert_eq!(backend.owner(), Ok(Some("somebody".into())), "{fault:?} on an owner");
            line.script(&[fault]);
            backend.delete(&name).unwrap_or_else(|error| panic!("{fault:?} on a delete: {error}"));
            assert_eq!(backend.size(&name), Ok(None));
        }
        assert!(line.count(|done| *done == fault) >= 8 * hows.len(), "{fault:?} really happened");
        line.good();
    }
}

#[test]
fn each_request_of_an_upload_in_parts_may_fail() {
    let (_server, line, backend) = behind_a_bad_line(PATIENCE);
    let large = bytes(5, 17 * MIB);
    let name = object(&large).name;
    backend.claim("me").expect("the bucket is there");
    let before = line.done().len();
    store(&backend, &large);
    let requests = line.done().len() - before;
    assert_eq!(requests, 6, "asked, begun, three parts, ended: {:?}", line.done());
    for fault in [Fault::CutBefore, Fault::LoseAnswer, Fault::Refuse(503, None)] {
        for at in 0..requests {
            backend.delete(&name).expect("deleted");
            let mut script = vec![Fault::None; at];
            script.push(fault);
            line.script(&script);
            let placed = put(&backend, &large, Put::IfAbsent);
            assert_eq!(placed, Ok(Placed::Stored), "{fault:?} on request {at}");
            assert!(read(&backend, &name, None).as_ref() == Ok(&large), "{fault:?} on request {at}");
        }
        assert_eq!(line.count(|done| *done == fault), requests);
    }
}

#[test]
fn a_read_that_is_cut_goes_on_where_it_was() {
    let (_server, line, backend) = behind_a_bad_line(PATIENCE);
    let large = bytes(6, 5 * MIB);
    let name = store(&backend, &large).name;
    // More often than one request is repeated: each piece that came is a new beginning.
    let cuts = [300_000; 10].map(Fault::CutAnswer);
    line.script(&cuts);
    assert!(read(&backend, &name, None) == Ok(large));
    assert_eq!(line.count(|fault| matches!(fault, Fault::CutAnswer(_))), cuts.len());
    let asked = line.done().iter().filter(|(request, _)| request.starts_with("GET")).count();
    assert_eq!(asked, 1 + cuts.len(), "once, and again for each cut");
}

#[test]
fn a_line_that_stays_bad_ends_in_an_error_that_says_so() {
    let (_server, line, backend) = behind_a_bad_line(HASTE);
    let stored = bytes(7, MIB);
    let name = store(&backend, &stored).name;
    for fault in [Fault::CutBefore, Fault::CutAnswer(0), Fault::Refuse(503, None), Fault::LoseAnswer, Fault::Stall] {
        let before = line.done().len();
        line.script(&[fault; 100]);
        let error = read(&backend, &name, None).expect_err("a read");
        assert!(matches!(&error, BackendError::Transient(why) if why.contains(&line.endpoint)), "{fault:?}: {error:?}");
        // A put is done when its answer begins.
        line.script(&[if fault == Fault::CutAnswer(0) { Fault::CutRequest(10) } else { fault }; 100]);
        let other = bytes(8, 1_000);
        let error = put(&backend, &other, Put::Replace).expect_err("a put");
        assert!(matches!(&error, BackendError::Transient(why) if why.contains("blobs")), "{fault:?}: {error:?}");
        assert!(line.done().len() - before <= 40, "it is not asked for ever");
        line.good();
        assert_eq!(put(&backend, &other, Put::Replace), Ok(Placed::Stored));
        assert_eq!(read(&backend, &object(&other).name, None), Ok(other));
    }
}

#[test]
fn a_server_that_asks_for_time_is_given_it() {
    let (_server, line, backend) = behind_a_bad_line(PATIENCE);
    let begun = trueup::adapters::clock::SystemClock;
    let now = || trueup::ports::clock::Clock::now(&begun);
    let start = now();
    line.script(&[Fault::Refuse(503, Some(1))]);
    store(&backend, &bytes(9, 100));
    assert!((now() - start).0 >= 1_000, "it asked for a second");
}

#[test]
fn many_threads_over_a_bad_line_end_with_the_right_bytes() {
    let (_server, line, backend) = behind_a_bad_line(PATIENCE);
    line.chance(
        42,
        4,
        &[
            Fault::CutBefore,
            Fault::CutRequest(700),
            Fault::LoseAnswer,
            Fault::CutAnswer(900),
            Fault::Refuse(500, None),
            Fault::Refuse(503, None),
            Fault::Slow,
        ],
    );
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let backend = &backend;
            scope.spawn(move || {
                for round in 0..25 {
                    let own = bytes(thread * 1_000 + round + 50, 3_000);
                    let mut tries = 0;
                    while let Err(error) = put(backend, &own, Put::IfAbsent) {
                        assert!(matches!(error, BackendError::Transient(_)), "{error:?}");
                        tries += 1;
                        assert!(tries < 20);
                    }
                    let found = loop {
                        match read(backend, &object(&own).name, None) {
                            Err(error) => assert!(matches!(error, BackendError::Transient(_)), "{error:?}"),
                            Ok(found) => break found,
                        }
                        tries += 1;
                        assert!(tries < 40);
                    };
                    assert!(found == own);
                }
            });
        }
    });
    assert!(line.count(|fault| *fault != Fault::None) > 30, "it was a bad line");
    line.good();
    assert_eq!(backend.list(None, 1_000).expect("a list").len(), 100);
}

#[test]
fn wrong_credentials_are_refused_and_never_shown() {
    let server = server::S3::start();
    server.create_bucket("blobs");
    let good = server.bucket("blobs", "", &server.endpoint);
    let wrong_key = Bucket { access_key_id: Secret::new("AKIAOTHER".into()), ..good.clone() };
    let wrong_secret = Bucket { secret_access_key: Secret::new("wrong-secret-of-somebody".into()), ..good.clone() };
    for (bucket, hint) in [(wrong_key, "access key id"), (wrong_secret, "secret access key")] {
        for error in refusals(&opened(&bucket)) {
            let BackendError::Refused(why) = &error else { panic!("{error:?}") };
            assert!(why.contains("'blobs'") && why.contains(&server.endpoint), "{why}");
            assert!(why.contains(hint) || why.contains("check the access key id, its secret"), "{why}");
            assert!(!why.contains("wrong-secret") && !why.contains("a-secret-that"), "{why}");
        }
    }
    let first = put(&opened(&good), b"x", Put::Replace);
    assert_eq!(first, Ok(Placed::Stored), "the right ones are taken");
    let odd = Bucket { secret_access_key: Secret::new("line\nbreak".into()), ..good };
    assert!(matches!(S3::open(&odd), Err(BackendError::Refused(why)) if !why.contains("break")));
}

#[test]
fn a_bucket_that_is_not_there_is_not_a_missing_object() {
    let server = server::S3::start();
    let backend = opened(&server.bucket("nowhere", "", &server.endpoint));
    let expected = format!("bucket 'nowhere' does not exist at {}; create it, or correct its name", server.endpoint);
    let there = bytes(1, 100);
    let name = object(&there).name;
    // This server makes a bucket for whoever puts into it, so small puts are not asked here.
    let errors = [
        put(&backend, &bytes(1, 9 * MIB), Put::IfAbsent).expect_err("put of a large one"),
        read(&backend, &name, None).expect_err("read"),
        backend.size(&name).expect_err("size"),
        backend.delete(&name).expect_err("delete"),
        backend.list(None, 10).expect_err("list"),
        backend.owner().expect_err("owner"),
    ];
    for error in errors {
        assert_eq!(error, BackendError::Refused(expected.clone()));
    }
}

#[test]
fn an_endpoint_where_nobody_listens_is_named() {
    let server = server::S3::start();
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|gone| gone.local_addr()).expect("a free port");
    let endpoint = format!("http://{port}");
    for error in refusals(&opened(&server.bucket("blobs", "", &endpoint))) {
        let BackendError::Transient(why) = &error else { panic!("{error:?}") };
        assert!(why.contains(&format!("bucket 'blobs' at {endpoint}")) && why.contains("refused"), "{why}");
    }
    let deaf = server.endpoint.replace("http:", "https:");
    let error = opened(&server.bucket("blobs", "", &deaf)).size(&Sha256::of(b"")).expect_err("it speaks no TLS");
    assert!(matches!(&error, BackendError::Transient(why) if why.contains(&deaf)), "{error:?}");
    let nowhere = server.bucket("blobs", "", "http://there-is-no-such-host.invalid");
    let error = opened(&nowhere).size(&Sha256::of(b"")).expect_err("no such host");
    assert!(matches!(&error, BackendError::Transient(why) if why.contains("no-such-host.invalid")), "{error:?}");
}

#[test]
fn what_cannot_be_an_endpoint_is_refused_at_once() {
    let server = server::S3::start();
    for wrong in ["", "s3.example.org", "ftp://example.org", "http://example.org/path", "http://"] {
        let opened = S3::open(&server.bucket("blobs", "", wrong)).map(|_| ());
        assert!(matches!(opened, Err(BackendError::Refused(_))), "{wrong}: {opened:?}");
    }
    let opened = S3::open(&server.bucket("blobs", "a//b/", &server.endpoint)).map(|_| ());
    assert!(matches!(opened, Err(BackendError::Refused(why)) if why.contains("a//b/")));
}

/// Names the program `moto_server` (PyPI `moto[server]`): another S3 server, by other people.
const MOTO: &str = "TRUEUP_MOTO";

#[test]
fn another_server_keeps_the_contract_too() {
    let environment = Environment::of_process();
    let Some(program) = environment.get(MOTO) else { return };
    let mut running = Command::new(program)
        .args(["-H", "127.0.0.1", "-p", "0"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the server of TRUEUP_MOTO");
    let mut said = BufReader::new(running.stderr.take().expect("piped")).lines();
    let endpoint = said.find_map(|line| Some(line.ok()?.split_once("Running on ")?.1.trim().to_owned()));
    let endpoint = endpoint.expect("it says where it listens");
    // It goes on to say what it is asked.
    let drain = std::thread::spawn(move || said.count());
    let host = endpoint.strip_prefix("http://").expect("HTTP");
    // It does not look at who asks.
    let ask = |line: &str| {
        let mut stream = TcpStream::connect(host).expect("connected");
        let request = format!("{line} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("asked");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        answer
    };
    ask("PUT /blobs");
    let bucket = Bucket {
        endpoint: endpoint.clone(),
        bucket: "blobs".into(),
        region: "us-east-1".into(),
        path_style: true,
        prefix: "some/where/".into(),
        access_key_id: Secret::new("AKIATRUEUPTEST".into()),
        secret_access_key: Secret::new("secret".into()),
        session_token: None,
    };
    let done = std::panic::catch_unwind(|| {
        let backend = S3::open(&bucket).expect("opened");
        contract(&backend, false);
        // Uploads of this server are all from the year 2010.
        let name = Sha256::of(b"cut off").to_string();
        let (ours, strange) = (format!("some/where/{}/{}", &name[..2], &name[2..]), "some/where/else");
        for key in [ours.as_str(), strange] {
            ask(&format!("POST /blobs/{key}?uploads="));
        }
        assert!(ask("GET /blobs?uploads=").contains(&ours));
        backend.tidy().expect("tidied");
        let left = ask("GET /blobs?uploads=");
        assert!(!left.contains(&ours) && left.contains(strange), "{left}");
        let nowhere = opened(&Bucket { bucket: "nowhere".into(), ..bucket });
        for error in refusals(&nowhere) {
            assert!(matches!(&error, BackendError::Refused(why) if why.contains("does not exist")), "{error:?}");
        }
    });
    running.kill().expect("killed");
    running.wait().expect("gone");
    drain.join().expect("drained");
    if let Err(panic) = done {
        std::panic::resume_unwind(panic);
    }
}
