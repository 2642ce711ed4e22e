//! `grant`: what a client may do in somebody's name.

use clap::{Args, Subcommand};

use super::engine::Tokens;
use super::exit::Failure;
use super::render::screen::Screen;
use super::render::tokens as render;
use super::token::say;
use crate::model::exit::Exit;
use crate::model::time::Timestamp;
use crate::model::token_output::{GrantRevokedLine, TokenOutput};

/// Arguments of `grant`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  trueup grant list
  trueup grant add alice notes vault:lab:read vault:lab:write
  trueup grant revoke alice notes")]
pub struct GrantWords {
    #[command(subcommand)]
    pub verb: GrantVerb,
}

/// What can be done with grants.
#[derive(Debug, Subcommand)]
pub enum GrantVerb {
    /// List what is granted
    List(GrantList),
    /// Grant scopes, beside those that are granted already
    Add(GrantAdd),
    /// Take everything back that a subject granted a client
    Revoke(GrantRevoke),
}

/// Arguments of `grant list`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  trueup grant list
  trueup grant list -o json | jq -r 'select(.client_id == \"notes\").subject'")]
pub struct GrantList {}

/// Arguments of `grant add`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  trueup grant add alice notes vault:lab:read")]
pub struct GrantAdd {
    /// Who grants
    #[arg(value_name = "SUBJECT")]
    pub subject: String,
    /// The client that may act in their name
    #[arg(value_name = "CLIENT")]
    pub client: String,
    /// What it may do
    #[arg(value_name = "SCOPE", required = true)]
    pub scopes: Vec<String>,
}

/// Arguments of `grant revoke`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  trueup grant revoke alice notes

Tokens that were made on its strength live on until they end; 'trueup token revoke' ends them.")]
pub struct GrantRevoke {
    /// Who granted
    #[arg(value_name = "SUBJECT")]
    pub subject: String,
    /// The client
    #[arg(value_name = "CLIENT")]
    pub client: String,
}

pub fn run(verb: &GrantVerb, tokens: &dyn Tokens, now: Timestamp, screen: &mut Screen) -> Result<Exit, Failure> {
    match verb {
        GrantVerb::List(_) => {
            let grants = tokens.grants()?;
            if screen.is_text() && grants.is_empty() {
                screen.err("no grants\n");
            } else if screen.is_text() {
                screen.out(&render::grants(&grants, now));
            } else {
                grants.into_iter().for_each(|grant| say(screen, TokenOutput::Grant(grant), now));
            }
        }
        GrantVerb::Add(args) => {
            let grant = tokens.grant(&args.subject, &args.client, &args.scopes)?;
            say(screen, TokenOutput::Grant(grant), now);
        }
        GrantVerb::Revoke(args) => {
            if !tokens.revoke_grant(&args.subject, &args.client)? {
                let text = format!("{} granted {} nothing", args.subject, args.client);
                return Err(Failure::new(Exit::Error, text).hint("'trueup grant list' lists what is granted"));
            }
            let line = GrantRevokedLine { subject: args.subject.clone(), client_id: args.client.clone() };
            say(screen, TokenOutput::GrantRevoked(line), now);
        }
    }
    Ok(Exit::Done)
}
