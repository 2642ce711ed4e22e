//! `deliveries`: events of durable connections are listed, shown, tried again and thrown away.

use clap::{Args, Subcommand, ValueEnum};
use clap_complete::ArgValueCandidates;

use super::engine::{ChangedEvents, Letters, LettersQuery, Which};
use super::exit::Failure;
use super::names;
use super::render::deliveries as render;
use super::render::screen::Screen;
use super::render::show::write_data;
use crate::model::delivery_output::{ChangedLine, DeliveryOutput};
use crate::model::exit::Exit;
use crate::model::id::Name;
use crate::model::time::Timestamp;

/// Arguments of `deliveries`.
#[derive(Args, Debug)]
#[command(arg_required_else_help = true, subcommand_required = true)]
#[command(after_long_help = "\
Examples:
  trueup deliveries list
  trueup deliveries show e000001a
  trueup deliveries replay --connection inbox-to-agent --all-dead
  trueup deliveries discard e000001a

No daemon is needed; one that runs goes on with what was replayed at once.")]
pub struct DeliveryWords {
    #[command(subcommand)]
    pub verb: DeliveryVerb,
}

/// What can be done with events.
#[derive(Debug, Subcommand)]
pub enum DeliveryVerb {
    /// List events, the newest first
    List(DeliveryList),
    /// Show everything known of one event, with its body while that is kept
    Show(DeliveryShow),
    /// Try dead letters again, and what waits at once
    Replay(DeliveryReplay),
    /// Throw events away that wait or are dead; they are not delivered
    Discard(DeliveryDiscard),
}

/// Arguments of `deliveries list`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  trueup deliveries list                                what waits and what is dead
  trueup deliveries list --only dead --connection inbox-to-agent
  trueup deliveries list --only all --limit 500
  trueup deliveries list --only dead -o json | jq -r .id

What was delivered is remembered for 24 hours, at most 10000 events of each connection.")]
pub struct DeliveryList {
    /// Only events of this connection
    #[arg(long, value_name = "NAME", value_parser = connection)]
    #[arg(add = ArgValueCandidates::new(names::connection_candidates))]
    pub connection: Option<Name>,
    /// Only events in this state [default: waiting and dead ones]
    #[arg(long, value_enum, value_name = "STATE")]
    pub only: Option<StateWord>,
    /// At most N events
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub limit: u32,
}

/// How far an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StateWord {
    Waiting,
    Dead,
    Delivered,
    Discarded,
    All,
}

/// Arguments of `deliveries show`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  trueup deliveries show e000001a
  trueup deliveries show e000001a -o json | jq .body")]
pub struct DeliveryShow {
    /// The event
    #[arg(value_name = "ID", add = ArgValueCandidates::new(names::event_candidates))]
    pub id: String,
}

/// Which events are changed.
#[derive(Args, Debug)]
pub struct Chosen {
    /// The events
    #[arg(value_name = "ID", required_unless_present = "all_dead", conflicts_with = "all_dead")]
    #[arg(add = ArgValueCandidates::new(names::event_candidates))]
    pub ids: Vec<String>,
    /// The connection whose dead letters are meant
    #[arg(long, value_name = "NAME", value_parser = connection, requires = "all_dead")]
    #[arg(add = ArgValueCandidates::new(names::connection_candidates))]
    pub connection: Option<Name>,
    /// All dead letters of a connection
    #[arg(long, requires = "connection")]
    pub all_dead: bool,
}

/// Arguments of `deliveries replay`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  trueup deliveries replay e000001a e000001b
  trueup deliveries replay --connection inbox-to-agent --all-dead

An event that is replayed has all its attempts and all its time before it. Events of one note still come one after
another, in the order in which they came. What belongs to a connection that is not there any more is not replayed:
nobody would deliver it.")]
pub struct DeliveryReplay {
    #[command(flatten)]
    pub chosen: Chosen,
}

/// Arguments of `deliveries discard`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  trueup deliveries discard e000001a
  trueup deliveries discard --connection inbox-to-agent --all-dead --yes

What is discarded is gone: its body is removed, and it cannot be replayed.")]
pub struct DeliveryDiscard {
    #[command(flatten)]
    pub chosen: Chosen,
    /// Discard all of them without being asked for this flag
    #[arg(long)]
    pub yes: bool,
}

fn connection(text: &str) -> Result<Name, String> {
    Name::new(text).map_err(|bad| bad.to_string())
}

pub fn run(verb: &DeliveryVerb, letters: &dyn Letters, now: Timestamp, screen: &mut Screen) -> Result<Exit, Failure> {
    match verb {
        DeliveryVerb::List(args) => list(args, letters, now, screen),
        DeliveryVerb::Show(args) => {
            let detail = letters.show(&args.id)?;
            say(screen, &DeliveryOutput::DeliveryDetail(detail), now);
            Ok(Exit::Done)
        }
        DeliveryVerb::Replay(args) => {
            change(&args.chosen, DeliveryOutput::Replayed, &|which| letters.replay(which), now, screen)
        }
        DeliveryVerb::Discard(args) => {
            if args.chosen.all_dead && !args.yes {
                let connection = args.chosen.connection.as_ref().map(Name::as_str).unwrap_or_default();
                return Err(Failure::new(
                    Exit::Refused,
                    format!("all dead letters of '{connection}' would be gone, with their bodies"),
                )
                .hint("--yes does it; 'trueup deliveries list --only dead' lists them"));
            }
            let discard = |which: Which<'_>| Ok((letters.discard(which)?, None));
            change(&args.chosen, DeliveryOutput::Discarded, &discard, now, screen)
        }
    }
}

fn list(args: &DeliveryList, letters: &dyn Letters, now: Timestamp, screen: &mut Screen) -> Result<Exit, Failure> {
    let states: &[&str] = match args.only {
        None => &["waiting", "dead"],
        Some(StateWord::Waiting) => &["waiting"],
        Some(StateWord::Dead) => &["dead"],
        Some(StateWord::Delivered) => &["delivered"],
        Some(StateWord::Discarded) => &["discarded"],
        Some(StateWord::All) => &[],
    };
    let query = LettersQuery { connection: args.connection.clone(), states, limit: args.limit as usize };
    let lines = letters.list(&query)?;
    if !screen.is_text() {
        lines.into_iter().for_each(|line| write_data(screen, &DeliveryOutput::Delivery(line)));
    } else if lines.is_empty() {
        screen.err("no events\n");
    } else {
        screen.out(&render::table(&lines, now));
        if lines.len() == args.limit as usize {
            screen.flush();
            screen.err(&format!("  help: only the newest {} are shown; --limit shows more\n", lines.len()));
        }
    }
    Ok(Exit::Done)
}

fn change(
    chosen: &Chosen,
    line: fn(ChangedLine) -> DeliveryOutput,
    act: &dyn Fn(Which<'_>) -> Result<ChangedEvents, Failure>,
    now: Timestamp,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let mut wrong = Vec::new();
    let which = match &chosen.connection {
        Some(connection) => Which::AllDead(connection),
        None => Which::Ids(&chosen.ids),
    };
    let (changed, note) = act(which)?;
    for id in &changed {
        say(screen, &line(ChangedLine { id: id.clone() }), now);
    }
    if let Some(note) = note {
        screen.err(&format!("  note: {note}\n"));
    }
    if chosen.connection.is_none() {
        wrong.extend(chosen.ids.iter().filter(|id| !changed.iter().any(|done| done.eq_ignore_ascii_case(id))));
    } else if changed.is_empty() && screen.is_text() {
        screen.err("no dead letters\n");
    }
    let Some(first) = wrong.first() else { return Ok(Exit::Done) };
    let exit = if changed.is_empty() { Exit::Error } else { Exit::Partial };
    Err(Failure::new(exit, format!("there is no event '{first}' that waits or is dead"))
        .hint("'trueup deliveries list' lists them; what was delivered or discarded has no body any more"))
}

fn say(screen: &mut Screen, line: &DeliveryOutput, now: Timestamp) {
    if screen.is_text() {
        screen.out(&render::text(line, now));
    } else {
        write_data(screen, line);
    }
    screen.flush();
}
