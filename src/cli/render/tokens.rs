//! Tokens and grants as text.

use super::human::{self, count};
use super::printable;
use super::style::{self, paint};
use super::table::grid;
use crate::model::time::Timestamp;
use crate::model::token_output::{GrantLine, MintedLine, RotatedLine, TokenLine, TokenOutput};

/// A longer list of scopes would push the other columns off the screen.
const WIDEST_SCOPES: usize = 48;
const WIDEST_NAME: usize = 24;

/// One line of output, or a few.
pub fn text(line: &TokenOutput, now: Timestamp) -> String {
    match line {
        TokenOutput::Minted(minted) => format!("{}\n", minted.token),
        TokenOutput::Token(token) => table(std::slice::from_ref(token), now),
        TokenOutput::Revoked(revoked) => {
            // The command began at `now`.
            let word = if revoked.revoked_at < now { "revoked already:" } else { "revoked" };
            format!("{word} {} ({})\n", printable::line(&revoked.jti), human::moment(revoked.revoked_at, now))
        }
        TokenOutput::Rotated(rotated) => rotation(rotated, now),
        TokenOutput::Reset(reset) => {
            let mut text = format!("made {}, which signs with {}\n", reset.database.display(), reset.kid);
            if let Some(moved) = &reset.moved_to {
                text.push_str(&format!("what was left of the old one is {}\n", moved.display()));
            }
            text.extend(reset.reissued.iter().map(|what| format!("made anew: {what}\n")));
            text + "every other token is dead; whoever uses one needs a new one\n"
        }
        TokenOutput::Restored(restored) => {
            let mut text = format!("{} is {} now\n", restored.database.display(), restored.from.display());
            if let Some(moved) = &restored.moved_to {
                text.push_str(&format!("the one before is {}\n", moved.display()));
            }
            text.extend(restored.reissued.iter().map(|what| format!("made anew: {what}\n")));
            text + "what was made or revoked since the backup is not known any more\n"
        }
        TokenOutput::Grant(grant) => {
            let (client, subject) = (printable::line(&grant.client_id), printable::line(&grant.subject));
            format!("{client} may act for {subject}: {}\n", printable::line(&grant.scopes.join(" ")))
        }
        TokenOutput::GrantRevoked(gone) => {
            let (client, subject) = (printable::line(&gone.client_id), printable::line(&gone.subject));
            format!("{client} may not act for {subject} any more\n")
        }
    }
}

/// What is to be known of a new token beside the token.
pub fn minted_note(minted: &MintedLine, now: Timestamp) -> String {
    format!("{} until {} ({})\n", minted.scope, minted.expires_at, human::moment(minted.expires_at, now))
        + &format!("  help: 'trueup token revoke {}' ends it sooner; it is not shown again\n", minted.jti)
}

/// Tokens in columns.
pub fn table(tokens: &[TokenLine], now: Timestamp) -> String {
    let short = |text: &str, most| human::shortened(&printable::line(text), most);
    let rows = tokens.iter().map(|token| {
        [
            token.jti.clone(),
            short(&token.subject, WIDEST_NAME),
            short(&token.client_id, WIDEST_NAME),
            short(&token.scopes.join(" "), WIDEST_SCOPES),
            human::moment(token.created_at, now),
            token.created_via.clone(),
            status(token, now),
        ]
    });
    let header = ["JTI", "SUBJECT", "CLIENT", "SCOPES", "CREATED", "VIA", "STATUS"];
    let drawn = grid(Some(&header), rows);
    let mut text = String::new();
    for (at, row) in drawn.iter().enumerate() {
        let painted = match at.checked_sub(1).and_then(|at| tokens.get(at)) {
            None => paint(style::STRONG, row),
            Some(token) if token.revoked_at.is_some() || token.expires_at <= now => paint(style::BAD, row),
            Some(_) => row.clone(),
        };
        text.push_str(&painted);
        text.push('\n');
    }
    text
}

fn status(token: &TokenLine, now: Timestamp) -> String {
    match token.revoked_at {
        Some(at) => format!("revoked {}", human::moment(at, now)),
        None if token.expires_at <= now => format!("expired {}", human::moment(token.expires_at, now)),
        None => format!("ends {}", human::moment(token.expires_at, now)),
    }
}

fn rotation(rotated: &RotatedLine, now: Timestamp) -> String {
    let mut text = format!("signs with {} from now on\n", rotated.kid);
    if !rotated.compromised {
        if rotated.tokens > 0 {
            let tokens = count(rotated.tokens, "token");
            text.push_str(&format!("{tokens} of the old key stay valid until they end\n"));
        }
        return text;
    }
    text.push_str(&format!("dropped {}\n", count(rotated.retired.len() as u64, "key")));
    text.extend(rotated.reissued.iter().map(|what| format!("made anew: {what}\n")));
    if !rotated.orphaned.is_empty() {
        let tokens = count(rotated.orphaned.len() as u64, "token");
        text.push_str(&format!(
            "\n{} {tokens} died with the old keys; whoever uses them needs new ones:\n",
            paint(style::CHANGE, "warning:")
        ));
        text.push_str(&table(&rotated.orphaned, now));
    }
    text
}

/// Grants in columns.
pub fn grants(all: &[GrantLine], now: Timestamp) -> String {
    let rows = all.iter().map(|grant| {
        [
            printable::line(&grant.subject).into_owned(),
            printable::line(&grant.client_id).into_owned(),
            human::moment(grant.granted_at, now),
            printable::line(&grant.scopes.join(" ")).into_owned(),
        ]
    });
    grid(Some(&["SUBJECT", "CLIENT", "GRANTED", "SCOPES"]), rows).into_iter().map(|row| row + "\n").collect()
}
