//! What may be asked of the notes of a vault, in a query string.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use super::note::{Note, View};
use super::operators;

const USUAL_LIMIT: usize = 50;
const MOST: usize = 10_000;
/// They can be compared in a query although no tag declares them.
const DATES: [&str; 2] = ["created_at", "updated_at"];

/// Why a query is refused: what is told, and its code.
pub(super) type Wrong = (String, &'static str);

/// A query that was understood.
#[derive(Debug)]
pub(super) struct Query {
    tags: Vec<String>,
    any_tag: bool,
    without: Vec<String>,
    path: Option<String>,
    path_prefix: Option<String>,
    search: Option<String>,
    equal: Map<String, Value>,
    dates: Vec<(String, Map<String, Value>)>,
    pub(super) newest_first: bool,
    offset: usize,
    limit: usize,
    /// The time and the id of the last note of the page before.
    cursor: Option<Option<(String, String)>>,
    pub(super) view: View,
}

impl Query {
    pub(super) fn read(pairs: &[(String, String)]) -> Result<Self, Wrong> {
        let one = |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let list = |name: &str| one(name).filter(|list| !list.is_empty()).map_or_else(Vec::new, words);
        let number = |name: &str| one(name).and_then(|number| number.parse::<usize>().ok());
        let tags = list("tag");
        let cursor = one("cursor").map(|cursor| match cursor {
            "" => Ok(None),
            text => read_cursor(text).map(Some).ok_or_else(|| ("this is no cursor".to_owned(), "cursor_invalid")),
        });
        let cursor = cursor.transpose()?;
        let newest_first = one("sort") == Some("desc");
        if cursor.is_some() && newest_first {
            return Err(("a cursor goes from the oldest change to the newest".to_owned(), "INVALID_QUERY"));
        }
        let (equal, dates) = metadata(pairs)?;
        Ok(Self {
            any_tag: one("tag_match").map_or(tags.len() > 1, |how| how == "any"),
            tags,
            without: list("exclude_tag"),
            path: one("path").map(str::to_owned),
            path_prefix: one("path_prefix").map(str::to_owned),
            search: one("search").filter(|search| !search.is_empty()).map(str::to_lowercase),
            equal,
            dates,
            newest_first,
            offset: number("offset").unwrap_or(0),
            limit: number("limit").unwrap_or(USUAL_LIMIT).min(MOST),
            cursor,
            view: view(pairs, false),
        })
    }

    pub(super) fn wants(&self, note: &Note) -> bool {
        let tagged = match (self.tags.is_empty(), self.any_tag) {
            (true, _) => true,
            (false, true) => self.tags.iter().any(|tag| note.has_tag(tag)),
            (false, false) => self.tags.iter().all(|tag| note.has_tag(tag)),
        };
        let date = |name: &str| json!(if name == "created_at" { &note.created_at } else { &note.updated_at });
        let path = note.path.as_deref();
        tagged
            && !self.without.iter().any(|tag| note.has_tag(tag))
            && self.path.as_deref().is_none_or(|wanted| path == Some(wanted))
            && self.path_prefix.as_deref().is_none_or(|prefix| path.is_some_and(|path| path.starts_with(prefix)))
            && self.search.as_deref().is_none_or(|search| note.content.to_lowercase().contains(search))
            && self.equal.iter().all(|(field, wanted)| is_same(note.metadata.get(field), wanted))
            && self.dates.iter().all(|(name, bounds)| operators::stands(Some(&date(name)), bounds) == Ok(true))
    }

    /// So many notes that are wanted have to be found for [`Self::page`].
    pub(super) fn most(&self) -> usize {
        if self.cursor.is_some() { usize::MAX } else { self.offset.saturating_add(self.limit) }
    }

    /// The part of what was found that is answered.
    pub(super) fn page(&self, mut found: Vec<Note>) -> Value {
        let Some(cursor) = &self.cursor else {
            let page = found.iter().skip(self.offset).take(self.limit);
            return page.map(|note| note.shown(&self.view)).collect();
        };
        let place = |note: &Note| (note.updated_at.clone(), note.id.clone());
        found.sort_by_key(place);
        let page: Vec<&Note> = found
            .iter()
            .filter(|note| cursor.as_ref().is_none_or(|cursor| place(note) > *cursor))
            .take(self.limit)
            .collect();
        let last = page.last().map(|note| place(note)).or_else(|| cursor.clone());
        let next = last.map(|last| URL_SAFE_NO_PAD.encode(json!(last).to_string()));
        let notes: Vec<Value> = page.into_iter().map(|note| note.shown(&self.view)).collect();
        json!({ "notes": notes, "next_cursor": next })
    }
}

/// What is to be shown of a note; one alone is shown with its content.
pub(super) fn view(pairs: &[(String, String)], alone: bool) -> View {
    let one = |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let truth = |name: &str, usual: bool| one(name).map_or(usual, |text| text == "true" || text == "1");
    let metadata = match one("include_metadata") {
        None | Some("" | "true" | "1") => None,
        Some("false" | "0") => Some(Vec::new()),
        Some(keys) => Some(words(keys)),
    };
    View { content: truth("include_content", alone), attachments: truth("include_attachments", false), metadata }
}

fn words(list: &str) -> Vec<String> {
    list.split(',').map(|word| word.trim().to_owned()).filter(|word| !word.is_empty()).collect()
}

fn read_cursor(text: &str) -> Option<(String, String)> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
}

/// As a text field: `5` is the number 5 as well as the text.
fn is_same(value: Option<&Value>, wanted: &Value) -> bool {
    match (value, wanted) {
        (Some(Value::String(value)), Value::String(wanted)) => value == wanted,
        (Some(Value::String(_)) | None, _) => false,
        (Some(value), Value::String(wanted)) => {
            serde_json::from_str::<Value>(wanted).is_ok_and(|wanted| *value == wanted)
        }
        (Some(value), wanted) => value == wanted,
    }
}

type Filters = (Map<String, Value>, Vec<(String, Map<String, Value>)>);

/// `meta[field]=value`, `meta[created_at][gte]=time`, and the same as one JSON object in `metadata`.
fn metadata(pairs: &[(String, String)]) -> Result<Filters, Wrong> {
    let invalid = |why: String| (why, "INVALID_QUERY");
    let mut equal = Map::new();
    let mut dates: Vec<(String, Map<String, Value>)> = Vec::new();
    for (key, value) in pairs {
        let Some(rest) = key.strip_prefix("meta[").and_then(|rest| rest.strip_suffix(']')) else { continue };
        let mut words = rest.split("][");
        let (field, operator) = (words.next().unwrap_or_default(), words.next());
        match operator {
            Some(operator @ ("gte" | "lt")) if DATES.contains(&field) => {
                dates.push((field.to_owned(), Map::from_iter([(operator.to_owned(), json!(value))])));
            }
            _ if DATES.contains(&field) => {
                return Err(invalid(format!("{field} is compared with gte and lt only: meta[{field}][gte]=")));
            }
            Some(operator) => return Err(not_indexed(field, operator)),
            None => drop(equal.insert(field.to_owned(), json!(value))),
        }
    }
    let Some((_, text)) = pairs.iter().find(|(key, _)| key == "metadata") else { return Ok((equal, dates)) };
    let object: Map<String, Value> =
        serde_json::from_str(text).map_err(|error| invalid(format!("metadata must be a JSON object: {error}")))?;
    if !object.is_empty() && !equal.is_empty() {
        return Err(invalid("metadata= and meta[...]= are not taken together".to_owned()));
    }
    for (field, wanted) in object {
        if let Some(comparisons) = wanted.as_object().filter(|comparisons| !comparisons.is_empty()) {
            let operator = comparisons.keys().next().map(String::as_str).unwrap_or_default();
            return Err(not_indexed(&field, operator));
        }
        equal.insert(field, wanted);
    }
    Ok((equal, dates))
}

/// A vault compares only fields that a tag declares as indexed, and a demo vault has no such tags.
fn not_indexed(field: &str, operator: &str) -> Wrong {
    if !operators::SUPPORTED.contains(&operator) {
        return (format!("'{operator}' on the field '{field}' is no operator"), "UNKNOWN_OPERATOR");
    }
    (format!("the metadata field \"{field}\" is not indexed, so it cannot be compared"), "FIELD_NOT_INDEXED")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(id: &str, tags: &[&str], metadata: &Value, updated: &str) -> Note {
        let note = json!({ "id": id, "content": "Hello", "path": "in/x", "tags": tags, "metadata": metadata,
            "createdAt": "2026-01-01T00:00:00.000Z", "updatedAt": updated });
        serde_json::from_value(note).expect("a note")
    }

    fn pairs(text: &str) -> Vec<(String, String)> {
        let pair =
            |one: &str| one.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())).expect("a pair");
        text.split('&').filter(|one| !one.is_empty()).map(pair).collect()
    }

    #[test]
    fn queries_choose_notes() {
        let one = note("n", &["a", "b"], &json!({ "n": 5, "s": "x" }), "2026-01-02T00:00:00.000Z");
        for (query, wanted) in [
            ("", true),
            ("tag=a", true),
            ("tag=c", false),
            ("tag=a,c", true),
            ("tag=a,c&tag_match=all", false),
            ("exclude_tag=b", false),
            ("path=in/x", true),
            ("path_prefix=out", false),
            ("search=ELL", true),
            ("meta[n]=5", true),
            ("meta[s]=y", false),
            ("meta[t]=y", false),
            ("metadata={\"n\":5}", true),
            ("metadata={\"n\":\"6\"}", false),
            ("metadata={}", true),
            ("meta[created_at][gte]=2026-01-01&meta[created_at][lt]=2026-01-02", true),
            ("meta[updated_at][lt]=2026-01-02", false),
        ] {
            assert_eq!(Query::read(&pairs(query)).expect(query).wants(&one), wanted, "{query}");
        }
        for (query, code) in [
            ("meta[t_pending_at][exists]=true", "FIELD_NOT_INDEXED"),
            ("metadata={\"n\":{\"gt\":4}}", "FIELD_NOT_INDEXED"),
            ("meta[n][like]=4", "UNKNOWN_OPERATOR"),
            ("meta[created_at]=2026", "INVALID_QUERY"),
            ("metadata=[]", "INVALID_QUERY"),
            ("cursor=x", "cursor_invalid"),
            ("cursor=&sort=desc", "INVALID_QUERY"),
        ] {
            assert_eq!(Query::read(&pairs(query)).expect_err(query).1, code, "{query}");
        }
    }

    #[test]
    fn pages_are_lean_and_a_cursor_walks_through_all() {
        let times = ["2026-01-03T00:00:00.000Z", "2026-01-01T00:00:00.000Z", "2026-01-02T00:00:00.000Z"];
        let notes: Vec<Note> = times
            .iter()
            .enumerate()
            .map(|(id, time)| note(&id.to_string(), &[], &json!({ "m": 1, "n": 2 }), time))
            .collect();
        let page = Query::read(&pairs("limit=1&offset=1&include_metadata=m")).expect("a query").page(notes.clone());
        assert_eq!(page[0]["metadata"], json!({ "m": 1 }));
        assert_eq!((page.as_array().map(Vec::len), page[0].get("content")), (Some(1), None));
        let mut cursor = String::new();
        let mut seen = Vec::new();
        for _ in 0..4 {
            let page = Query::read(&pairs(&format!("limit=1&cursor={cursor}"))).expect("a query").page(notes.clone());
            seen.extend(page["notes"].as_array().expect("notes").iter().map(|note| note["id"].clone()));
            cursor = page["next_cursor"].as_str().expect("a cursor").to_owned();
        }
        assert_eq!(seen, [json!("1"), json!("2"), json!("0")]);
    }
}
