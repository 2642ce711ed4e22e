//! `get events`, `get actions`, `get credentials`, `get templates`: what services declare of themselves.

use super::engine::{Catalog, Control};
use super::exit::Failure;
use super::names::{Target, nearest};
use super::render::catalog as render;
use super::render::screen::Screen;
use super::render::show::write_data;
use super::{Desk, get, unless_cancelled};
use crate::model::catalog_output::CatalogLine;
use crate::model::exit::Exit;
use crate::model::id::Name;
use crate::model::output::{Line, Summary};

/// Which declarations are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Events,
    Actions,
    Credentials,
    Templates,
}

impl What {
    pub const ALL: [Self; 4] = [Self::Events, Self::Actions, Self::Credentials, Self::Templates];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Actions => "actions",
            Self::Credentials => "credentials",
            Self::Templates => "templates",
        }
    }

    /// What a word asks for; a resource of that name is asked for as `kind/name`.
    pub fn of(target: &Target) -> Option<Self> {
        let (Target::Name(name) | Target::Word(_, name)) = target else { return None };
        let is = |what: &Self| what.as_str() == name.as_str() || what.as_str().strip_suffix('s') == Some(name.as_str());
        Self::ALL.into_iter().find(is)
    }

    fn takes(self, line: &CatalogLine) -> bool {
        match line {
            CatalogLine::EventDeclared(_) => self == Self::Events,
            CatalogLine::ActionDeclared(_) => self == Self::Actions,
            CatalogLine::CredentialDeclared(_) => self == Self::Credentials,
            CatalogLine::TemplateDeclared(_) => self == Self::Templates,
        }
    }
}

/// Whose declaration a line is.
fn service(line: &CatalogLine) -> &Name {
    match line {
        CatalogLine::EventDeclared(event) => &event.service,
        CatalogLine::ActionDeclared(action) => &action.service,
        CatalogLine::CredentialDeclared(credential) => &credential.service,
        CatalogLine::TemplateDeclared(template) => &template.service,
    }
}

pub(super) async fn run(
    what: What,
    of: &[Target],
    control: &dyn Control,
    desk: Desk<'_>,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let started = desk.wiring.now();
    let names = of.iter().map(Target::service).collect::<Result<Vec<Name>, Failure>>()?;
    let Catalog { services, declared, problems } = unless_cancelled(desk.cancel, control.catalog()).await?;
    for name in &names {
        if !services.contains(name) {
            let failure = Failure::new(Exit::Error, format!("there is no service '{name}'"));
            return Err(match nearest(name.as_str(), services.iter().map(Name::as_str)) {
                Some(near) => failure.hint(format!("did you mean '{near}'?")),
                None => failure.hint("'trueup get services' lists what there is"),
            });
        }
    }
    let wanted = |line: &CatalogLine| what.takes(line) && (names.is_empty() || names.contains(service(line)));
    let chosen: Vec<CatalogLine> = declared.into_iter().filter(wanted).collect();
    if screen.is_text() {
        match chosen.is_empty() {
            true => screen.err(&format!("no {}\n", what.as_str())),
            false => screen.out(&render::table(what, &chosen)),
        }
        screen.flush();
        screen.err(&get::mistakes(&problems));
        return Ok(Exit::Done);
    }
    let in_sync = problems.is_empty();
    for problem in problems {
        write_data(screen, &Line::Problem(problem));
    }
    chosen.iter().for_each(|line| write_data(screen, line));
    let duration_ms = u64::try_from(desk.wiring.now().0 - started.0).unwrap_or(0);
    write_data(
        screen,
        &Line::Summary(Summary { resources: services.len(), in_sync, duration_ms, ..Summary::default() }),
    );
    Ok(Exit::Done)
}
