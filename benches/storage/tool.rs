//! What scripts/bench-storage cannot do by itself: blobs and an index made by the library, a real S3 server, the bare loop as a process
//! of its own, and how long one look at the index takes.

#![expect(clippy::print_stdout, reason = "what it says is what it is for")]

mod bare;
mod ways;

use std::fs::{self, DirBuilder, File};
use std::io::{Read, Seek as _, SeekFrom, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::time::Instant;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use trueup::adapters::blobs::fs::Fs;
use trueup::adapters::blobs::index::SqliteIndex;
use trueup::model::blob::{Integrity, Sha256};
use trueup::model::id::Name;
use trueup::model::time::Timestamp;
use trueup::ports::blobs::{Backend as _, Index as _, Object, Put};
use trueup::storage::body::Hasher;

use self::bare::GROUP;
use self::ways::{Database, Line};

const USAGE: &str = "for scripts/bench-storage:
  fill FOLDER INDEX COUNT SMALLEST LARGEST SEED AT   so many blobs in a folder and in an index, at a time in ms since 1970
  hollow FOLDER INDEX COUNT BYTES SEED AT     the same of files that take hardly any room on the disk
  pretend INDEX COUNT AT                      so many blobs in an index, and no bytes
  look INDEX RUNS                             the median time of one look at an index, in microseconds
  bare fs|sqlite|s3 FROM TO THREADS           the bare loop; TO is a folder, a file, or server/bucket
  serve FOLDER KEY SECRET                     an S3 server until its input ends; it says where it is, with signatures and without";

fn main() {
    // A bench without words is what `cargo bench` runs; it has words only by the script.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["fill", folder, index, count, smallest, largest, seed, at] => {
            let (smallest, largest) = (number(smallest), number(largest));
            let mut dice = Dice(number(seed).max(1));
            let sizes = (0..number(count)).map(|_| smallest + dice.roll() % (largest - smallest + 1));
            let sizes: Vec<u64> = sizes.collect();
            fill(Path::new(folder), Path::new(index), time(at), sizes.iter().map(|size| dice.bytes(*size)));
        }
        ["hollow", folder, index, count, bytes, seed, at] => {
            let files = (0..number(count)).map(|n| (number(seed) + n, number(bytes)));
            hollow(Path::new(folder), Path::new(index), time(at), files);
        }
        ["pretend", index, count, at] => pretend(Path::new(index), number(count), time(at)),
        ["look", index, runs] => look(Path::new(index), number(runs)),
        ["bare", kind, from, to, threads] => bare(kind, Path::new(from), to, number(threads)),
        ["serve", folder, key, secret] => serve(Path::new(folder), key, secret),
        _ => println!("{USAGE}"),
    }
}

fn number(text: &str) -> u64 {
    text.parse().expect("a number")
}

fn time(text: &str) -> Timestamp {
    Timestamp(text.parse().expect("a time"))
}

fn place() -> Name {
    Name::new("local").expect("a name")
}

/// Chance that can be replayed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, size: u64) -> Vec<u8> {
        let size = usize::try_from(size).expect("fits");
        (0..size.div_ceil(8)).flat_map(|_| self.roll().to_le_bytes()).take(size).collect()
    }
}

fn index(path: &Path, at: Timestamp) -> SqliteIndex {
    let folder = path.parent().expect("a parent");
    DirBuilder::new().mode(0o700).recursive(true).create(folder).expect("a folder");
    let index = SqliteIndex::open(path).expect("an index");
    index.activate(&place(), at).expect("activates");
    index
}

fn add(index: &SqliteIndex, object: &Object, at: Timestamp) {
    index.add(&Integrity::of(&object.name), object, &place(), true, at).expect("adds");
}

fn fill(folder: &Path, path: &Path, at: Timestamp, bodies: impl Iterator<Item = Vec<u8>>) {
    let (backend, index) = (Fs::open(folder).expect("a folder"), index(path, at));
    let mut group: Vec<Object> = Vec::new();
    let settle = |group: &mut Vec<Object>| {
        backend.settle(&group.iter().map(|object| object.name).collect::<Vec<_>>()).expect("settles");
        group.drain(..).for_each(|object| add(&index, &object, at));
    };
    for body in bodies {
        let object = Object { name: Sha256::of(&body), size: body.len() as u64 };
        backend.put(&object, &mut &body[..], Put::IfAbsent).expect("puts");
        group.push(object);
        if group.len() == GROUP {
            settle(&mut group);
        }
    }
    settle(&mut group);
}

fn hollow(folder: &Path, path: &Path, at: Timestamp, files: impl Iterator<Item = (u64, u64)>) {
    drop(Fs::open(folder).expect("a folder"));
    let index = index(path, at);
    for (head, size) in files {
        let under_way = folder.join("under-way");
        let mut file = File::options().read(true).write(true).create_new(true).open(&under_way).expect("a file");
        file.write_all(&head.to_le_bytes()).and_then(|()| file.set_len(size)).expect("writes");
        file.seek(SeekFrom::Start(0)).expect("seeks");
        let mut hasher = Hasher::default();
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer).expect("reads") {
                0 => break,
                count => hasher.update(&buffer[..count]),
            }
        }
        let object = hasher.object();
        let place = bare::path(folder, &object.name);
        fs::create_dir_all(place.parent().expect("a parent")).expect("a folder");
        fs::rename(under_way, place).expect("renames");
        add(&index, &object, at);
    }
}

fn pretend(path: &Path, count: u64, at: Timestamp) {
    let index = index(path, at);
    for number in 0..count {
        add(&index, &Object { name: Sha256::of(&number.to_le_bytes()), size: 4_096 + number % 61_440 }, at);
    }
}

#[expect(clippy::disallowed_methods, reason = "it measures")]
fn look(path: &Path, runs: u64) {
    let index = SqliteIndex::open(path).expect("an index");
    let mut blobs = 0;
    let mut look = || {
        let begun = Instant::now();
        blobs = index.standing().expect("stands").blobs;
        begun.elapsed().as_nanos()
    };
    let mut times: Vec<u128> = (0..runs).map(|_| look()).collect();
    times.sort_unstable();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    println!("{}.{:03} {blobs}", median / 1_000, median % 1_000);
}

fn bare(kind: &str, from: &Path, to: &str, threads: u64) {
    let mut objects = Vec::new();
    for folder in fs::read_dir(from).expect("a folder") {
        let folder = folder.expect("an entry");
        let Some(first) = folder.file_name().to_str().filter(|name| name.len() == 2).map(str::to_owned) else {
            continue;
        };
        for file in fs::read_dir(folder.path()).expect("a folder") {
            let file = file.expect("an entry");
            let name = format!("{first}{}", file.file_name().to_str().unwrap_or_default());
            let size = file.metadata().expect("a size").len();
            objects.push(Object { name: name.parse().expect("a name"), size });
        }
    }
    objects.sort();
    let threads = usize::try_from(threads).expect("fits");
    match kind {
        "fs" => {
            fs::create_dir_all(to).expect("a folder");
            bare::copy(&objects, threads, || |group, buffer| bare::to_folder(from, Path::new(to), group, buffer));
        }
        "sqlite" => {
            let database = Database::make(Path::new(to));
            bare::copy(&objects, threads, || {
                let reader = database.reader();
                let database = &database;
                move |group, _| database.bring(from, &reader, group)
            });
        }
        _ => bare::copy(&objects, threads, || {
            let mut line = Line::dial(to);
            move |group, buffer| line.bring(from, group, buffer)
        }),
    }
}

/// Ends with its standard input, so that it never outlives who started it.
fn serve(folder: &Path, key: &str, secret: &str) {
    let files = || FileSystem::new(folder).expect("a file system");
    let mut signed = S3ServiceBuilder::new(files());
    signed.set_auth(SimpleAuth::from_single(key.to_owned(), secret.to_owned()));
    let (here, signed) = (listen(), signed.build());
    let (there, open) = (listen(), S3ServiceBuilder::new(files()).build());
    println!("{} {}", here.local_addr().expect("its address"), there.local_addr().expect("its address"));
    std::thread::spawn(move || run(here, signed));
    std::thread::spawn(move || run(there, open));
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).expect("waits for the end");
}

fn listen() -> TcpListener {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.set_nonblocking(true).expect("a listener for tokio");
    listener
}

fn run(listener: TcpListener, service: S3Service) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async move {
        let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
        while let Ok((stream, _)) = listener.accept().await {
            // Answers are many small writes; without this each may wait for the reader's acknowledgement.
            let _ = stream.set_nodelay(true);
            let served =
                http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service.clone());
            tokio::spawn(served);
        }
    });
}
