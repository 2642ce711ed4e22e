//! The command line: every command and flag, with its help. The help is the reference manual, so each command has examples.

use std::ffi::OsString;
use std::ops::Range;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::ArgValueCandidates;
use regex::bytes::Regex;

use super::names::{self, Target};
use crate::model::blob::Integrity;
use crate::model::id::{KindName, Name};
use crate::model::unit::Millis;

/// Trues up one machine to a folder of YAML.
///
/// The folder says what should run; trueup shows what would change and why, makes it so, and keeps it so.
#[derive(Debug, Parser)]
#[command(name = "trueup", version, max_term_width = 100, arg_required_else_help = true, subcommand_required = true)]
#[command(after_long_help = MAIN_EXAMPLES)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

const MAIN_EXAMPLES: &str = "\
Examples:
  trueup init                  start a folder of manifests
  trueup plan                  show what would change, and why
  trueup reconcile --once      make it so, then leave
  trueup reconcile             make it so, and keep it so
  trueup get                   what there is, and how it is

Exit codes (the same for every command):
   0  done, or in sync
   1  error
   2  changes planned or made (only with --detailed-exitcode)
   3  invalid manifests
   4  refused by a safety guard
   5  another instance holds the lock
   6  timed out before convergence
   7  partial: some resources failed, the rest converged
   8  cancelled
  64  the command line is wrong";

/// Flags that every command has.
#[derive(Args, Debug)]
pub struct Global {
    /// The folder of manifests
    #[arg(short = 'f', long, global = true, value_name = "DIR", env = "TRUEUP_MANIFESTS", default_value = "manifests")]
    #[arg(value_hint = ValueHint::DirPath)]
    pub manifests: PathBuf,
    /// The folder of trueup's own state [default: .trueup beside the manifests]
    #[arg(long, global = true, value_name = "DIR", env = "TRUEUP_STATE", value_hint = ValueHint::DirPath)]
    pub state: Option<PathBuf>,
    /// How to print: for people, as one JSON object per line, or as YAML documents
    #[arg(short = 'o', long, global = true, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    pub output: Format,
    /// When to use colour; NO_COLOR and TERM=dumb are heeded
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t = Color::Auto)]
    pub color: Color,
    /// Say more about what is done (-vv: even more)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// Forms of output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
    /// YAML documents.
    Yaml,
}

/// When to use colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal that can show it.
    #[default]
    Auto,
    /// Even into a pipe.
    Always,
    /// Not at all.
    Never,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a folder of manifests
    Init(Init),
    /// Make manifests of what another hub has
    Import(super::import::Import),
    /// Check the manifests and report every mistake
    Validate(Validate),
    /// Show what would change, and why, without changing anything
    Plan(Plan),
    /// Make the machine as the manifests say, and keep it so
    Reconcile(Reconcile),
    /// List resources and how they are
    Get(Get),
    /// Show everything known of one resource
    Describe(Describe),
    /// Print what modules wrote
    Logs(Logs),
    /// Print what happened
    Events(Events),
    /// Stop services and start them again
    Restart(Restart),
    /// Stop services for a while, although their files say run
    Stop(Stop),
    /// Take a stop back, or run what its file suspends for a while
    Start(Start),
    /// Stop every module in reverse order of dependency, then the keeper
    Down(Down),
    /// Put, get, list, verify and remove blobs
    Blob(Blob),
    /// Show where blobs lie, and how far a migration is
    Storage(StorageWords),
    /// Make, list and revoke tokens for the hub and its modules; replace the key that signs them
    Token(super::token::TokenWords),
    /// List events of durable connections, try dead letters again, throw them away
    Deliveries(super::deliveries::DeliveryWords),
    /// Say what a client may do in somebody's name
    Grant(super::grant::GrantWords),
    /// Run the daemon of this tree as a service of systemd
    Service(Service),
    /// Explain a field of a manifest, the code of a problem, or a state
    Explain(Explain),
    /// Print the JSON Schema of manifests, for editors
    Schema(Schema),
    /// Print the script that makes a shell complete commands, flags and resource names
    Completions(Completions),
    /// Be the parent of every module (started by trueup itself)
    #[command(hide = true, after_long_help = "Examples:\n  trueup keeper --state .trueup")]
    Keeper(Keeper),
    /// Be one of the demonstration modules
    #[command(hide = true, disable_help_flag = true, after_long_help = "Examples:\n  trueup demo vault")]
    Demo(Demo),
}

/// Arguments of `init`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  trueup init                  writes manifests/hub.yaml and manifests/example.yaml
  trueup init home             the same in the folder 'home'

Files that are there already are left alone.")]
pub struct Init {
    /// The folder to start [default: the one of --manifests]
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub dir: Option<PathBuf>,
}

/// Arguments of `validate`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  trueup validate              every mistake, each with its place and a hint; exit code 3 if there are any
  trueup validate -o json      one object per mistake, for editors and CI")]
pub struct Validate {}

/// Arguments of `plan`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  trueup plan                      what would change, and why
  trueup plan --detailed-exitcode  exit code 2 when something would change, for CI
  trueup plan -o json              the same as lines of JSON

A plan is one look. What follows from its steps (the release of what was stopped, a row of
what still waits) joins when they are done, so 'reconcile' may count more steps than 'plan'.")]
pub struct Plan {
    /// Exit with 2 instead of 0 when there are changes, or something is still under way
    #[arg(long)]
    pub detailed_exitcode: bool,
    /// Plan as if this many removals were allowed, whatever the budget says
    #[arg(long, value_name = "N")]
    pub allow_prune: Option<u32>,
    /// Plan as if the state folder belonged to this tree (it belongs to the tree it was first used for)
    #[arg(long)]
    pub adopt_state: bool,
}

/// Arguments of `reconcile`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  trueup reconcile                     watch the folder and keep the machine true to it
  trueup reconcile --once              one pass to convergence, then leave; modules run on
  trueup reconcile --once --timeout 5m --detailed-exitcode
  trueup reconcile --once --allow-prune 12")]
pub struct Reconcile {
    /// Leave as soon as everything is as it should be
    #[arg(long)]
    pub once: bool,
    /// Exit with 2 instead of 0 when something was changed
    #[arg(long, requires = "once")]
    pub detailed_exitcode: bool,
    /// How long the whole command may take; then it exits with 6. Time does not run while blobs are moved
    #[arg(long, value_name = "DURATION", default_value = "60s", requires = "once")]
    pub timeout: Millis,
    /// Let one pass remove so many resources, whatever the budget says
    #[arg(long, value_name = "N")]
    pub allow_prune: Option<u32>,
    /// Give the state folder to this tree, which was moved here (it belongs to the tree it was first used for)
    #[arg(long)]
    pub adopt_state: bool,
    /// How long to wait for another instance to finish
    #[arg(long, value_name = "DURATION", default_value = "0s")]
    pub lock_timeout: Millis,
}

/// Arguments of `get`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  trueup get                   every resource
  trueup get services          the resources of one kind
  trueup get service/vault     one resource
  trueup get events            what happens in services that connections may listen to
  trueup get actions mailbox   what one service does when a connection asks it to
  trueup get credentials       the tokens for vaults that services want to have
  trueup get templates         the connections that modules propose
  trueup get -o json | jq 'select(.phase == \"CrashLoop\").name'")]
pub struct Get {
    /// Only these: a kind, a kind and name, or a name; or what services declare: events, actions, credentials, templates
    #[arg(value_name = "KIND | KIND/NAME | events", add = ArgValueCandidates::new(names::listed_candidates))]
    pub targets: Vec<Target>,
}

/// Arguments of `describe`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  trueup describe service/vault
  trueup describe vault        when only one resource has this name")]
pub struct Describe {
    /// The resource: a kind and name, or a name that is unique
    #[arg(value_name = "KIND/NAME", add = ArgValueCandidates::new(names::resource_candidates))]
    pub target: Target,
}

/// Arguments of `logs`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  trueup logs vault            everything that is kept
  trueup logs -f vault clerk   follow two services, merged by time
  trueup logs -n 100 --since 10m vault
  trueup logs --grep 'status=5..' vault
  trueup logs -f               follow every service

The output of a service that was removed is shown when it is named.")]
pub struct Logs {
    /// The services; all of them when none is named
    #[arg(value_name = "NAME", add = ArgValueCandidates::new(names::service_candidates))]
    pub names: Vec<Target>,
    /// Go on with what is written from now on, until Ctrl-C
    #[arg(short = 'f', long)]
    pub follow: bool,
    /// Only the last N lines of each service [default: all; with --follow 10]
    #[arg(short = 'n', long, value_name = "N", allow_negative_numbers = true, value_parser = number)]
    pub lines: Option<usize>,
    /// Only lines younger than this, such as 10m
    #[arg(long, value_name = "DURATION")]
    pub since: Option<Millis>,
    /// Only lines that match this regular expression
    #[arg(long, value_name = "PATTERN", value_parser = pattern)]
    pub grep: Option<Regex>,
    /// Put the time before each line
    #[arg(long)]
    pub timestamps: bool,
    #[command(flatten)]
    pub long: LongManifests,
}

fn number(text: &str) -> Result<usize, String> {
    match text.strip_prefix('-') {
        Some(rest) if rest.parse::<usize>().is_ok() => {
            Err(format!("the last lines are counted without a sign: -n {rest}"))
        }
        _ => text.parse().map_err(|_| "not a number of lines".to_owned()),
    }
}

fn pattern(text: &str) -> Result<Regex, String> {
    // Its own message has several lines and shows the place; it begins on a line of its own.
    Regex::new(text).map_err(|wrong| format!("\n{wrong}"))
}

/// Arguments of `events`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  trueup events                the last 50 events
  trueup events -f vault       follow one resource
  trueup events --since 1h -o json")]
pub struct Events {
    /// Only events of this resource
    #[arg(value_name = "RESOURCE", add = ArgValueCandidates::new(names::resource_candidates))]
    pub target: Option<Target>,
    /// Go on with what happens from now on, until Ctrl-C
    #[arg(short = 'f', long)]
    pub follow: bool,
    /// Only events younger than this, such as 1h
    #[arg(long, value_name = "DURATION")]
    pub since: Option<Millis>,
    /// At most the last N events
    #[arg(short = 'n', long, value_name = "N", default_value_t = 50, allow_negative_numbers = true, value_parser = number)]
    pub lines: usize,
    #[command(flatten)]
    pub long: LongManifests,
}

/// Takes the place of the global flag in commands where `-f` means "follow", as in every other program that prints logs.
/// The id is the same, so the value still arrives in [`Global::manifests`].
#[derive(Args, Debug)]
pub struct LongManifests {
    /// The folder of manifests (here without the short -f)
    #[arg(id = "manifests", long = "manifests", value_name = "DIR", env = "TRUEUP_MANIFESTS")]
    #[arg(default_value = "manifests", value_hint = ValueHint::DirPath)]
    pub manifests: PathBuf,
}

/// Arguments of `restart`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  trueup restart vault
  trueup restart vault clerk --timeout 2m")]
pub struct Restart {
    /// The services
    #[arg(required = true, value_name = "NAME", add = ArgValueCandidates::new(names::service_candidates))]
    pub names: Vec<Target>,
    /// How long to wait until they are ready again; then it exits with 6
    #[arg(long, value_name = "DURATION", default_value = "60s")]
    pub timeout: Millis,
}

/// Arguments of `stop`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  trueup stop vault                                  stopped for an hour
  trueup stop vault --for 20m --reason backup
  trueup start vault                                 takes it back

The service runs again by itself when the time is over. What is meant for longer than a week belongs into its
file: 'suspend: { reason: disk swap, until: 2026-12-01T08:00:00Z }'.")]
pub struct Stop {
    /// The services
    #[arg(required = true, value_name = "NAME", add = ArgValueCandidates::new(names::service_candidates))]
    pub names: Vec<Target>,
    /// How long, at most 7d
    #[arg(id = "for", long, value_name = "DURATION", default_value = "1h")]
    pub span: Millis,
    /// Why, for whoever looks at it
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// How long to wait until they have stopped; then it exits with 6
    #[arg(long, value_name = "DURATION", default_value = "60s")]
    pub timeout: Millis,
}

/// Arguments of `start`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  trueup start vault                 takes a 'trueup stop' back
  trueup start vault --for 10m       runs what its file suspends, for ten minutes")]
pub struct Start {
    /// The services
    #[arg(required = true, value_name = "NAME", add = ArgValueCandidates::new(names::service_candidates))]
    pub names: Vec<Target>,
    /// How long what its file suspends is to run, at most 7d
    #[arg(id = "for", long, value_name = "DURATION", default_value = "1h")]
    pub span: Millis,
    /// Why, for whoever looks at it
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// How long to wait until they are ready; then it exits with 6
    #[arg(long, value_name = "DURATION", default_value = "60s")]
    pub timeout: Millis,
}

/// Arguments of `down`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  trueup down                  stop everything; 'trueup reconcile' starts it again
  trueup down --timeout 10s

When the time is over, a daemon that is running goes on stopping and ends when it is done; Ctrl-C calls it off, and the
daemon starts again what has stopped.")]
pub struct Down {
    /// How long to wait until everything has stopped; then it exits with 6
    #[arg(long, value_name = "DURATION", default_value = "60s")]
    pub timeout: Millis,
}

/// Arguments of `service`.
#[derive(Args, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true)]
#[command(after_long_help = "\
Examples:
  trueup service install --dry-run     show the unit and the commands
  trueup service install               for the machine as root, otherwise for this user
  trueup service install --name lab -f lab/manifests
  trueup service status
  trueup service uninstall             modules run on; 'trueup down' stops them")]
pub struct Service {
    #[command(subcommand)]
    pub verb: ServiceVerb,
}

/// What is done with the unit.
#[derive(Debug, Subcommand)]
pub enum ServiceVerb {
    /// Write the unit, enable it and start it; again, and nothing changes
    ///
    /// PATH, HOME, LANG and the like are written into the unit as they are here, because modules get them: a daemon that had
    /// others would restart every module.
    #[command(after_long_help = "\
Examples:
  trueup service install
  trueup service install --user --dry-run")]
    Install(Unit),
    /// Stop the daemon and remove the unit; modules run on
    #[command(after_long_help = "Examples:\n  trueup service uninstall")]
    Uninstall(Unit),
    /// Show whether the unit is installed, as it would be written, enabled and active
    #[command(after_long_help = "Examples:\n  trueup service status -o json")]
    Status(Unit),
}

/// Which unit.
#[derive(Args, Debug)]
pub struct Unit {
    /// A service of this user [default, unless root]
    #[arg(long, conflicts_with = "system")]
    pub user: bool,
    /// A service of the machine [default for root]
    #[arg(long)]
    pub system: bool,
    /// For a second tree: the unit is trueup-NAME.service instead of trueup.service
    #[arg(long, value_name = "NAME", value_parser = unit_name)]
    pub name: Option<Name>,
    /// Print the unit and the commands; change nothing
    #[arg(long)]
    pub dry_run: bool,
}

fn unit_name(text: &str) -> Result<Name, String> {
    Name::new(text).map_err(|_| "a name is lower-case letters, digits and '-', at most 63 of them".to_owned())
}

/// Arguments of `blob`.
#[derive(Args, Debug)]
#[command(arg_required_else_help = true, subcommand_required = true)]
#[command(after_long_help = "\
Examples:
  trueup blob put archive.tar.gz       store a file; prints its key
  trueup blob get KEY -O archive.tar.gz
  trueup blob ls -l                    every blob, with size and backend
  trueup blob verify --all             read every blob and check its bytes")]
pub struct Blob {
    #[command(subcommand)]
    pub verb: BlobVerb,
}

/// What can be done with blobs.
#[derive(Debug, Subcommand)]
pub enum BlobVerb {
    /// Store files or the standard input
    Put(BlobPut),
    /// Read a blob; its bytes are checked before any is given out
    Get(BlobGet),
    /// List blobs
    Ls(BlobLs),
    /// Show everything known of one blob
    Stat(BlobStat),
    /// Read blobs where they should lie, and check their bytes
    Verify(BlobVerify),
    /// Remove blobs
    Rm(BlobRm),
}

/// Arguments of `blob put`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  trueup blob put archive.tar.gz           named by the SHA-256 of its bytes
  curl -s https://example.org/a | trueup blob put
  trueup blob put --integrity sha512-... package.tgz
  trueup blob put *.tgz                    each under a key of its own; exit code 7 when some failed

The key printed is what 'trueup blob get' takes. A key that is there already keeps its bytes:
putting the same bytes again does nothing, and putting others is an error.")]
pub struct BlobPut {
    /// The files; '-' or nothing is the standard input
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub files: Vec<PathBuf>,
    /// The key: the integrity of the content's origin, which the stored bytes may be another form of
    #[arg(long, value_name = "KEY")]
    pub integrity: Option<Integrity>,
}

/// Arguments of `blob get`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  trueup blob get KEY > archive.tar.gz
  trueup blob get KEY -O archive.tar.gz    the file appears only when all of it is right
  trueup blob get KEY --range 0-99         the first 100 bytes; of a part only the length is checked")]
pub struct BlobGet {
    /// The blob
    #[arg(value_name = "KEY")]
    pub key: Integrity,
    /// The file to write; '-' or nothing is the standard output
    #[arg(short = 'O', long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output_file: Option<PathBuf>,
    /// Only these bytes, counted from 0, both ends included; 'A-' is to the end
    #[arg(long, value_name = "A-B", value_parser = byte_range)]
    pub range: Option<Range<u64>>,
}

/// Arguments of `blob ls`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  trueup blob ls                       the keys
  trueup blob ls -l                    with size, backend, age and findings
  trueup blob ls --backend archive     only what lies there
  trueup blob ls -o json               one object a line")]
pub struct BlobLs {
    /// Only blobs on this backend
    #[arg(long, value_name = "NAME", value_parser = unit_name)]
    #[arg(add = ArgValueCandidates::new(names::backend_candidates))]
    pub backend: Option<Name>,
    /// With size, backend, age and findings
    #[arg(short, long)]
    pub long: bool,
}

/// Arguments of `blob stat`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  trueup blob stat KEY")]
pub struct BlobStat {
    /// The blob
    #[arg(value_name = "KEY")]
    pub key: Integrity,
}

/// Arguments of `blob verify`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  trueup blob verify KEY               exit code 7 when its bytes are missing or wrong
  trueup blob verify --all             every blob

It reads and tells, and changes nothing; the daemon finds and repairs by itself what it scrubs.")]
pub struct BlobVerify {
    /// The blobs
    #[arg(value_name = "KEY", required_unless_present = "all", conflicts_with = "all")]
    pub keys: Vec<Integrity>,
    /// Every blob
    #[arg(long)]
    pub all: bool,
}

/// Arguments of `blob rm`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  trueup blob rm KEY                   bytes that no other blob shares go with it")]
pub struct BlobRm {
    /// The blobs
    #[arg(value_name = "KEY", required = true)]
    pub keys: Vec<Integrity>,
}

/// `A-B` with both ends, or `A-`.
fn byte_range(text: &str) -> Result<Range<u64>, String> {
    let wrong = || "a range is A-B, two numbers of which the second is not the smaller, or A-".to_owned();
    let (start, end) = text.split_once('-').ok_or_else(wrong)?;
    let start: u64 = start.parse().map_err(|_| wrong())?;
    let last = if end.is_empty() { u64::MAX } else { end.parse().map_err(|_| wrong())? };
    if last < start { Err(wrong()) } else { Ok(start..last.saturating_add(1)) }
}

/// Arguments of `storage`.
#[derive(Args, Debug)]
#[command(arg_required_else_help = true, subcommand_required = true)]
#[command(after_long_help = "\
Examples:
  trueup storage status                where blobs lie, and how far a migration is
  trueup storage status --history      past migrations as well")]
pub struct StorageWords {
    #[command(subcommand)]
    pub verb: StorageVerb,
}

/// What can be asked of the storage.
#[derive(Debug, Subcommand)]
pub enum StorageVerb {
    /// Show where blobs lie, and how far a migration is
    Status(StorageStatus),
}

/// Arguments of `storage status`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  trueup storage status
  trueup storage status --history
  trueup storage status -o json")]
pub struct StorageStatus {
    /// Past migrations as well, the newest first
    #[arg(long)]
    pub history: bool,
}

/// Arguments of `explain`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  trueup explain service                     the fields of a kind
  trueup explain service.readiness.http      one field and what is in it
  trueup explain E0102                       the code of a problem
  trueup explain CrashLoop                   a state or reason as 'trueup get' shows it
  trueup explain                             what can be explained")]
pub struct Explain {
    /// A kind, a field, a code, or a state such as CrashLoop
    #[arg(value_name = "KIND.FIELD | CODE | STATE", add = ArgValueCandidates::new(super::explain::candidates))]
    pub what: Option<String>,
}

/// Arguments of `schema`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  trueup schema > trueup.schema.json         all kinds
  trueup schema service                      one kind

Point your editor at the file with a first line in each manifest:
  # yaml-language-server: $schema=../trueup.schema.json")]
pub struct Schema {
    /// Only this kind
    #[arg(value_name = "KIND")]
    pub kind: Option<KindName>,
}

/// Arguments of `completions`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  echo 'source <(trueup completions bash)' >> ~/.bashrc
  echo 'source <(trueup completions zsh)' >> ~/.zshrc
  trueup completions fish > ~/.config/fish/completions/trueup.fish")]
pub struct Completions {
    /// The shell
    #[arg(value_name = "SHELL", value_parser = ["bash", "elvish", "fish", "powershell", "zsh"])]
    pub shell: String,
}

/// Arguments of `keeper`.
#[derive(Args, Debug)]
pub struct Keeper {
    /// Go on with what the keeper that was this process until now hands over
    #[arg(long, hide = true)]
    pub take_over: bool,
}

/// Arguments of `demo`, handed on untouched.
#[derive(Args, Debug)]
pub struct Demo {
    /// What the demonstration module is told
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    pub args: Vec<OsString>,
}
