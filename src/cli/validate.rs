//! `validate`: every mistake in the manifests.

use super::Desk;
use super::engine::Control;
use super::exit::Failure;
use super::pass::{self, OnCancel};
use super::render::screen::Screen;
use crate::model::exit::Exit;

pub async fn run(control: &dyn Control, desk: Desk<'_>, screen: &mut Screen) -> Result<Exit, Failure> {
    pass::run(desk, screen, OnCancel::Check, false, async |sink| control.validate(sink).await).await
}
