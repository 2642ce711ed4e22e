//! What a vault keeps of a trigger, and what it takes for one.

use std::sync::LazyLock;

use hyper::Uri;
use regex::Regex;
use serde_json::{Map, Value, json};

use super::operators;

/// What stands in place of a secret in every answer.
const REDACTED: &str = "[REDACTED]";

static NAME: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new("^[A-Za-z0-9][A-Za-z0-9_-]*$").ok());

/// A trigger as it was sent; what is not known in `when` and `action` stays in them and does nothing.
#[derive(Clone, PartialEq)]
pub(super) struct Trigger {
    pub(super) name: String,
    pub(super) events: Vec<String>,
    pub(super) when: Map<String, Value>,
    pub(super) action: Map<String, Value>,
    pub(super) created_at: String,
    pub(super) updated_at: String,
}

impl Trigger {
    /// The trigger in a request.
    ///
    /// # Errors
    /// What is wrong with it, for whoever sent it.
    pub(super) fn of(body: &Value) -> Result<Self, String> {
        let body = body.as_object().ok_or("the body must be a JSON object")?;
        let object = |name: &str| body.get(name).and_then(Value::as_object);
        let name = body.get("name").and_then(Value::as_str).filter(|name| is_name(name));
        let name = name.ok_or("`name` is required and must match [A-Za-z0-9][A-Za-z0-9_-]*")?;
        let events = match body.get("events") {
            None => vec!["created".to_owned(), "updated".to_owned()],
            Some(events) => named_events(events).ok_or("`events` must be a list of 'created' and 'updated'")?,
        };
        let when = object("when").ok_or("`when` is required and must be an object")?;
        if let Some(fields) = when.get("metadata") {
            check_fields(fields)?;
        }
        let action = object("action").ok_or("`action` is required and must be an object")?;
        check_webhook(action.get("webhook"))?;
        check_auth(action.get("auth"))?;
        let (when, action) = (when.clone(), action.clone());
        Ok(Self { name: name.to_owned(), events, when, action, created_at: String::new(), updated_at: String::new() })
    }

    pub(super) fn webhook(&self) -> &str {
        self.action.get("webhook").and_then(Value::as_str).unwrap_or_default()
    }

    pub(super) fn bearer(&self) -> Option<&str> {
        self.action.get("auth")?.get("bearer")?.as_str()
    }

    /// As it is shown: whether there is a bearer, and not which.
    pub(super) fn shown(&self) -> Value {
        let mut action = self.action.clone();
        if let Some(bearer) = action.get_mut("auth").and_then(|auth| auth.get_mut("bearer")) {
            *bearer = json!(REDACTED);
        }
        json!({
            "name": self.name,
            "events": self.events,
            "when": self.when,
            "action": action,
            "created_at": self.created_at,
            "updated_at": self.updated_at,
        })
    }
}

fn is_name(name: &str) -> bool {
    NAME.as_ref().is_some_and(|pattern| pattern.is_match(name))
}

fn named_events(events: &Value) -> Option<Vec<String>> {
    let known =
        |event: &Value| event.as_str().filter(|event| ["created", "updated"].contains(event)).map(str::to_owned);
    events.as_array()?.iter().map(known).collect()
}

fn check_fields(fields: &Value) -> Result<(), String> {
    let fields = fields.as_object().ok_or("`when.metadata` must be an object of fields with their operators")?;
    for (field, comparisons) in fields {
        let comparisons = comparisons.as_object();
        let comparisons = comparisons
            .ok_or_else(|| format!("`when.metadata.{field}` must be an object of operators, as {{ \"eq\": 1 }}"))?;
        if let Some(unknown) = comparisons.keys().find(|one| !operators::SUPPORTED.contains(&one.as_str())) {
            let known = operators::SUPPORTED.join(", ");
            return Err(format!("`when.metadata.{field}` has the unknown operator \"{unknown}\"; there are: {known}"));
        }
    }
    Ok(())
}

fn check_webhook(webhook: Option<&Value>) -> Result<(), String> {
    let webhook = webhook.and_then(Value::as_str).filter(|webhook| !webhook.is_empty());
    let webhook = webhook.ok_or("`action.webhook` is required and must be the text of a URL")?;
    let url: Option<Uri> = webhook.parse().ok();
    match url.as_ref().map(|url| (url.scheme_str(), url.host())) {
        Some((Some("http" | "https"), Some(_))) => Ok(()),
        Some((Some(scheme), _)) if !["http", "https"].contains(&scheme) => {
            Err(format!("`action.webhook` must use http or https, not {scheme}"))
        }
        _ => Err(format!("`action.webhook` is not a valid URL: {webhook}")),
    }
}

fn check_auth(auth: Option<&Value>) -> Result<(), String> {
    let Some(auth) = auth else { return Ok(()) };
    let auth = auth.as_object().ok_or("`action.auth` must be an object when there is one")?;
    match auth.get("bearer") {
        None => Ok(()),
        Some(Value::String(bearer)) if !bearer.is_empty() => Ok(()),
        Some(_) => Err("`action.auth.bearer` must be a text that is not empty when there is one".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(change: &[(&str, Value)]) -> Value {
        let mut body = json!({ "name": "conn_a", "when": {}, "action": { "webhook": "http://127.0.0.1:1/x" } });
        for (name, value) in change {
            body[*name] = value.clone();
        }
        body
    }

    #[test]
    fn what_is_no_trigger_is_refused_with_the_reason() {
        let webhook = |url: &str| json!({ "webhook": url });
        let auth = |auth: Value| json!({ "webhook": "https://hub.example.org/x", "auth": auth });
        let cases = [
            (json!([]), "a JSON object"),
            (json!("x"), "a JSON object"),
            (body(&[("name", json!(1))]), "`name`"),
            (body(&[("name", json!("-a"))]), "`name`"),
            (body(&[("name", json!("a b"))]), "`name`"),
            (body(&[("name", json!("a\n"))]), "`name`"),
            (body(&[("events", json!("created"))]), "`events`"),
            (body(&[("events", json!(["deleted"]))]), "`events`"),
            (body(&[("when", Value::Null)]), "`when` is required"),
            (body(&[("when", json!([]))]), "`when` is required"),
            (body(&[("when", json!({ "metadata": [] }))]), "`when.metadata`"),
            (body(&[("when", json!({ "metadata": { "state": "x" } }))]), "`when.metadata.state`"),
            (body(&[("when", json!({ "metadata": { "state": { "equals": 1 } } }))]), "\"equals\""),
            (body(&[("action", json!([]))]), "`action` is required"),
            (body(&[("action", json!({}))]), "`action.webhook`"),
            (body(&[("action", webhook(""))]), "`action.webhook`"),
            (body(&[("action", webhook("nowhere"))]), "not a valid URL: nowhere"),
            (body(&[("action", webhook("ftp://host/x"))]), "not ftp"),
            (body(&[("action", auth(json!("x")))]), "`action.auth`"),
            (body(&[("action", auth(json!({ "bearer": "" })))]), "`action.auth.bearer`"),
            (body(&[("action", auth(json!({ "bearer": 1 })))]), "`action.auth.bearer`"),
        ];
        for (body, part) in cases {
            let error = Trigger::of(&body).err().unwrap_or_else(|| panic!("{body} is taken"));
            assert!(error.contains(part), "{body}: {error}");
        }
    }

    #[test]
    fn a_trigger_keeps_what_it_was_sent_and_shows_no_bearer() {
        let sent = body(&[
            ("when", json!({ "tags": ["a"], "color": "red", "metadata": { "n": { "gte": 1 } } })),
            ("action", json!({ "webhook": "http://h/x", "send": "json", "later": 1, "auth": { "bearer": "secret" } })),
        ]);
        let trigger = Trigger::of(&sent).expect("a trigger");
        assert_eq!((trigger.events.len(), trigger.webhook(), trigger.bearer()), (2, "http://h/x", Some("secret")));
        let shown = trigger.shown();
        assert_eq!((&shown["when"], &shown["action"]["later"]), (&sent["when"], &json!(1)));
        assert_eq!(shown["action"]["auth"], json!({ "bearer": "[REDACTED]" }));
        assert!(!shown.to_string().contains("secret"));
        let plain = Trigger::of(&body(&[("events", json!(["updated"]))])).expect("a trigger");
        assert_eq!((plain.events, plain.action.get("auth")), (vec!["updated".to_owned()], None));
    }
}
