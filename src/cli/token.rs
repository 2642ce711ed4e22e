//! `token`: tokens are made, listed and revoked, and the key that signs them is replaced.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value};

use super::engine::{MintWish, TokenQuery, Tokens};
use super::exit::Failure;
use super::render::screen::Screen;
use super::render::show::write_data;
use super::render::tokens as render;
use crate::model::exit::Exit;
use crate::model::time::Timestamp;
use crate::model::token_output::{MintedLine, TokenOutput};
use crate::model::unit::Millis;

/// Arguments of `token`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  trueup token mint --scope vault:lab:read
  trueup token list
  trueup token revoke JTI
  trueup token rotate

No daemon is needed; one that runs heeds a revocation at once.")]
pub struct TokenWords {
    #[command(subcommand)]
    pub verb: TokenVerb,
}

/// What can be done with tokens.
#[derive(Debug, Subcommand)]
pub enum TokenVerb {
    /// Make a token; it is printed once, and kept nowhere
    Mint(TokenMint),
    /// List tokens, the newest first; never the tokens themselves
    List(TokenList),
    /// Revoke tokens
    Revoke(TokenRevoke),
    /// Sign with a new key from now on
    Rotate(TokenRotate),
    /// Make a new database of keys and tokens, when the old one is gone or damaged
    Reset(TokenReset),
    /// Put a backup in the place of the database of keys and tokens
    Restore(TokenRestore),
    /// Print the public keys, as the hub serves them
    Jwks(TokenJwks),
}

/// Arguments of `token mint`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  trueup token mint --scope vault:lab:read
  TOKEN=$(trueup token mint --scope vault:lab:write --expires-in 1h)
  trueup token mint --scope agent:send --subject bridge --expires-in 30d -o json
  trueup token mint --scope vault:lab:read --permissions '{\"scoped_tags\":[\"inbox\"]}'

A scope is namespace:verb, or vault:NAME:VERB with the verbs read, write and admin, each of which
includes the ones before. What governs the machine is never given by request: the operator token
has it (operator.token in the home of the modules).")]
pub struct TokenMint {
    /// What it allows; may be given more than once
    #[arg(long = "scope", value_name = "SCOPE", required = true)]
    pub scopes: Vec<String>,
    /// Whom it is for [default: by its scopes, such as vault.lab]
    #[arg(long, value_name = "NAME")]
    pub audience: Option<String>,
    /// How long it lives, at most 365d
    #[arg(long, value_name = "DURATION", default_value = "90d")]
    pub expires_in: Millis,
    /// In whose name it acts
    #[arg(long, value_name = "NAME", default_value = "operator")]
    pub subject: String,
    /// Further restrictions, a JSON object
    #[arg(long, value_name = "JSON", value_parser = object)]
    pub permissions: Option<Map<String, Value>>,
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|wrong| format!("not a JSON object: {wrong}"))
}

/// Arguments of `token list`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  trueup token list
  trueup token list --revoked false --subject bridge
  trueup token list --created-via connection_provision
  trueup token list -o json | jq -r 'select(.expires_at < \"2027\").jti'

What expired more than 30 days ago is forgotten.")]
pub struct TokenList {
    /// Only tokens that are revoked, or only others
    #[arg(long, value_enum, value_name = "WHICH", default_value_t = Which::All)]
    pub revoked: Which,
    /// Only those in this name
    #[arg(long, value_name = "NAME")]
    pub subject: Option<String>,
    /// Only those for this client
    #[arg(long, value_name = "NAME")]
    pub client: Option<String>,
    /// Only those that came to be so, such as cli_mint
    #[arg(long, value_name = "HOW")]
    pub created_via: Option<String>,
}

/// Which tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Which {
    True,
    False,
    #[default]
    All,
}

/// Arguments of `token revoke`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  trueup token revoke Zb3nX0Yk1dJm3nV9sQ8w2A
  trueup token list --subject bridge -o json | jq -r .jti | xargs trueup token revoke

The hub heeds it at once; modules that keep the list of revocations do within a minute.")]
pub struct TokenRevoke {
    /// The ids of the tokens
    #[arg(required = true, value_name = "JTI")]
    pub jtis: Vec<String>,
}

/// Arguments of `token rotate`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  trueup token rotate                  what the old key signed stays valid until it ends
  trueup token rotate --compromised    the old keys are dropped, and everything they signed is dead

After --compromised the operator token is made anew, and whatever else has to be is named.")]
pub struct TokenRotate {
    /// Drop the old keys at once: somebody may have them
    #[arg(long)]
    pub compromised: bool,
}

/// Arguments of `token reset`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  trueup token reset

A backup of hub.db is the better way (trueup token restore): with it every token lives on. Without one, every token is dead, and
what was granted is forgotten. A database that is whole is left alone.")]
pub struct TokenReset {}

/// Arguments of `token restore`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  sqlite3 .trueup/hub.db '.backup hub-backup.db'     makes a backup, while the daemon runs
  trueup token restore hub-backup.db

The backup is read whole before anything is changed. What was there is kept beside it. A daemon that runs
notices; one that ended because the database was lost has to be started again. To copy a file over hub.db
instead is not safe: the journal of the old database may be left, and would damage the new one.")]
pub struct TokenRestore {
    /// The backup
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// Arguments of `token jwks`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  trueup token jwks > jwks.json        for a program that cannot ask the hub")]
pub struct TokenJwks {}

pub fn run(verb: TokenVerb, tokens: &dyn Tokens, now: Timestamp, screen: &mut Screen) -> Result<Exit, Failure> {
    match verb {
        TokenVerb::Mint(args) => mint(args, tokens, now, screen),
        TokenVerb::List(args) => list(&args, tokens, now, screen),
        TokenVerb::Revoke(args) => {
            // A token that is not there is told after the others are revoked.
            let mut failures = Vec::new();
            let ids: BTreeSet<&String> = args.jtis.iter().collect();
            for jti in &ids {
                match tokens.revoke(jti) {
                    Ok(revoked) => say(screen, TokenOutput::Revoked(revoked), now),
                    Err(failure) => failures.push(failure),
                }
            }
            let all = failures.len() == ids.len();
            match failures.into_iter().next() {
                None => Ok(Exit::Done),
                Some(failure) if all => Err(failure),
                Some(failure) => Err(Failure { exit: Exit::Partial, ..failure }),
            }
        }
        TokenVerb::Rotate(args) => {
            say(screen, TokenOutput::Rotated(tokens.rotate(args.compromised)?), now);
            Ok(Exit::Done)
        }
        TokenVerb::Reset(_) => {
            say(screen, TokenOutput::Reset(tokens.reset()?), now);
            Ok(Exit::Done)
        }
        TokenVerb::Restore(args) => {
            say(screen, TokenOutput::Restored(tokens.restore(&args.file)?), now);
            Ok(Exit::Done)
        }
        TokenVerb::Jwks(_) => {
            // A document of its own standard: the same in every form of output but YAML.
            let keys = tokens.jwks()?;
            if screen.is_text() {
                screen.out(&format!("{keys:#}\n"));
            } else {
                write_data(screen, &keys);
            }
            Ok(Exit::Done)
        }
    }
}

fn mint(args: TokenMint, tokens: &dyn Tokens, now: Timestamp, screen: &mut Screen) -> Result<Exit, Failure> {
    let minted = tokens.mint(MintWish {
        scope: args.scopes.join(" "),
        audience: args.audience,
        expires_in: Some(args.expires_in),
        subject: Some(args.subject),
        permissions: args.permissions,
    })?;
    if !screen.is_text() {
        write_data(screen, &TokenOutput::Minted(minted));
        return Ok(Exit::Done);
    }
    let MintedLine { token, .. } = &minted;
    screen.out(&format!("{token}\n"));
    screen.flush();
    screen.err(&render::minted_note(&minted, now));
    Ok(Exit::Done)
}

fn list(args: &TokenList, tokens: &dyn Tokens, now: Timestamp, screen: &mut Screen) -> Result<Exit, Failure> {
    let query = TokenQuery {
        revoked: match args.revoked {
            Which::True => Some(true),
            Which::False => Some(false),
            Which::All => None,
        },
        subject: args.subject.clone(),
        client: args.client.clone(),
        created_via: args.created_via.clone(),
    };
    let mut rows = Vec::new();
    tokens.list(&query, &mut |token| {
        if screen.is_text() {
            rows.push(token);
        } else {
            write_data(screen, &TokenOutput::Token(token));
        }
        !screen.closed()
    })?;
    if !screen.is_text() {
        return Ok(Exit::Done);
    }
    if rows.is_empty() {
        screen.err("no tokens\n");
    } else {
        screen.out(&render::table(&rows, now));
    }
    Ok(Exit::Done)
}

/// Prints a line in the form that was asked for.
pub(super) fn say(screen: &mut Screen, line: TokenOutput, now: Timestamp) {
    if screen.is_text() {
        screen.out(&render::text(&line, now));
    } else {
        write_data(screen, &line);
    }
    screen.flush();
}
