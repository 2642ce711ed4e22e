//! What services declare, as tables.

use super::human;
use super::printable;
use super::style::{self, paint};
use super::table::grid;
use crate::cli::catalog::What;
use crate::model::catalog_output::CatalogLine;

/// Longer ones would push the other columns off the screen; the other forms of output have the whole.
const WIDEST_TITLE: usize = 40;
const WIDEST_KEYS: usize = 60;

/// The table of one sort of declarations.
pub fn table(what: What, lines: &[CatalogLine]) -> String {
    match what {
        What::Events => draw(["SERVICE", "EVENT", "TITLE", "FILTER"], lines, |line| match line {
            CatalogLine::EventDeclared(event) => {
                Some([event.service.to_string(), event.key.clone(), event.title.clone(), keys(&event.filter)])
            }
            _ => None,
        }),
        What::Actions => {
            draw(["SERVICE", "ACTION", "TITLE", "SCOPE", "ENDPOINT", "PARAMS"], lines, |line| match line {
                CatalogLine::ActionDeclared(action) => Some([
                    action.service.to_string(),
                    action.key.clone(),
                    action.title.clone(),
                    action.scope.clone().unwrap_or_else(none),
                    action.endpoint.clone().unwrap_or_else(none),
                    keys(&action.params),
                ]),
                _ => None,
            })
        }
        What::Credentials => draw(["SERVICE", "CREDENTIAL", "TITLE", "SCOPE", "ENDPOINT"], lines, |line| match line {
            CatalogLine::CredentialDeclared(credential) => Some([
                credential.service.to_string(),
                credential.key.clone(),
                credential.title.clone(),
                credential.scope.clone(),
                credential.endpoint.clone(),
            ]),
            _ => None,
        }),
        What::Templates => {
            draw(["SERVICE", "TEMPLATE", "TITLE", "SOURCE", "SINK", "PARAMETERS"], lines, |line| match line {
                CatalogLine::TemplateDeclared(template) => {
                    let part = |pointer: &str| template.template.pointer(pointer).and_then(|part| part.as_str());
                    let both = |a: &str, b: &str| match (part(a), part(b)) {
                        (Some(a), Some(b)) => format!("{a} {b}"),
                        _ => none(),
                    };
                    let parameters = template.template.get("parameters").and_then(|list| list.as_array());
                    let parameters = parameters.into_iter().flatten();
                    let names: Vec<String> =
                        parameters.filter_map(|one| Some(one.get("key")?.as_str()?.to_owned())).collect();
                    Some([
                        template.service.to_string(),
                        template.key.clone(),
                        template.title.clone(),
                        both("/source/module", "/source/event"),
                        both("/sink/module", "/sink/action"),
                        keys(&names),
                    ])
                }
                _ => None,
            })
        }
    }
}

fn draw<const N: usize>(
    header: [&str; N],
    lines: &[CatalogLine],
    row: impl Fn(&CatalogLine) -> Option<[String; N]>,
) -> String {
    // What a module says of itself may hold anything.
    let clean = |row: [String; N]| {
        let mut row = row.map(|cell| human::shortened(&printable::line(&cell), WIDEST_KEYS));
        row[2] = human::shortened(&row[2], WIDEST_TITLE);
        row
    };
    let drawn = grid(Some(&header), lines.iter().filter_map(row).map(clean));
    let mut text = String::new();
    for (at, row) in drawn.iter().enumerate() {
        text.push_str(&if at == 0 { paint(style::STRONG, row) } else { row.clone() });
        text.push('\n');
    }
    text
}

fn keys(names: &[String]) -> String {
    if names.is_empty() { none() } else { names.join(", ") }
}

fn none() -> String {
    "-".to_owned()
}
