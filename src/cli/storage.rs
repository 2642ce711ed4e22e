//! `storage`: where blobs lie, and how far a migration is.

use super::args::StorageVerb;
use super::engine::Blobs;
use super::exit::Failure;
use super::render::blobs as render;
use super::render::screen::Screen;
use super::render::show::write_data;
use crate::model::blob_output::BlobOutput;
use crate::model::exit::Exit;
use crate::model::time::Timestamp;

/// So many past migrations are shown.
const HISTORY: usize = 100;

pub fn run(verb: &StorageVerb, blobs: &dyn Blobs, now: Timestamp, screen: &mut Screen) -> Result<Exit, Failure> {
    let StorageVerb::Status(args) = verb;
    let status = blobs.status()?;
    let history = if args.history { blobs.migrations(HISTORY)? } else { Vec::new() };
    if screen.is_text() {
        screen.out(&render::storage(&status, now));
        if args.history {
            screen.out(&render::history(&history, now));
        }
        return Ok(Exit::Done);
    }
    write_data(screen, &BlobOutput::Storage(status));
    for migration in history {
        write_data(screen, &BlobOutput::Migration(migration));
    }
    Ok(Exit::Done)
}
